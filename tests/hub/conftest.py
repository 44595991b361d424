"""The real client against a Hub on loopback. It reads its address when it is imported, so each test runs processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub.local_hub import TOKEN, LocalHub

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TINY = ROOT / "configs" / "policy"

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def run(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that runs a command, or Python's code, with the local Hub: exit status and all that it said."""
    home = tmp_path_factory.mktemp("home")

    def run(*command: str | Path, code: str = "", token: str = TOKEN) -> tuple[int, str]:
        result = subprocess.run(
            [str(part) for part in command] or [sys.executable, "-c", code],
            env={
                **os.environ,
                **hub.environment(home, token),
                "PYTHONPATH": str(ROOT),
                "TOKENIZERS_PARALLELISM": "0",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
        )
        return result.returncode, result.stdout + result.stderr

    return run


@pytest.fixture(scope="module")
def train(run: Run, dataset_root: Path) -> Run:
    """A function that runs `lerobot-train` for one step on two frames."""

    def train(*options: str, data: Path = dataset_root, token: str = TOKEN) -> tuple[int, str]:
        common = (
            "--dataset.repo_id=local/noise",
            f"--dataset.root={data}",
            "--batch_size=2",
            "--num_workers=0",
        )
        steps = () if any("--steps" in option for option in options) else ("--steps=1", "--save_freq=1")
        return run(BIN / "lerobot-train", *common, *steps, *options, token=token)

    return train
