"""What pre-training on 4 M samples takes, as in the paper: steps, hours, memory, bytes and labelling, computed; and LeRobot's join, measured.

    python benchmarks/scaling.py > results/scaling.md

Sizes of models are counted on the meta device, operations of convolutions by torch's counter there; what a GPU, a network or a disk
does is assumed, in the constants below. Nothing was run on a GPU.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from memory import Parts, largest_unit  # beside this file
from torch.utils.flop_counter import FlopCounterMode
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from lerobot_gem.models.presets import get_preset
from lerobot_gem.training.stages import STAGES, part_of

SAMPLES, GPUS, NODE, BATCH = 4_000_000, 32, 8, 8
# A sample: one image of the longest side that depth pictures have, a conversation, JPEG and 16-bit depth as in docs/results/importing.md.
SIDE, TEXT_TOKENS, IMAGE_BYTES, DEPTH_BYTES = 448, 100, 61e3, 39e3
# Nvidia's figures for an A800 (bfloat16, float32), the share of them that training reaches, GB/s of the network for each GPU.
BFLOAT16, FLOAT32, REACHED, NETWORK = 312e12, 19.5e12, 0.35, 25e9
# Measured elsewhere: CPU ms to read a sample of `lerobot-gem-import` of 256 px (docs/results/reading_speed.md), records imported in a CPU-second
# (docs/results/importing.md).
READ_MS, IMPORTED = 3.97 + 0.28, 40.3
RECORDS_OF_A_PART = 500


def sizes(preset: str) -> tuple[dict[str, float], int]:
    """Parameters of each part, and bytes that FSDP gathers at a time."""
    with torch.device("meta"):
        parts = Parts(get_preset(preset), depth=True, language_head=True)
    found: dict[str, float] = {}
    for name, weight in parts.named_parameters():
        if not name.startswith("expert."):
            found[part_of(name)] = found.get(part_of(name), 0) + weight.numel()
    return found, largest_unit(parts)


def operations(model: torch.nn.Module, shape: tuple[int, ...]) -> float:
    """Operations of a forward pass on the meta device."""
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


def training(preset: str) -> dict[str, str]:
    """Stage 3, sharded within each node."""
    parts, gathered = sizes(preset)
    learned = sum(parts[name] for name in STAGES["joint"].trainable if name in parts)
    total = sum(parts.values())
    image_tokens = (SIDE // 32) ** 2
    backbone = get_preset(preset).backbone
    text = backbone["text_config"]
    # A head that is not tied leaves embeddings that are looked up, and multiply nothing.
    looked_up = 0 if backbone["tie_word_embeddings"] else text["vocab_size"] * text["hidden_size"]
    with torch.device("meta"):
        from diffusers import AutoencoderDC

        encoder = AutoencoderDC.from_config(get_preset(preset).depth.autoencoder).encoder
    work = {
        # Forward, backward and once more forward, for checkpointing: 8 operations for a weight and token.
        "language model": 8 * (parts["language_model"] - looked_up) * (image_tokens + TEXT_TOKENS),
        "vision tower": 2 * parts["vision_tower"] * 4 * image_tokens,
        "SANA": 6 * parts["transformer"] * image_tokens,
        "DC-AE": operations(encoder, (1, 3, SIDE, SIDE)),
    }
    of_sample = sum(work.values())
    step = BATCH * of_sample / (BFLOAT16 * REACHED)
    steps = SAMPLES // (BATCH * GPUS)
    # Ring all-reduce over the nodes of what each GPU holds of the gradients, in float32.
    reduced = 2 * 4 * learned / NODE
    everywhere = 3 * 2 * total  # FSDP over all: weights gathered twice, gradients scattered, in bfloat16
    read = BATCH * GPUS / step
    return {
        "parameters, and of them trained (10^9)": f"{total / 1e9:.2f}, {learned / 1e9:.2f}",
        "weights, gradients, AdamW on each of 8 GPUs of a node, float32, GB": f"{(4 * total + 12 * learned) / NODE / 1e9:.1f}",
        "gathered at a time, GB": f"{gathered / 1e9:.1f}",
        "10^12 operations for a sample": f"{of_sample / 1e12:.1f} ({', '.join(f'{name} {value / 1e12:.1f}' for name, value in work.items())})",
        "steps of 256": f"{steps}",
        "seconds of a step, computing": f"{step:.2f}",
        "seconds of a step, network, sharded in nodes": f"{reduced / NETWORK:.2f}",
        "seconds of a step, network, sharded over all": f"{everywhere / NETWORK:.2f}",
        "hours, computing alone": f"{steps * step / 3600:.1f}",
        "hours, network not hidden at all": f"{steps * (step + reduced / NETWORK) / 3600:.1f}",
        "samples read in a second": f"{read:.0f}",
        "MB read in a second, all nodes": f"{read * (IMAGE_BYTES + DEPTH_BYTES) / 1e6:.0f}",
        "CPU cores that read, for each GPU": f"{read / GPUS * READ_MS / 1e3 * (SIDE / 256) ** 2:.2f}",
    }


def data() -> dict[str, str]:
    """The dataset."""
    config = DepthAnythingConfig(backbone_config=Dinov2Config.from_dict(SMALL))
    with torch.device("meta"):
        model = DepthAnythingForDepthEstimation(config)
    labelling = operations(model, (1, 3, 518, 518))
    hours = SAMPLES * labelling / (FLOAT32 * REACHED) / 3600
    imported = SAMPLES / IMPORTED / 3600
    return {
        "bytes of the dataset, GB": f"{SAMPLES * (IMAGE_BYTES + DEPTH_BYTES) / 1e9:.0f}",
        "while it is imported, three times that, GB": f"{3 * SAMPLES * (IMAGE_BYTES + DEPTH_BYTES) / 1e9:.0f}",
        "10^9 operations to label an image with Depth Anything V2 Small": f"{labelling / 1e9:.0f}",
        "GPU-hours to label 4 M images, float32": f"{hours:.1f}",
        "CPU-hours to import": f"{imported:.0f}",
        "parts": f"{SAMPLES // RECORDS_OF_A_PART}",
    }


# depth-anything/Depth-Anything-V2-Small-hf
SMALL = {
    "hidden_size": 384,
    "num_attention_heads": 6,
    "num_hidden_layers": 12,
    "image_size": 518,
    "patch_size": 14,
    "reshape_hidden_states": False,
    "out_indices": [3, 6, 9, 12],
}


def joins(counts: tuple[int, ...]) -> dict[int, float]:
    """CPU seconds of LeRobot's join by number of parts of 5 episodes, whose images are so small that only parts count."""
    image = {"dtype": "image", "shape": (16, 16, 3), "names": ["height", "width", "channels"]}
    text = {"dtype": "string", "shape": (1,), "names": None}
    found = {}
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        features = {
            "observation.images.image": image,
            "observation.images.image_depth": image,
            "messages": text,
        }
        part = LeRobotDataset.create(
            "local/part", fps=1, features=features, root=place / "part", use_videos=False
        )
        for _ in range(5):
            for _ in range(2):
                pixels = np.zeros((16, 16, 3), np.uint8)
                cameras = dict.fromkeys(list(features)[:2], pixels)
                part.add_frame({**cameras, "messages": "[]", "task": "vqa"})
            part.save_episode()
        part.finalize()
        for count in counts:
            start = time.process_time()
            aggregate_datasets(
                ["local/part"] * count,
                "local/set",
                roots=[place / "part"] * count,
                aggr_root=place / str(count),
                concatenate_data=False,
            )
            found[count] = time.process_time() - start
    return found


def table(rows: dict[str, dict[str, str]]) -> list[str]:
    names = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(rows)} |", f"|---|{'---|' * len(rows)}"]
    return lines + [f"| {name} | {' | '.join(row[name] for row in rows.values())} |" for name in names]


def main() -> None:
    import datasets

    datasets.disable_progress_bars()
    print(f"# 4 M samples on {GPUS} A800\n\nStage 3, computed:\n")
    print("\n".join(table({preset: training(preset) for preset in ("2b", "8b")})))
    print("\nData, computed:\n")
    print("\n".join(table({"4 M samples": data()})))
    print("\nLeRobot's join, measured:\n")
    found = joins((25, 50, 100, 200))
    print("| parts | CPU s | CPU s for each |\n|---|---|---|")
    for count, seconds in found.items():
        print(f"| {count} | {seconds:.1f} | {seconds / count:.3f} |")
    print(f"\n{whole_join(found)}")


def whole_join(found: dict[int, float]) -> str:
    """The join of all parts: each part makes each that follows a little slower, since LeRobot rewrites the metadata of all."""
    slope, first = np.polyfit(list(found), [seconds / count for count, seconds in found.items()], 1)
    parts = SAMPLES // RECORDS_OF_A_PART
    hours = parts * (first + slope * parts) / 3600
    return f"{parts} parts, computed: {parts} x ({first:.3f} s + {parts} x {1000 * slope:.4f} ms) = {hours:.1f} h, and the bytes' own time"


if __name__ == "__main__":
    main()
