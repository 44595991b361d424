"""Acting in 8 bits on a CPU: what the linear layers of vision tower and decoder read and weigh is int8.

Weights are quantised once, each row with a scale of its own; what a layer reads is quantised when it comes, with one scale. The
products are oneDNN's, the fastest of torch's kernels where it was measured (docs/how_to/act_faster.md). They are called directly: torch's own
conversion of modules is deprecated, and torchao's takes longer on CPUs than bfloat16, unless it is compiled.
"""

import platform
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_ENGINE = "onednn"


class Int8Linear(nn.Module):
    """A linear layer that computes in 8 bits; gives what it is given, in the same type.

    Args:
        layer: Whose weights it takes over.

    Raises:
        ValueError: They are not finite.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        largest = weight.abs().amax(dim=1)
        if not bool(largest.isfinite().all()):
            raise ValueError("weights that hold NaN or infinity can't be quantised: expected finite numbers.")
        scales = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(weight), dtype=torch.long)
        bias = None if layer.bias is None else layer.bias.detach().float()
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = _ENGINE
        try:
            quantised = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
            self._packed = torch.ops.quantized.linear_prepack(quantised, bias)
        finally:
            torch.backends.quantized.engine = before
        # Without these instructions sums of products overflow, unless what is read has seven bits.
        self._seven_bits = not torch.cpu.get_capabilities().get("avx512_vnni", False)

    def forward(self, read: Tensor) -> Tensor:
        given = torch.ops.quantized.linear_dynamic(read.float(), self._packed, self._seven_bits)
        return given.to(read.dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def check_quantizable(device: str, *, adapted: bool) -> None:
    """Raise a ValueError if a policy can't act in 8 bits.

    Args:
        device: That it acts on.
        adapted: Whether it is an adapter on another policy.
    """
    if torch.device(device).type != "cpu":
        raise ValueError(
            f"quantization='int8' on device={device!r}: expected --policy.device=cpu, whose kernels these are, or no quantization."
        )
    if adapted:
        raise ValueError(
            "quantization='int8' with an adapter, whose layers can't be quantised apart from those that it adapts: expected a whole "
            "policy. Merge it (lerobot-gem-convert --format=policy)."
        )
    if _ENGINE not in torch.backends.quantized.supported_engines:
        raise ValueError(
            f"quantization='int8' on this processor ({platform.machine()}), for which torch {torch.__version__} has no oneDNN kernels "
            f"({torch.backends.quantized.supported_engines}): expected an x86-64 processor, or no quantization."
        )


def quantize(parts: Iterable[nn.Module]) -> None:
    """Replace the linear layers in modules, one at a time.

    Args:
        parts: On the CPU.

    Raises:
        ValueError: There are none, or some can't be quantised; the message names the layer.
    """
    count = 0
    for part in parts:
        for name, layer in list(part.named_modules()):
            if not isinstance(layer, nn.Linear):
                continue
            try:
                made = Int8Linear(layer)
            except ValueError as error:
                raise ValueError(f"quantization='int8': {name}: {error}") from error
            part.set_submodule(name, made)
            count += 1
    if count == 0:
        raise ValueError("quantization='int8': expected linear layers, and found none to quantise.")
