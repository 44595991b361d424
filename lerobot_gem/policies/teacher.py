"""The teacher of one-step distillation: a policy that acts in many steps, whose chunks another one learns to give in one."""

from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import HFValidationError
from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import UnnormalizerProcessorStep
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from lerobot_gem.checkpoints.adapters import check_whole
from lerobot_gem.checkpoints.processor_files import check_processor_files
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.statistics import READ

if TYPE_CHECKING:
    from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy

# In a batch: the teacher's chunks (B, N, T, A), and the noise (B, N, T, A) that they began with.
TAUGHT, TAUGHT_FROM = "distillation.chunks", "distillation.noise"


class Teacher:
    """A policy that teaches; no module, so that it is no part of the student's weights, gradients or checkpoint.

    It is compared with the student when it is named, and loaded (`load`) when it first teaches.

    Args:
        student: Configuration of the student, whose features are settled.
        dataset_meta: Metadata of the training dataset.

    Raises:
        ValueError: It can't be a teacher of this student: of another type, of other dimensions, or of actions that are
            normalised otherwise. The message names all that differs.
    """

    def __init__(self, student: GemVLAConfig, dataset_meta: Any) -> None:
        assert student.distillation.teacher is not None
        self._pretrained = student.distillation.teacher
        self._given = f"distillation.teacher={self._pretrained!r}"
        try:
            config = PreTrainedConfig.from_pretrained(self._pretrained)
        except (OSError, HFValidationError) as error:
            raise FileNotFoundError(
                f"{self._given} is no policy that can be read ({error}): expected the folder of a checkpoint (its pretrained_model), or a "
                "Hub id that is in the local cache or can be downloaded now."
            ) from error
        check_whole(self._pretrained, self._given, use_peft=config.use_peft)
        if not isinstance(config, GemVLAConfig):
            raise ValueError(f"{self._given} is a {config.type!r} policy: expected 'gem_vla', which acts.")
        if config.built.random_expert:
            raise ValueError(
                f"{self._given} was trained by tokens alone, and its expert, which would teach, has random weights: expected a policy whose "
                "expert was trained."
            )
        self._check_dimensions(config, student)
        self._check_statistics(config, dataset_meta)
        config.device, config.compile_model, config.quantization = student.device, False, None
        self._config = config
        self._policy: GemVLAPolicy | None = None

    def _check_dimensions(self, config: GemVLAConfig, student: GemVLAConfig) -> None:
        """Both read the same preprocessed batch, and give chunks of the same numbers."""
        differing = {
            name: (theirs, ours)
            for name, theirs, ours in (
                ("numbers of an action", config.built.action_dim, student.built.action_dim),
                ("chunk_size", config.chunk_size, student.chunk_size),
                ("numbers of the state", _state_dim(config), _state_dim(student)),
                ("normalization_mapping", _modes(config), _modes(student)),
                *(
                    (f"images: {name}", config.built.images.get(name), value)
                    for name, value in student.built.images.items()
                ),
            )
            if theirs != ours
        }
        if differing:
            listed = "; ".join(
                f"{name} {theirs} there, {ours} here" for name, (theirs, ours) in differing.items()
            )
            raise ValueError(
                f"{self._given} does not fit the student ({listed}): expected the same, since both read one batch and the student "
                "learns the teacher's numbers. Start the student from it (--policy.path), or take another teacher."
            )

    def _check_statistics(self, config: GemVLAConfig, dataset_meta: Any) -> None:
        """The teacher's normalised actions mean what the student's do."""
        check_processor_files(self._pretrained)
        _, postprocessor = make_pre_post_processors(config, pretrained_path=self._pretrained)
        [step] = [step for step in postprocessor.steps if isinstance(step, UnnormalizerProcessorStep)]
        theirs, ours = step.state_dict(), dataset_meta.stats or {}
        for key, mode in _modes(config).items():
            for name in READ.get(mode, ()):
                stored = theirs.get(f"{key}.{name}")
                if stored is None or name not in ours.get(key, {}):
                    continue
                value = torch.as_tensor(ours[key][name], dtype=torch.float64)
                if not torch.allclose(stored.double(), value, rtol=1e-3, atol=1e-5):
                    raise ValueError(
                        f"{self._given} was trained on data whose {key} has another {name!r} ({stored.tolist()}, here "
                        f"{value.tolist()}), so that its normalised numbers mean something else: expected the dataset that "
                        "it was trained on (--dataset.repo_id, --dataset.root)."
                    )

    def load(self, policy_class: "type[GemVLAPolicy]", device: torch.device) -> None:
        """Load it, once; apart from teaching, since loading draws from torch's generator.

        Args:
            policy_class: Loads it.
            device: Where it teaches.
        """
        if self._policy is None:
            self._policy = policy_class.from_pretrained(self._pretrained, config=self._config).to(device)

    def teach(self, batch: dict[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
        """Sample what the student shall give; it was loaded before.

        Args:
            batch: Preprocessed, of B observations.
            noise: (B, N, T, A), N draws for each.

        Returns:
            The teacher's chunks and the noise, under `TAUGHT` and `TAUGHT_FROM`.
        """
        assert self._policy is not None
        return {TAUGHT: self._policy.sample_chunks(batch, noise), TAUGHT_FROM: noise}


def _state_dim(config: GemVLAConfig) -> int | None:
    return None if config.state_feature is None else config.state_feature.shape[0]


def _modes(config: GemVLAConfig) -> dict[str, NormalizationMode]:
    modes = config.normalization_mapping
    read = {ACTION: "ACTION"} | ({} if config.state_feature is None else {OBS_STATE: "STATE"})
    return {key: modes.get(kind, NormalizationMode.IDENTITY) for key, kind in read.items()}
