"""Datasets that were broken by hand, one fault each, and what `lerobot-train` and `lerobot-gem-check` say of them.

    python -m tests.data.check.broken_datasets

prints them as the table of docs/results/checking.md.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from lerobot.scripts import lerobot_train  # noqa: E402
from PIL import Image  # noqa: E402

from lerobot_gem.scripts import check  # noqa: E402
from lerobot_gem.storage.language_columns import row  # noqa: E402
from tests.conftest import (  # noqa: E402
    CAMERAS,
    EPISODES,
    FRAMES,
    add_language_rows,
    write_dataset,
    write_video,
)
from tests.data.check.conftest import (  # noqa: E402
    data_file,
    edit_cell,
    edit_column,
    edit_feature,
    edit_json,
)

FRONT, WRIST = CAMERAS
DEPTH = f"{FRONT}_depth"
TOTAL = EPISODES * FRAMES

ACTION_POLICY = ("--policy.type=gem_vla", "--policy.chunk_size=4")
DEPTH_POLICY = ("--policy.type=gem", "--policy.stage=connector", "--policy.allow_untrained=true")
JOINT_POLICY = (
    "--policy.type=gem",
    "--policy.stage=joint",
    "--policy.allow_untrained=true",
    "--policy.depth.loss_weight=0",
)
# One step over all frames.
_TRAINING = (
    "--policy.preset=tiny",
    "--policy.device=cpu",
    "--policy.dtype=float32",
    "--dataset.video_backend=pyav",
    f"--batch_size={TOTAL}",
    "--steps=1",
    "--num_workers=0",
)


_LONGEST_CELL = 150


@dataclass(frozen=True)
class Break:
    """A fault, and who says what of it.

    Attributes:
        name: What is wrong, in words.
        spoil: Breaks the dataset in a folder.
        says: What both commands say (regular expression).
        policy: Options of the policy that is trained.
        options: Further options of the command.
        base: The dataset before: "plain", "depth" or "video".
        train_says: What `lerobot-train` says where it is not that: an error of LeRobot's or of a library.
    """

    name: str
    spoil: Callable[[Path], None]
    says: str
    policy: Sequence[str] = ACTION_POLICY
    options: Sequence[str] = ()
    base: str = "plain"
    train_says: str | None = None


def write_bases(folder: Path) -> dict[str, Path]:
    """The datasets before they are broken, by name."""
    plain = write_dataset(folder / "plain")
    depth = write_dataset(folder / "depth", depth=True)
    place = [row("user", "Where?", "vqa", FRONT), row("assistant", '{"point_2d": [500, 400]}', "vqa", FRONT)]
    add_language_rows(depth, [], {3: place})
    return {"plain": plain, "depth": depth, "video": write_dataset(folder / "video", storage="video")}


# -- faults --------------------------------------------------------------------------------------------------------------


def put(dimension: int, value: float) -> Callable[[list[float]], list[float]]:
    """A vector with another number."""
    return lambda cell: [*cell[:dimension], value, *cell[dimension + 1 :]]


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """A stored picture."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def remove(pattern: str) -> Callable[[Path], None]:
    """Delete files."""

    def spoil(root: Path) -> None:
        for file in root.glob(pattern):
            file.unlink()

    return spoil


def nothing(root: Path) -> None:
    """Leave the dataset as it is: the options are at fault."""


def turn_tasks_around(root: Path) -> None:
    file = root / "meta" / "tasks.parquet"
    pd.read_parquet(file).iloc[::-1].to_parquet(file)


def drop_column(column: str) -> Callable[[Path], None]:
    """A column that meta/info.json has and the data files lack."""

    def spoil(root: Path) -> None:
        pq.write_table(pq.read_table(data_file(root)).drop_columns([column]), data_file(root))

    return spoil


def encode_video(
    frames: int = TOTAL, size: tuple[int, int] = (64, 64), fps: int = 5
) -> Callable[[Path], None]:
    """Another video in the place of the front camera's."""

    def spoil(root: Path) -> None:
        [file] = (root / "videos" / FRONT).glob("*/*.mp4")
        write_video(file, frames=frames, size=size, fps=fps)

    return spoil


def cut_video(root: Path) -> None:
    [file] = (root / "videos" / FRONT).glob("*/*.mp4")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


_HUB = "Cannot reach https://huggingface.co"
_STACK = "stack expects each tensor to be equal size"
_MOVING = ("--dataset.image_transforms.enable=true",)

BREAKS = (
    Break(
        "NaN in an action",
        edit_cell("action", 12, put(1, np.nan)),
        r"action\[1\] is nan in frame 12 \(episode 1\)",
    ),
    Break(
        "an empty cell in the actions",
        edit_cell("action", 12, lambda _: None),
        r"has empty cells \(null\) in the column action",
    ),
    Break(
        "infinity in a state",
        edit_cell("observation.state", 17, put(2, np.inf)),
        r"observation.state\[2\] is inf in frame 17",
    ),
    Break(
        "NaN in statistics",
        edit_json("stats.json", lambda stats: stats["action"].update(max=[float("nan")] * 7)),
        r"statistic max\[0\] = nan",
    ),
    Break(
        "`index` from 100",
        edit_column("index", lambda cells: [cell + 100 for cell in cells]),
        "has index=100 in episode 0",
    ),
    Break(
        "unknown `task_index`",
        edit_cell("task_index", 29, lambda _: 7),
        "Row 29 of .* has task_index=7: expected 0 to 1",
    ),
    Break(
        "meta/tasks in another order", turn_tasks_around, "Row 0 of meta/tasks.parquet .* has task_index=1"
    ),
    Break(
        "wrong count in info.json",
        edit_json("info.json", lambda info: info.update(total_frames=99)),
        "says total_frames=99, but meta/episodes has 30",
    ),
    Break(
        "a data file is missing",
        remove("data/*/*.parquet"),
        r"lacks data/chunk-000/file-000.parquet \(episode 0\)",
        train_says=_HUB,
    ),
    Break(
        "a column is missing",
        drop_column("action"),
        "file-000.parquet .* has no column action: expected all features",
    ),
    Break(
        "statistics of a camera are missing",
        edit_json("stats.json", lambda stats: stats.pop(FRONT)),
        f"meta/stats.json has no entry for {FRONT}",
        train_says="KeyError",
    ),
    Break(
        "stats.json is missing",
        remove("meta/stats.json"),
        "meta/stats.json is missing",
        train_says="NoneType",
    ),
    Break(
        "`--dataset.eval_split=0.9`",
        nothing,
        "eval_split=0.9 leaves 0 training",
        options=("--dataset.eval_split=0.9",),
    ),
    Break(
        "`--dataset.episodes=[7]`",
        nothing,
        "expected some of 0 to 2",
        options=("--dataset.episodes=[7]",),
        train_says="corresponds to no data",
    ),
    Break(
        "another size in info.json",
        edit_feature(FRONT, shape=[48, 64, 3]),
        f"A picture of '{FRONT}' is 64 x 64 pixels, meta/info.json says 64 x 48",
    ),
    Break(
        "a picture of another size",
        edit_cell(FRONT, 17, lambda _: picture(size=(32, 32))),
        f"frame 17: A picture of '{FRONT}' is 32 x 32 pixels",
        train_says=_STACK,
    ),
    Break(
        "a picture with transparency",
        edit_cell(FRONT, 17, lambda _: picture("RGBA")),
        f"frame 17: A picture of '{FRONT}' has 4 channels",
        train_says=_STACK,
    ),
    Break(
        "a picture of 16 bits",
        edit_cell(FRONT, 17, lambda _: picture("I;16")),
        f"frame 17: A picture of '{FRONT}' has 1 channels",
        train_says=_STACK,
    ),
    Break(
        "a picture that can't be read",
        edit_cell(FRONT, 17, lambda cell: {"bytes": cell["bytes"][:100], "path": None}),
        "frame 17: image file is truncated",
        train_says="image file is truncated",
    ),
    Break(
        "axes without names",
        edit_feature(FRONT, names=None),
        'axes None .* Write "names"',
        train_says="'NoneType' object is not subscriptable",
    ),
    Break(
        "a camera that is not there",
        nothing,
        r"cameras.names has unknown entries \['observation.images.top'\]",
        options=("--policy.cameras.names=[observation.images.top]",),
    ),
    Break(
        "depth with three channels",
        edit_feature(DEPTH, shape=[64, 64, 3]),
        "has 3 channels: expected 1, distances",
        policy=DEPTH_POLICY,
        base="depth",
    ),
    Break(
        "depth of 8 bits",
        edit_column(DEPTH, lambda cells: [picture("L")] * len(cells)),
        "have one channel of 8 bits .* expected one channel of distances",
        policy=DEPTH_POLICY,
        base="depth",
    ),
    Break(
        "depth without unit",
        edit_feature(DEPTH, info={"is_depth_map": True}),
        "unit of .* is unknown",
        policy=DEPTH_POLICY,
        base="depth",
    ),
    Break(
        "transforms move pictures from depth",
        nothing,
        r"moves pixels \(affine\), but depth stays",
        policy=DEPTH_POLICY,
        options=_MOVING,
        base="depth",
    ),
    Break(
        "transforms move pictures from answers",
        nothing,
        r"moves pixels \(affine\), but what questions",
        policy=JOINT_POLICY,
        options=_MOVING,
        base="depth",
    ),
    Break(
        "a question without answer",
        edit_cell("language_events", 3, lambda rows: rows[:1]),
        r"1 vqa question\(s\) and 0 answer",
        policy=JOINT_POLICY,
        base="depth",
    ),
    Break(
        "a video is missing",
        remove(f"videos/{FRONT}/*/*.mp4"),
        f"lacks videos/{FRONT}",
        base="video",
        train_says=_HUB,
    ),
    Break(
        "a video of another size",
        encode_video(size=(96, 64)),
        "is a video of 96 x 64 pixels, meta/info.json says 64 x 64",
        base="video",
    ),
    Break(
        "a video of half of the frames",
        encode_video(frames=15),
        "is a video of 15 frames, meta/episodes places 30 frames in it",
        base="video",
    ),
    Break(
        "a video at another rate",
        encode_video(fps=10),
        "is a video of 10 frames per second, meta/info.json says fps=5",
        base="video",
    ),
    Break(
        "a video that is cut short",
        cut_video,
        "frame .*Invalid data found",
        base="video",
        train_says="Invalid data found",
    ),
)


# -- the commands --------------------------------------------------------------------------------------------------------


def run(main: Callable[[], None], name: str, root: Path, fault: Break, *more: str) -> tuple[int, str]:
    """Exit code of a command in this process, and what it says; of an error, what its last line would be."""
    arguments = [f"--dataset.repo_id=local/{root.name}", f"--dataset.root={root}", *_TRAINING, *fault.policy]
    written = io.StringIO()
    handlers = logging.getLogger().handlers[:]
    with (
        mock.patch.object(sys, "argv", [name, *arguments, *fault.options, *more]),
        contextlib.redirect_stdout(written),
        contextlib.redirect_stderr(written),
    ):
        try:
            main()
            code = 0
        except SystemExit as exit_:
            # Python itself prints a reason, and exits with 1.
            written.write(exit_.code if isinstance(exit_.code, str) else "")
            code = int(bool(exit_.code))
        except Exception as error:
            code = 1
            written = io.StringIO(f"{type(error).__name__}: {error}")
        finally:
            logging.getLogger().handlers[:] = handlers
    return code, written.getvalue()


def train(root: Path, fault: Break, output_dir: Path) -> str:
    """The error that `lerobot-train` ends with; empty without one."""
    code, text = run(lerobot_train.main, "lerobot-train", root, fault, f"--output_dir={output_dir}")
    return text if code else ""


def found_by_check(root: Path, fault: Break) -> tuple[int, list[str]]:
    """Exit code of `lerobot-gem-check`, and its errors."""
    code, text = run(check.main, "lerobot-gem-check", root, fault)
    _, _, listed = text.partition("Errors that training would raise\n")
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    lines += [line for line in listed.splitlines() if line.startswith("  - ")]
    return code, [re.sub("^(error: |  - )", "", line) for line in lines]


def broken(fault: Break, bases: dict[str, Path], folder: Path) -> Path:
    """A copy of its base with a fault."""
    root = shutil.copytree(bases[fault.base], folder / "broken")
    fault.spoil(root)
    return root


def _cell(text: str, root: Path) -> str:
    """The first sentence of an error, as a cell of a table."""
    text = re.sub(r"\s+", " ", text.replace(str(root), "<root>")).replace("|", "\\|")
    first = re.split(r"(?<=[^.])\. ", text)[0].rstrip(".")
    return first if len(first) <= _LONGEST_CELL else f"{first[:_LONGEST_CELL]} …"


def main() -> None:
    print("| fault | `lerobot-train` | `lerobot-gem-check` |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        bases = write_bases(Path(temporary))
        for number, fault in enumerate(BREAKS):
            folder = Path(temporary) / str(number)
            root = broken(fault, bases, folder)
            said = train(root, fault, folder / "run")
            _, found = found_by_check(root, fault)
            cells = [_cell(text, root) for text in (said, found[0])]
            cells[1] = "the same" if cells[0].endswith(cells[1]) else cells[1]
            print(f"| {fault.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
