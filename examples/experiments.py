"""What experiments on one LIBERO task share: data, trainings and measurements, each a cell that is done once.

Every policy is trained on the same demonstrations and single frames, measured on the same held-out scenes, and evaluated on the same wide
layouts.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from depth_helps_measures import measure
from runs import (
    BIN,
    FPS,
    IMAGE_SIZE,
    SUITE,
    checkpoint,
    evaluate,
    run,
    run_steps,
    success,
    train,
    trained,
    write,
)

TASK_ID = 9
LOG_EVERY = 50
HELD_OUT_SCENES = 500
# Actions: demonstrations, and single frames with the scripted policy's action, without which tiny learns too little.
ALL_DEMONSTRATIONS, ACTION_SCENES = 100, 1500
ACTION_STEPS = 1000


@dataclass(frozen=True)
class Cell:
    """One thing that is done once.

    Attributes:
        name: Of the cell.
        result: The file that says that it is done.
        do: What makes it.
    """

    name: str
    result: Path
    do: Callable[[], None]


def do_cells(output: Path, cells: Iterable[Cell]) -> None:
    """Do the cells that are not done; cells of one name are one cell."""
    run_steps(output, {cell.name: (cell.result, cell.do) for cell in cells})


class Experiment:
    """Cells that have their folders in common.

    Args:
        name: In the names of its cells.
        output: Folder of what is made.
        results: Folder of what is measured.
        data: Folder of the datasets.
        scene: Options of the scenes that are collected, and of the environment.
        episodes: Layouts of an evaluation.
    """

    def __init__(
        self,
        name: str,
        *,
        output: Path,
        results: Path,
        data: Path,
        scene: tuple[str, ...] = (),
        episodes: int = 50,
    ) -> None:
        self.name = name
        self.output = output
        self.results = results
        self._data = data
        self._scene = scene
        self._episodes = episodes

    def data(self, name: str) -> Path:
        """Where a dataset is."""
        return self._data / name

    def collect(self, name: str, *arguments: str) -> Cell:
        """Collect a dataset with depth."""

        def do() -> None:
            run(
                self.output / "logs" / f"collect_{name}.log",
                BIN / "lerobot-gem-libero-demos",
                f"--suite={SUITE}",
                f"--fps={FPS}",
                f"--image_size={IMAGE_SIZE}",
                f"--output.repo_id=local/{name}",
                f"--output.root={self.data(name)}",
                "--resume=true",
                *(f"--{option}" for option in self._scene),
                *arguments,
            )

        return Cell(f"collect {self.name} {name}", self.data(name) / "meta" / "info.json", do)

    def action_data(self) -> Iterator[Cell]:
        """What actions are learned from, and what they are measured on."""
        yield self.collect(
            "actions",
            f"--task_ids=[{TASK_ID}]",
            f"--episodes_per_task={ALL_DEMONSTRATIONS}",
            f"--scenes_per_task={ACTION_SCENES}",
            "--seed=5",
        )
        yield self.held_out_data("held_out", "--mode=scenes")

    def held_out_data(self, name: str, mode: str) -> Cell:
        """Scenes that nothing is learned from; how they are drawn is an option of the collection."""
        return self.collect(
            name, mode, f"--task_ids=[{TASK_ID}]", f"--scenes_per_task={HELD_OUT_SCENES}", "--seed=99"
        )

    def action_episodes(self, demonstrations: int = ALL_DEMONSTRATIONS) -> str:
        """Option of training: the first demonstrations, and the same share of the single frames, which follow all demonstrations."""
        scenes = ACTION_SCENES * demonstrations // ALL_DEMONSTRATIONS
        episodes = [*range(demonstrations), *range(ALL_DEMONSTRATIONS, ALL_DEMONSTRATIONS + scenes)]
        return f"--dataset.episodes={episodes}"

    def training(self, name: str, config: str, data: str, steps: int, seed: int, *arguments: str) -> Cell:
        """Train with a file of configs/policy."""

        def do() -> None:
            train(
                self.output,
                name,
                config,
                f"--dataset.repo_id=local/{data}",
                f"--seed={1000 + seed}",
                *arguments,
                steps=steps,
                log_every=LOG_EVERY,
                data=self.data(data),
            )

        return Cell(f"train {self.name} {name}", trained(self.output, name), do)

    def result(self, name: str, measured: str) -> Path:
        """Where a measurement is kept."""
        return self.results / f"{name}.{measured}.json"

    def measuring(self, name: str, scenes: str = "held_out") -> Cell:
        """Errors on held-out scenes, those of a dataset."""

        def do() -> None:
            write(self.result(name, scenes), measure(checkpoint(self.output, name), self.data(scenes)))

        return Cell(f"measure {self.name} {name} {scenes}", self.result(name, scenes), do)

    def evaluation(self, name: str, condition: str, *changes: str) -> Cell:
        """Success in closed loop; the layouts are the same for every policy, and for every condition that `libero_wide` draws."""
        folder = f"{name}/eval_{condition}"
        options = [f"--env.{option}" for option in (*self._scene, *changes)]

        def do() -> None:
            evaluate(self.output, folder, name, TASK_ID, *options, episodes=self._episodes)
            [task] = json.loads((self.output / folder / "eval_info.json").read_text())["per_task"]
            found = success(self.output / folder) | {"solved": [int(s) for s in task["metrics"]["successes"]]}
            write(self.result(name, condition), found)

        return Cell(f"evaluate {self.name} {name} {condition}", self.result(name, condition), do)
