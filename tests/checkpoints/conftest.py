"""Checkpoints of every format, small; the golden tensors are those of tests/models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.conftest import pytest_generate_tests, reference_folder

__all__ = ["pytest_generate_tests", "reference_folder"]


@pytest.fixture
def gem_2b(gem_checkpoint, reference_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint in the released format, its depth generator described as `lerobot-gem-convert` does it."""
    folder = tmp_path / "gem_2b"
    shutil.copytree(reference_folder / gem_checkpoint.spec["checkpoint_dir"], folder)
    shutil.copytree(reference_folder / gem_checkpoint.spec["hub_standin"], folder, dirs_exist_ok=True)
    return folder


def edit_weights(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **values) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def contents(weights) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every tensor, in memory or on disk."""
    read = {name: w if isinstance(w, torch.Tensor) else w.read() for name, w in weights.items()}
    return {
        name: (w.dtype, tuple(w.shape), w.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, w in read.items()
    }
