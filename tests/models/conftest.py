"""Golden tensors of the official code, and how to compare with them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

# Argument of a test -> how the names of its fixtures begin.
GOLDENS = {
    "rdt": "rdt_",
    "gem_checkpoint": "gem_checkpoint_",
    "distill": "distill_",
    "depth": "depth_[!c]",
    "depth_colour": "depth_colour",
}
FOLDER = Path(os.environ.get("GEM_REFERENCE_FIXTURES", Path(__file__).parents[1] / "reference"))


@dataclass(frozen=True)
class Golden:
    """One fixture: its JSON description and its tensors."""

    spec: dict
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def load_weights(self) -> dict[str, Tensor]:
        """State dict in the release's names, gathered from all its files."""
        return {
            name: tensor
            for file in self.spec["weights_files"]
            for name, tensor in load_file(FOLDER / file).items()
        }

    def check(self, name: str, actual: Tensor, *, tolerance: str = "float") -> None:
        """Compare with tensor `name` and report the largest deviation (shown by `pytest -s`)."""
        expected = self[name]
        assert actual.shape == expected.shape, (
            f"{name}: {tuple(actual.shape)} instead of {tuple(expected.shape)}"
        )
        print(f"\n{self.spec['fixture']} {name}: max abs error {(actual - expected).abs().max():.2e}", end="")
        limits = self.spec["tolerance"][tolerance]
        torch.testing.assert_close(
            actual.detach(), expected, **limits, msg=lambda text: f"{name} of the reference: {text}"
        )


def load_goldens(kind: str) -> list:
    """All fixtures whose name begins with `kind`, as pytest parameters; none at all is an error."""
    goldens = []
    for file in sorted(FOLDER.glob(f"{kind}*.json")):
        spec = json.loads(file.read_text())
        if "io_file" in spec:
            goldens.append(
                pytest.param(Golden(spec, load_file(FOLDER / spec["io_file"])), id=spec["fixture"])
            )
    if not goldens:
        raise FileNotFoundError(f"No fixture {kind}*.json in {FOLDER} (GEM_REFERENCE_FIXTURES).")
    return goldens


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, kind in GOLDENS.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, load_goldens(kind), scope="session")


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    return FOLDER
