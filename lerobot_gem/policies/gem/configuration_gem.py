"""Configuration of GEM's pre-training: stages 1 to 3."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from lerobot.configs import PreTrainedConfig

from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.old_configurations import OldPolicyFields
from lerobot_gem.training.stages import PRETRAINING, skipped_before
from lerobot_gem.validation import checked, require


@PreTrainedConfig.register_subclass("gem")
@dataclass
class GemConfig(OldPolicyFields, BaseGemConfig):
    """GEM: a backbone that learns geometry by generating depth. Defaults are the release's unless said otherwise.

    Attributes:
        stage: "connector", "generator" or "joint", in this order; docs/how_to/pretrain.md has what is trained, and from which losses. Go on
            with --policy.path=<last stage's checkpoint> --policy.stage=<next stage>.
        allow_untrained: Go on although stages were skipped (in the paper's ablation, joint training without the
            first two costs 1.4 to 5.4 points) or the generator of `2b` or `8b` has random weights.
        preset: Architecture by name: "tiny" (random weights, learns on two CPU cores), "2b" or "8b".
        backbone: The vision-language model.
        cameras: How cameras become images of the prompt.
        depth: The depth generator and what it learns from.
        dtype: Precision of training and generation alike: "float32", or "bfloat16" (autocast).
        weights: How the layers that are trained are stored: "float32", or "bfloat16" with `optimizer_name` "adamw_8bit", at less
            than half the memory (docs/reference/memory.md). Frozen layers are stored in `dtype`.
        micro_batch_size: Samples of a batch whose activations are in memory at a time, a divisor of the batch; gradients are
            those of the whole batch, at the price of a second pass forward. None is all of them.
        normalization_mapping: LeRobot's; images are not normalised by it.
        optimizer_name: "adamw"; "adamw_8bit", torchao's, whose state takes a quarter of the memory; or "muon", which learns from
            scratch with fewer samples (results/demo/README.md).
        optimizer_lr: Learning rate of connector and transformer, and of the backbone unless `optimizer_lr_backbone` is set.
        optimizer_lr_backbone: Learning rate of the backbone; None is `optimizer_lr`.
        optimizer_betas: AdamW's betas (torch's default; the release states none).
        optimizer_eps: AdamW's epsilon.
        optimizer_weight_decay: Weight decay.
        optimizer_grad_clip_norm: Largest norm of the gradient.
        scheduler_name: "cosine" (release), "constant_with_warmup" or "linear".
        scheduler_warmup_steps: Steps over which the learning rate rises to its value (release: 3 % of all).
        push_to_hub: Off, so that training needs no account; --policy.push_to_hub=true --policy.repo_id=user/name.
        built: What the policy was built with; not to be set.
    """

    stage: str = "connector"
    allow_untrained: bool = False
    scheduler_name: str = "cosine"

    @checked
    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.stage, PRETRAINING, "stage")
        if self.cameras.layout != "separate":
            raise ValueError(
                f"cameras.layout={self.cameras.layout!r}: pre-training needs 'separate', since each image has its own "
                "questions and its own depth map."
            )

    def __setattr__(self, name: str, value: Any) -> None:
        # draccus sets an old field of the policy itself when all else is done.
        if name == "stages_done" and value is not None:
            self.built.stages_done = value
        else:
            super().__setattr__(name, value)

    def validate_features(self) -> None:
        """Check and settle what the policy reads, once the dataset is known.

        Raises:
            ValueError: No camera, or an unknown one.
        """
        self.settle_cameras()
        self.input_features = {name: self.image_features[name] for name in self.camera_names}
        self.output_features = {}

    @property
    def current_stage(self) -> str:
        return self.stage

    @property
    def default_depth_loss_weight(self) -> float:
        """The paper's."""
        return 0.1

    def check_stages(self) -> None:
        """Raise a ValueError if stages before this one were skipped, unless that is acknowledged or there is no depth loss."""
        if "depth" not in self.loss_weights:
            return
        skipped = skipped_before(self.stage, self.built.stages_done)
        if skipped and not self.allow_untrained:
            raise ValueError(
                f"stage={self.stage!r} starts from weights that {' and '.join(map(repr, skipped))} did not train: "
                f"expected --policy.path=<checkpoint of stage {skipped[-1]}> --policy.stage={self.stage}, or released "
                "weights of GEM in --policy.backbone.pretrained. Skipping stages costs accuracy (arXiv 2605.28548, ablation); "
                "acknowledge it with --policy.allow_untrained=true."
            )

    def check_untrained(self, parts: Collection[str]) -> None:
        """Raise a ValueError for parts with random weights that no stage would train well.

        Args:
            parts: Those of connector, transformer and autoencoder whose weights are random.
        """
        if self.allow_untrained:
            return
        if "transformer" in parts and self.preset != "tiny":
            raise ValueError(
                f"preset={self.preset!r} needs a pretrained depth generator: expected "
                "--policy.depth.pretrained=<SANA pipeline or GEM checkpoint>. Acknowledge random weights with "
                "--policy.allow_untrained=true."
            )
