"""What single layers cost on a CPU in the ways that this package chose between.

    OMP_NUM_THREADS=1 python benchmarks/layers.py --preset=2b --repeats=20

prints CPU milliseconds, the ways of each layer taking turns in one run: a linear layer of the decoder in bfloat16, in 8 bits
by torchao, and in 8 bits as `inference/quantization.py` calls oneDNN; and the embedding of the patches of two images of 256 px,
transformers' convolution and this package's product.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from options import at_least_one
from torch import Tensor, nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from transformers import Qwen3VLConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchEmbed

from lerobot_gem.inference.quantization import Int8Linear
from lerobot_gem.models.presets import get_preset
from lerobot_gem.models.vision_tower import PatchEmbedding

TOKENS, PATCHES = 190, 2 * 256


def linear_ways(config: Qwen3VLConfig) -> tuple[dict[str, Callable[[Tensor], Tensor]], Tensor]:
    """The first layer of the decoder's feed-forward part in each way, and what it reads (TOKENS, D)."""
    text = config.text_config
    layer = nn.Linear(text.hidden_size, text.intermediate_size, bias=False, dtype=torch.bfloat16)
    torchao = nn.Sequential(copy.deepcopy(layer))
    quantize_(torchao, Int8DynamicActivationInt8WeightConfig())
    read = torch.randn(TOKENS, text.hidden_size, dtype=torch.bfloat16)
    return {"bfloat16": layer, "8 bits, torchao": torchao, "8 bits, Int8Linear": Int8Linear(layer)}, read


def embedding_ways(config: Qwen3VLConfig) -> tuple[dict[str, Callable[[Tensor], Tensor]], Tensor]:
    """The embedding of patches in each way, and the patches (PATCHES, patch_dim)."""
    convolution = Qwen3VLVisionPatchEmbed(config.vision_config).to(torch.bfloat16)
    product = copy.deepcopy(convolution)
    product.__class__ = PatchEmbedding
    patch_dim = convolution.proj.weight[0].numel()
    return {"convolution": convolution, "product": product}, torch.randn(
        PATCHES, patch_dim, dtype=torch.bfloat16
    )


@torch.inference_mode()
def measure(name: str, ways: dict[str, Callable[[Tensor], Tensor]], read: Tensor, repeats: int) -> None:
    """Print what each way costs, as a share of the first, and how far its result is from the first's."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for way, layer in ways.items():
            start = time.process_time()
            layer(read)
            if repeat:  # the first call prepares
                spent[way].append(time.process_time() - start)
    first, expected = next(iter(ways)), next(iter(ways.values()))(read).float()
    whole = statistics.median(spent[first])
    for way, layer in ways.items():
        seconds = statistics.median(spent[way])
        error = (layer(read).float() - expected).norm() / expected.norm()
        print(
            f"{name} {tuple(read.shape)}, {way}: {1000 * seconds:.2f} CPU-ms, {seconds / whole:.2f} of {first}, "
            f"error {100 * error:.1f} % of the norm"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--preset", choices=("2b", "8b", "tiny"), default="2b")
    arguments.add_argument("--repeats", type=at_least_one, default=20)
    options = arguments.parse_args()
    torch.manual_seed(0)
    config = Qwen3VLConfig(**get_preset(options.preset).backbone)
    print(
        f"{options.preset}, {torch.get_num_threads()} thread(s), median of {options.repeats}, torch {torch.__version__}"
    )
    measure("linear layer", *linear_ways(config), options.repeats)
    measure("patch embedding", *embedding_ways(config), options.repeats)


if __name__ == "__main__":
    main()
