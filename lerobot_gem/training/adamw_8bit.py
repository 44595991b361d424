"""torchao's AdamW with 8-bit moments (Dettmers et al. 2021, arXiv 2110.02861), in the form that LeRobot can save.

LeRobot keeps the state of an optimiser as safetensors, its groups and the scheduler as JSON. torchao's moments are a tensor
subclass and its learning rates are tensors, which fit neither. And its update is compiled, one weight's shape after the other:
right for a GPU, minutes and a compiler on a CPU, where the same operations run one by one.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torchao.optim import AdamW8bit
from torchao.optim.subclass_8bit import OptimState8bit

from lerobot_gem.training.draws import drawing_by

_CODES, _SCALE = "codes", "scale"


class SavableAdamW8bit(AdamW8bit):
    """torchao's AdamW8bit, whose state and groups are plain tensors and numbers.

    What can't be cut into blocks of 256 numbers has moments in float32, also where the weight is in bfloat16: there, torchao's
    second moment would be too, and never fall again, since a step changes it by a thousandth, and bfloat16 by 1/256 or not
    at all.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with a number as its learning rate."""
        rate = float(param_group.get("lr", self.defaults["lr"]))
        super().add_param_group(param_group)
        self.param_groups[-1]["lr"] = rate

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update. What is rounded stochastically is drawn by the number of updates alone.

        So a run that goes on from a checkpoint rounds as one that was not interrupted, and the processes of a run round alike: their
        weights, which only their gradients keep equal, would drift apart otherwise.
        """
        rates = [group["lr"] for group in self.param_groups]
        device = self.param_groups[0]["params"][0].device
        updates = max((int(moments["step"]) for moments in self.state.values()), default=0)
        try:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = torch.tensor(rate)
            with (
                drawing_by(seed=0, step=updates, rank=0, device=device),
                torch.compiler.set_stance("force_eager") if device.type == "cpu" else nullcontext(),
            ):
                return super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Its state: of a quantised moment, the codes and their scales."""
        saved = super().state_dict()
        state = {
            index: {name: _plain(value) for name, value in moments.items()}
            for index, moments in saved["state"].items()
        }
        return saved | {"state": state}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        # Without the state, which torch would convert to the type of the weights.
        super().load_state_dict(state_dict | {"state": {}})
        params = [param for group in self.param_groups for param in group["params"]]
        for index, saved in state_dict["state"].items():
            self.state[params[index]] = {
                name: torch.as_tensor(value).clone()
                if name == "step"
                else self._filled(params[index], value, signed=name == "exp_avg")
                for name, value in saved.items()
            }

    def _filled(self, param: Tensor, saved: Any, *, signed: bool) -> Tensor:
        moment: Any = self._new_buffer(param, signed)
        if isinstance(saved, dict):
            moment.codes.copy_(saved[_CODES])
            moment.scale.copy_(saved[_SCALE])
        else:
            moment.copy_(saved)
        return moment

    def _new_buffer(self, p: Tensor, signed: bool) -> Tensor:
        # Of a quantised moment, this changes the type that it says it has, and nothing else.
        return super()._new_buffer(p, signed).float()


def _plain(value: Any) -> Any:
    return {_CODES: value.codes, _SCALE: value.scale} if isinstance(value, OptimState8bit) else value
