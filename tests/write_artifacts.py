"""Writes what tests/artifacts/ keeps of a version: `python -m tests.write_artifacts FOLDER`, once, when the version is released.

A small dataset, a `gem_vla` on it, the same converted to act alone, an adapter of it, and what these compute today.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_policy, make_pre_post_processors
from safetensors.torch import save_file

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.models import presets
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.storage.language_columns import row
from tests.conftest import add_language_rows
from tests.policies.test_adapters import save_adapter

CAMERA = "observation.images.front"
CHUNK = 4
EXPERT = {"hidden_size": 16, "depth": 2, "num_heads": 2, "num_kv_heads": 1, "multiple_of": 8}


def small_preset() -> presets.Preset:
    """The preset `tiny` with every size of its backbone made smaller."""
    tiny = presets.PRESETS["tiny"]
    text, vision = tiny.backbone["text_config"], tiny.backbone["vision_config"]
    rope = text["rope_parameters"] | {"mrope_section": [2, 1, 1]}
    text = text | {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text |= {"num_key_value_heads": 1, "head_dim": 8, "rope_parameters": rope}
    vision = vision | {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
    }
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    backbone = tiny.backbone | {"text_config": text, "vision_config": vision}
    return replace(tiny, backbone=backbone, min_pixels=32 * 32, max_pixels=64 * 64)


def write_dataset(root: Path) -> Path:
    """Two episodes of three frames: a camera, its depth in millimetres, state, action, and a question."""
    names = ["height", "width", "channels"]
    depth = {"dtype": "image", "shape": (32, 32, 1), "names": names, "info": {"is_depth_map": True}}
    dataset = LeRobotDataset.create(
        "local/artifact",
        fps=5,
        root=root,
        use_videos=False,
        features={
            CAMERA: {"dtype": "image", "shape": (32, 32, 3), "names": names},
            f"{CAMERA}_depth": depth,
            "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
            "action": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        },
    )
    for episode in range(2):
        for frame in range(3):
            values = np.array([episode, frame, episode - frame], np.float32) / 2
            dataset.add_frame(
                {
                    CAMERA: np.full((32, 32, 3), 60 * frame + 30 * episode, np.uint8),
                    f"{CAMERA}_depth": np.full((32, 32, 1), 500 + 100 * frame, np.uint16),
                    "observation.state": values,
                    "action": values[::-1].copy(),
                    "task": ("lift the cube", "put it down")[episode],
                }
            )
        dataset.save_episode()
    dataset.finalize()
    exchange = [row("user", "Where is it?", "vqa", CAMERA), row("assistant", "There.", "vqa", CAMERA)]
    return add_language_rows(root, [row("assistant", "reach", "subtask", timestamp=0.0)], {1: exchange})


def frames(root: Path) -> dict[str, Any]:
    """A raw batch of the first three frames, with chunks of actions."""
    from lerobot.utils.collate import lerobot_collate_fn

    delta = {"action": [step / 5 for step in range(CHUNK)]}
    dataset = LeRobotDataset("local/artifact", root=root, delta_timestamps=delta)
    return lerobot_collate_fn([dataset[index] for index in range(3)])


def main() -> None:
    folder = Path(sys.argv[1])
    root = write_dataset(folder / "dataset")
    presets.PRESETS["tiny"] = small_preset()
    torch.manual_seed(0)
    config = GemVLAConfig(
        preset="tiny",
        device="cpu",
        dtype="float32",
        chunk_size=CHUNK,
        n_action_steps=2,
        expert=ExpertConfig(architecture=EXPERT),
    )
    policy = make_policy(config, ds_meta=(meta := LeRobotDatasetMetadata("local/artifact", root=root)))
    preprocess, postprocess = make_pre_post_processors(config, dataset_stats=meta.stats)
    with torch.no_grad():  # an expert of which every part is heard
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    whole = folder / "gem_vla"
    for part in (policy, preprocess, postprocess):
        part.save_pretrained(whole)
    convert(ConvertConfig(SourceCheckpoint(whole), folder / "acting", format="acting"))
    batch = preprocess(frames(root))
    given = {"noise": torch.randn(3, CHUNK, 3), "time": torch.tensor([0.2, 0.5, 0.8])}
    policy.train()
    loss = policy.forward(batch, **given)[1]["action_loss"]
    policy.eval()
    expected = {"chunk": postprocess(policy.predict_action_chunk(batch, noise=given["noise"]))}
    adapted_config = PreTrainedConfig.from_pretrained(whole)
    adapted_config.pretrained_path = whole
    adapted = make_policy(adapted_config, ds_meta=meta)
    adapted = adapted.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 1})
    save_adapter(folder / "adapter", adapted, preprocess, postprocess)
    (folder / "adapter" / "README.md").unlink()
    for name in ("adapter_config.json", "config.json"):  # a place that every reader knows
        file = folder / "adapter" / name
        file.write_text(file.read_text().replace(str(whole), "gem_vla"))
    expected["adapted_chunk"] = postprocess(adapted.predict_action_chunk(batch, noise=given["noise"]))
    save_file(
        {**given, **expected, "action_loss": torch.tensor(loss)}, folder / "gem_vla.expected.safetensors"
    )


if __name__ == "__main__":
    main()
