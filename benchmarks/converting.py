"""Memory that converting and loading checkpoints takes, against their size.

Makes a checkpoint of random bfloat16 weights in the format of the released GEM-2B (its widths, fewer layers, so that it
fits a small machine), and measures each job in a process of its own: the peak of resident memory, mapped pages of files
included, and how much of it was there once all libraries were imported. Converting holds one file of weights at a time; a
load holds what was loaded and no second copy.

    python benchmarks/converting.py --layers=4
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from resident_memory import resident_bytes  # beside this file
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.initialization import no_init_weights

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert, write_sana_configs
from lerobot_gem.checkpoints.files import StoredTensor, load_policy_weights, load_weights, write_weights
from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import DepthArchitecture, get_preset

LIMIT = 1.3
NOISE = os.urandom(2**20)
ONE_FILE = 1000.0


@dataclass(frozen=True)
class RandomTensor(StoredTensor):
    """A tensor to be written that is made when it is its turn."""

    def read(self) -> Tensor:
        repeated = bytearray(NOISE * (1 + self.num_bytes // len(NOISE)))
        return torch.frombuffer(repeated[: self.num_bytes], dtype=self.dtype).reshape(self.shape)


def architectures(layers: int) -> tuple[Qwen3VLConfig, DepthArchitecture]:
    """GEM-2B's, with fewer layers."""
    preset = get_preset("2b")
    values = preset.backbone
    text = values["text_config"] | {"num_hidden_layers": layers}
    vision = values["vision_config"] | {"depth": layers, "deepstack_visual_indexes": [0, 1, 2]}
    config = Qwen3VLConfig(**values | {"text_config": text, "vision_config": vision})
    return config, replace(preset.depth, transformer=preset.depth.transformer | {"num_layers": layers // 2})


def build(config: Qwen3VLConfig, depth: DepthArchitecture) -> nn.ModuleDict:
    """The parts of a `gem` policy, under its names."""
    width = config.get_text_config().hidden_size
    return nn.ModuleDict({"backbone": GemBackbone(config), "generator": DepthGenerator(depth, width)})


def write_checkpoints(folder: Path, layers: int) -> None:
    """`released` in GEM-2B's format (bfloat16), and `policy`, the weights of a policy of ours (float32)."""
    config, depth = architectures(layers)
    with torch.device("meta"):
        policy = build(config, depth).state_dict()
        plain = Qwen3VLForConditionalGeneration(config).state_dict()
    prefixes = {"transformer": "sana", "autoencoder": "vae", "connector": "diffusion_connector"}
    released = {name: weight.shape for name, weight in plain.items() if name != "lm_head.weight"}
    for name, weight in policy.items():
        owner, _, rest = name.partition(".")
        part, _, rest = rest.partition(".")
        if owner == "generator":
            released[f"{prefixes[part]}.{rest}"] = weight.shape
    ours = {name: weight.shape for name, weight in policy.items()}
    for name, shapes, dtype in (("released", released, torch.bfloat16), ("policy", ours, torch.float32)):
        (folder / name).mkdir()
        weights = {key: RandomTensor(Path(), key, tuple(shape), dtype) for key, shape in shapes.items()}
        write_weights(folder / name, weights, max_shard_bytes=int(ONE_FILE * 1e9))
    config.save_pretrained(folder / "released")
    write_sana_configs(folder / "released", depth)


def load_policy(folder: Path, layers: int) -> nn.Module:
    with no_init_weights():
        policy = build(*architectures(layers))
    load_policy_weights(policy, folder / "policy" / "model.safetensors")
    return policy


def load_released(folder: Path, dtype: torch.dtype) -> nn.Module:
    checkpoint = open_checkpoint(folder / "released")
    backbone = load_backbone(checkpoint, dtype=dtype)
    with no_init_weights():
        generator = DepthGenerator(checkpoint.depth_architecture, backbone.hidden_size).to(dtype)
    load_weights(generator, checkpoint.part("generator"), fault="The generator does not fit")
    return nn.ModuleList([backbone, generator])


def jobs(folder: Path, layers: int) -> dict[str, Callable[[], nn.Module | None]]:
    """What is measured; a load returns what it loaded."""

    def run(source: str, output: str, format: str, max_shard_gb: float) -> None:
        checkpoint = SourceCheckpoint(str(folder / source))
        convert(ConvertConfig(checkpoint, folder / output, format, max_shard_gb=max_shard_gb))

    return {
        "convert GEM-2B, one file, to shards": lambda: run("released", "shards", "gem-2b", 0.5),
        "convert its shards to one file": lambda: run("shards", "one", "gem-2b", ONE_FILE),
        "convert it to plain Qwen3-VL": lambda: run("released", "plain", "qwen3-vl", ONE_FILE),
        "load it, bfloat16": lambda: load_released(folder, torch.bfloat16),
        "load it, float32": lambda: load_released(folder, torch.float32),
        "load a policy, float32": lambda: load_policy(folder, layers),
    }


def measure(job: Callable[[], nn.Module | None]) -> dict[str, int]:
    """Resident memory before a job, its peak, and the size of what the job loaded, in bytes."""
    imported = resident_bytes()
    loaded = job()
    held = sum(weight.nbytes for weight in loaded.state_dict().values()) if loaded is not None else 0
    return {"imported": imported, "peak": resident_bytes(peak=True), "held": held}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=4, help="of decoder and vision tower; half for SANA")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(measure(jobs(arguments.folder, arguments.layers)[arguments.job])))
        return

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_checkpoints(folder, arguments.layers)
        released, policy = (
            (folder / name / "model.safetensors").stat().st_size for name in ("released", "policy")
        )
        print(f"GEM-2B format, bfloat16: {released / 1e9:.2f} GB; policy, float32: {policy / 1e9:.2f} GB")
        print(f"{'peak / size':>12}{'without imports':>17}{'peak GB':>9}{'size GB':>9}")
        for name in jobs(folder, arguments.layers):
            options = [f"--layers={arguments.layers}", f"--folder={folder}", f"--job={name}"]
            command = [sys.executable, __file__, *options]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result = json.loads(output.splitlines()[-1])
            size = result["held"] or released
            net = (result["peak"] - result["imported"]) / size
            verdict = f"  (not below {LIMIT})" if net >= LIMIT else ""
            print(
                f"{result['peak'] / size:>12.2f}{net:>17.2f}{result['peak'] / 1e9:>9.2f}{size / 1e9:>9.2f}"
                f"  {name}{verdict}",
                flush=True,
            )


if __name__ == "__main__":
    main()
