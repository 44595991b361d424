"""Options of the action expert, and of what teaches it."""

from dataclasses import dataclass, field, fields
from typing import Any, get_args

from lerobot_gem.models.presets import ExpertArchitecture, ExpertConditioning, TimeDistribution
from lerobot_gem.policies.base_options import MOST_STEPS
from lerobot_gem.policies.old_configurations import OldExpertFields
from lerobot_gem.validation import checked, require

# Far more than makes sense.
_MOST_DRAWS = 100
_DEEPEST_EXPERT = 1_000
_LARGEST_SNR = 100.0


@dataclass
class ExpertConfig(OldExpertFields):
    """The action expert (RDT).

    Attributes:
        pretrained: File or folder of a released RDT that training starts from. None starts from random weights.
        architecture: Sizes in place of the preset's, by name (`ExpertArchitecture` in models/presets.py): `'{"depth": 8}'`.
        conditioning: What each block reads of the backbone: "states" of a layer, which the expert projects (release), or the layer's own
            "key_values" (paper), for which the expert's heads must be as many and as large as the backbone's.
        conditioning_layers: Backbone state, or layer whose keys and values, that each block reads, one index per block; None is 0, 1,
            ..., depth - 1.
        use_state: Condition on `observation.state`.
        state_noise_snr: Signal-to-noise ratio in dB of Gaussian noise on the normalised state in training, whose numbers have a standard
            deviation of 1: 40 dB is noise of 0.01. None is no noise. The release asks for 40 dB, but its code adds none.
        time_distribution: Flow time in training: "logit_normal" (release), "uniform" (paper), or "beta", Beta(1, 1.5), which
            dwells on noise, where only the observation tells what to do (pi0, arXiv 2410.24164, appendix B).
        flow_samples: Draws of noise and time per observation in training; the backbone runs once for all of them. 1 in
            the release; CogACT (arXiv 2411.19650) draws 8.
        num_inference_steps: Euler steps from noise to actions.
        freeze: Freeze the expert. With `action_tokens.insulate` the flow then teaches nothing, and is not computed.
    """

    pretrained: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    conditioning: ExpertConditioning = "states"
    conditioning_layers: list[int] | None = None
    use_state: bool = True
    state_noise_snr: float | None = None
    time_distribution: TimeDistribution = "logit_normal"
    flow_samples: int = 1
    num_inference_steps: int = 5
    freeze: bool = False

    @checked
    def __post_init__(self) -> None:
        for name in self.architecture:
            require(name, tuple(size.name for size in fields(ExpertArchitecture)), "expert.architecture")
        depth = self.architecture.get("depth", 1)
        if type(depth) is not int or not 1 <= depth <= _DEEPEST_EXPERT:
            raise ValueError(
                f"expert.architecture={self.architecture}: expected a depth from 1 to {_DEEPEST_EXPERT} (14 in the release)."
            )
        require(self.conditioning, get_args(ExpertConditioning), "expert.conditioning")
        if self.state_noise_snr is not None and not abs(self.state_noise_snr) <= _LARGEST_SNR:
            raise ValueError(
                f"expert.state_noise_snr={self.state_noise_snr}: expected decibels from {-_LARGEST_SNR:g} to {_LARGEST_SNR:g} "
                "(the release asks for 40), or null for no noise."
            )
        require(self.time_distribution, get_args(TimeDistribution), "expert.time_distribution")
        if not 1 <= self.flow_samples <= _MOST_DRAWS:
            raise ValueError(
                f"expert.flow_samples={self.flow_samples}: expected 1 to {_MOST_DRAWS} (1 in the release)."
            )
        if any(layer < 0 for layer in self.conditioning_layers or []):
            raise ValueError(
                f"expert.conditioning_layers={self.conditioning_layers}: expected layers from 0 (the embeddings)."
            )
        if not 1 <= self.num_inference_steps <= MOST_STEPS:
            raise ValueError(
                f"expert.num_inference_steps={self.num_inference_steps}: expected 1 to {MOST_STEPS} (5 in the release)."
            )


@dataclass
class DistillationConfig:
    """One-step distillation (`models/distillation.py`).

    Attributes:
        teacher: Folder or Hub id of the `gem_vla` policy whose chunks are learned, in place of demonstrated actions. The student then
            takes one step (`expert.num_inference_steps`), whatever it was told. None learns the demonstrated actions. Not kept in a
            checkpoint, which acts without it.
    """

    teacher: str | None = None
