"""The optimiser that keeps its state in 8 bits, as LeRobot's configuration; `adamw_8bit.py` is the optimiser itself.

Apart from it, since torchao is no ordinary dependency: where it is installed, diffusers imports it, in every command.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from lerobot.optim.optimizers import AdamWConfig, OptimizerConfig, OptimizerParams
from torch.optim import Optimizer


def check_torchao() -> None:
    """Raise an ImportError if torchao is missing."""
    if find_spec("torchao") is None:
        raise ImportError(
            "optimizer_name='adamw_8bit' is torchao's, which is not installed: pip install '.[low-memory]' in a clone of "
            "the plugin's repository, or train with --policy.optimizer_name=adamw."
        )


@OptimizerConfig.register_subclass("gem_adamw_8bit")
@dataclass
class AdamW8bitConfig(AdamWConfig):
    """AdamW with 8-bit moments. Weights in bfloat16 are rounded stochastically, so that small updates are not lost.

    The fields are those of LeRobot's AdamW; two have another default.
    """

    weight_decay: float = 0.0
    grad_clip_norm: float = 1.0

    def build(self, params: OptimizerParams) -> Optimizer:
        """The optimiser.

        Raises:
            ImportError: torchao is not installed.
        """
        check_torchao()
        from lerobot_gem.training.adamw_8bit import SavableAdamW8bit

        return SavableAdamW8bit(
            params,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            bf16_stochastic_round=True,
        )
