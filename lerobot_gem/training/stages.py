"""The four stages of GEM as data: which parts are trainable, and which losses teach them (arXiv 2605.28548).

| stage | trainable | loss |
|---|---|---|
| connector | connector | depth |
| generator | connector, transformer | depth |
| joint | language model, merger, connector, transformer | language + lambda depth |
| action | all of these, vision tower, expert | action + lambda depth + tokens and language, each by its weight |

The autoencoder is frozen in all of them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# Part -> prefixes of its parameters' names in a policy. The longest prefix decides.
PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vision_tower": ("backbone.model.visual.",),
        "merger": ("backbone.model.visual.merger.", "backbone.model.visual.deepstack_merger_list."),
        "language_model": ("backbone.model.language_model.", "backbone.lm_head."),
        "connector": ("generator.connector.",),
        "transformer": ("generator.transformer.",),
        "autoencoder": ("generator.autoencoder.",),
        "expert": ("expert.",),
    }
)

BACKBONE_PARTS = ("vision_tower", "merger", "language_model")

# The configuration's fields that freeze parts.
FREEZE_VISION_TOWER = "backbone.freeze_vision_tower"
FREEZE_LANGUAGE_MODEL = "backbone.freeze_language_model"
FREEZE_EXPERT = "expert.freeze"
FREEZE_FLAGS = {
    FREEZE_VISION_TOWER: {"vision_tower", "merger"},
    FREEZE_LANGUAGE_MODEL: {"language_model"},
    FREEZE_EXPERT: {"expert"},
}

# The configuration's fields that hold weights, for losses whose weight is the user's; lambda is the depth's.
DEPTH_LOSS_WEIGHT = "depth.loss_weight"
TOKENS_LOSS_WEIGHT = "action_tokens.loss_weight"
LANGUAGE_LOSS_WEIGHT = "co_training.loss_weight"


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        trainable: Parts that are trained; the others are frozen.
        losses: Loss -> its weight, or the name of the configuration's field that holds the weight.
    """

    trainable: frozenset[str]
    losses: Mapping[str, float | str]


_VLM = {"merger", "language_model"}  # the release's script keeps the vision tower fixed in stage 3
_GENERATOR = {"connector", "transformer"}

# In the order in which they are trained.
STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "connector": Stage(frozenset({"connector"}), {"depth": 1.0}),
        "generator": Stage(frozenset(_GENERATOR), {"depth": 1.0}),
        "joint": Stage(frozenset(_VLM | _GENERATOR), {"language": 1.0, "depth": DEPTH_LOSS_WEIGHT}),
        "action": Stage(
            frozenset(_VLM | _GENERATOR | {"vision_tower", "expert"}),
            {
                "action": 1.0,
                "depth": DEPTH_LOSS_WEIGHT,
                "tokens": TOKENS_LOSS_WEIGHT,
                "language": LANGUAGE_LOSS_WEIGHT,
            },
        ),
    }
)
# Those of the policy `gem`; `action` is `gem_vla`.
PRETRAINING = ("connector", "generator", "joint")


def skipped_before(stage: str, done: Collection[str]) -> list[str]:
    """The stages that come before a stage and are not among those done, in order."""
    names = list(STAGES)
    return [earlier for earlier in names[: names.index(stage)] if earlier not in done]


def part_of(parameter: str) -> str:
    """The part that a policy's parameter belongs to.

    Raises:
        KeyError: It belongs to none.
    """
    owners = {prefix: part for part, prefixes in PARTS.items() for prefix in prefixes}
    matching = [prefix for prefix in owners if parameter.startswith(prefix)]
    if not matching:
        raise KeyError(f"The parameter {parameter!r} belongs to no part; parts are {', '.join(PARTS)}.")
    return owners[max(matching, key=len)]


def loss_weights(stage: str, fields: Mapping[str, float]) -> dict[str, float]:
    """Losses that apply in a stage, with their weights; those of weight 0 are left out.

    Args:
        stage: Its name.
        fields: Values of the configuration's fields that hold weights, by name.
    """
    weights = {
        loss: fields[weight] if isinstance(weight, str) else weight
        for loss, weight in STAGES[stage].losses.items()
    }
    return {loss: weight for loss, weight in weights.items() if weight > 0}
