"""Does a model that learned to paint depth act better? Arms that differ in pre-training alone, cell by cell.

    python examples/depth_helps.py                                     # all of it: about seven hours of one core for each seed
    python examples/depth_helps.py --seeds 1 --arms a c --demonstrations 100

| arm | pre-training, before the same action training |
|---|---|
| a | none |
| b | stage 3 with language alone |
| c | stages 1 to 3 with depth (GEM), weighted like language; c01 weights it 0.1, as the paper does; c900 and c5000 have other numbers of steps |
| d | stages 1 to 3 with the same generator, taught to paint the picture itself (GEM's own control); d01 weights it 0.1 |
| e | as c, and depth is learned in stage 4 too |
| f | none, and the steps of pre-training are spent on actions too |
| g | as c, and as many steps of actions as f |

Finished cells are kept in outputs/depth_helps/, so that a second call goes on where the first one stopped; what each measured
goes to outputs/depth_helps/results/, a JSON file each (this repository keeps its own in results/depth_helps/).
depth_helps_report.py makes tables and a plot of what is there. On several cores: make data and
autoencoder first, with --arms and no arm behind it, then call it once for each core, with other arms.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import experiments
from experiments import ACTION_STEPS, ALL_DEMONSTRATIONS, TASK_ID, Cell, do_cells
from runs import BIN, ROOT, SUITE, checkpoint, run, write

OUTPUT = ROOT / "outputs" / "depth_helps"
RESULTS = OUTPUT / "results"
AUTOENCODER = OUTPUT / "autoencoder"

# Pre-training sees scenes of other tasks too, and questions about them; held-out scenes are of the task that is acted.
# With as many scenes of each task, those of the acted one were seen too rarely to help (results/depth_helps/README.md).
PRETRAINING_TASKS, SCENES_OF_EACH, SCENES_OF_OTHERS = (0, 3, 6, TASK_ID), 3000, 400
QUESTION_SCENES_OF_EACH, QUESTIONS = 250, 2000
DEMONSTRATIONS = (25, 50, ALL_DEMONSTRATIONS)
# Held-out scenes whose meshes are whole, as where the policies act: those of "held_out" are drawn with as few triangles as pre-training's,
# which arms a and f never saw.
HELD_OUT_FULL = "held_out_full"

CONNECTOR_STEPS, GENERATOR_STEPS = 60, 250


@dataclass(frozen=True)
class Pretraining:
    """What a backbone learned before it acts.

    Attributes:
        painted: What the generator paints, "depth" or "rgb"; None for language alone.
        steps: Of stage 3.
        weight: Of what is painted, beside language with 1.
    """

    painted: str | None
    steps: int = 2400
    weight: float = 1

    @property
    def name(self) -> str:
        """Of the folder of stage 3."""
        weight = "" if self.weight == Pretraining.weight else f"w{self.weight:g}".replace(".", "")
        return f"{self.painted or 'language'}{self.steps}{weight}"


@dataclass(frozen=True)
class Arm:
    """What differs between policies.

    Attributes:
        pretraining: Before actions; None for none.
        depth: Depth is learned beside actions too.
        more_steps: Of action training.
    """

    pretraining: Pretraining | None = None
    depth: bool = False
    more_steps: int = 0


ARMS = {
    "a": Arm(),
    "b": Arm(Pretraining(None)),
    "c": Arm(Pretraining("depth")),
    "d": Arm(Pretraining("rgb")),
    "e": Arm(Pretraining("depth"), depth=True),
    "f": Arm(more_steps=Pretraining("depth").steps),
    "g": Arm(Pretraining("depth"), more_steps=Pretraining("depth").steps),
    "c900": Arm(Pretraining("depth", 900)),
    "c5000": Arm(Pretraining("depth", 5000)),
    "c01": Arm(Pretraining("depth", weight=0.1)),
    "d01": Arm(Pretraining("rgb", weight=0.1)),
}


@dataclass(frozen=True)
class Setting:
    """Where all of it happens.

    Attributes:
        scene: Options of the scenes that are collected, and of the environment.
        policy: Options of every policy.
        changes: Name -> options of the environment, for other evaluations of the same policies.
    """

    scene: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    changes: dict[str, tuple[str, ...]] = field(default_factory=dict)


SETTINGS = {
    # LIBERO's camera and table, both cameras.
    "plain": Setting(
        changes={
            "camera_10": ("camera_turn=10",),
            "camera_20": ("camera_turn=20",),
            "table_4cm": ("table_height=0.04",),
            "distractors": ("distractors=3",),
            # LIBERO-PRO's own: the target 21 cm away, everything else where LIBERO has it.
            "displaced": ("type=libero_pro", f"task={SUITE}_temp_x0.3"),
        }
    ),
    # One fixed camera that stands elsewhere in each layout, over a table of another height: geometry must be read.
    "geometry": Setting(
        scene=("camera_turn=[-20,20]", "table_height=[0,0.06]"),
        policy=('--policy.cameras.names=["observation.images.image"]',),
    ),
}


def train_autoencoder() -> None:
    """One for arms c and d: the packaged one hardly knows the cameras' own pictures, which d paints."""
    run(
        OUTPUT / "logs" / "autoencoder.log",
        sys.executable,
        ROOT / "examples" / "train_tiny_autoencoder.py",
        "--rgb",
        f"--data={OUTPUT / 'plain' / 'data' / 'pretraining'}",
        f"--output_dir={AUTOENCODER}",
        "--batch_size=18",
    )


def pretraining_episodes() -> list[int]:
    """All scenes of the acted task and some of the others, in a dataset with as many of each."""
    return [
        number * SCENES_OF_EACH + scene
        for number, task in enumerate(PRETRAINING_TASKS)
        for scene in range(SCENES_OF_EACH if task == TASK_ID else SCENES_OF_OTHERS)
    ]


class Experiment(experiments.Experiment):
    """The cells of one setting.

    Args:
        setting: Its name.
    """

    def __init__(self, setting: str) -> None:
        self.setting = SETTINGS[setting]
        super().__init__(
            setting,
            output=OUTPUT / setting,
            results=RESULTS / setting,
            data=OUTPUT / setting / "data",
            scene=self.setting.scene,
        )

    def materials(self) -> Iterator[Cell]:
        """What is learned from, what is measured on, and the autoencoder of depth and of the control's pictures."""
        yield self.collect(
            "pretraining",
            "--mode=scenes",
            f"--task_ids={list(PRETRAINING_TASKS)}",
            f"--scenes_per_task={SCENES_OF_EACH}",
            "--qa.scene_interval=4",
            "--seed=0",
        )
        yield from self.action_data()
        yield self.held_out_data(HELD_OUT_FULL, "--episodes_per_task=0")
        yield self.collect(
            "questions",
            "--mode=scenes",
            f"--task_ids={list(PRETRAINING_TASKS)}",
            f"--scenes_per_task={QUESTION_SCENES_OF_EACH}",
            "--qa.scene_interval=1",
            "--seed=98",
        )
        yield Cell("train autoencoder", AUTOENCODER / "config.json", train_autoencoder)

    def pretraining(self, kind: Pretraining, seed: int) -> Iterator[Cell]:
        """Stages 1 to 3, or the third alone where no generator is trained."""
        folder, episodes = f"{kind.name}_s{seed}", f"--dataset.episodes={pretraining_episodes()}"
        folders = dict.fromkeys((1, 2), f"{kind.painted}_s{seed}") | {3: folder}

        def stage(number: int, steps: int, *arguments: str) -> Cell:
            return self.training(
                f"{folders[number]}/stage{number}",
                f"gem_tiny_stage{number}",
                "pretraining",
                steps,
                seed,
                episodes,
                *arguments,
            )

        def before(number: int) -> str:
            return f"--policy.path={checkpoint(self.output, f'{folders[number]}/stage{number}')}"

        if kind.painted is None:
            yield self.training(
                f"{folder}/stage3",
                "gem_tiny_stage1",  # the one file that starts from nothing
                "pretraining",
                kind.steps,
                seed,
                episodes,
                "--policy.stage=joint",
                "--policy.depth.loss_weight=0",
                "--policy.backbone.freeze_vision_tower=false",
                "--policy.scheduler_warmup_steps=20",
                *self.setting.policy,
            )
            yield self.asking(folder)
            return
        painter = f"--policy.depth.autoencoder={AUTOENCODER}", f"--policy.depth.target={kind.painted}"
        yield stage(1, CONNECTOR_STEPS, *painter, *self.setting.policy)
        yield stage(2, GENERATOR_STEPS, before(1))
        yield stage(3, kind.steps, before(2), f"--policy.depth.loss_weight={kind.weight}")
        yield self.asking(folder)

    def asking(self, folder: str) -> Cell:
        """Scores of a pre-trained model on questions about unseen scenes."""
        asked = self.output / folder / "questions"

        def do() -> None:
            shutil.rmtree(asked, ignore_errors=True)
            run(
                self.output / "logs" / folder / "questions.log",
                BIN / "lerobot-gem-eval-vqa",
                f"--policy.path={checkpoint(self.output, f'{folder}/stage3')}",
                "--dataset.repo_id=local/questions",
                f"--dataset.root={self.data('questions')}",
                f"--max_rows={QUESTIONS}",
                f"--output_dir={asked}",
            )
            scores = json.loads((asked / "scores.json").read_text())
            # Its configuration names folders of this machine.
            write(
                self.result(folder, "questions"), {"scores": scores["scores"], "versions": scores["versions"]}
            )

        return Cell(f"ask {self.name} {folder}", self.result(folder, "questions"), do)

    def policies(self, arm_name: str, demonstrations: int, seed: int) -> Iterator[Cell]:
        """Action training of an arm, and what is measured on it."""
        arm, name = ARMS[arm_name], f"{arm_name}_{demonstrations}_s{seed}"
        arguments = [self.action_episodes(demonstrations), *self.setting.policy]
        if arm.pretraining:
            yield from self.pretraining(arm.pretraining, seed)
            backbone = checkpoint(self.output, f"{arm.pretraining.name}_s{seed}/stage3")
            arguments.append(f"--policy.backbone.pretrained={backbone}")
        if arm.depth:
            arguments.append("--policy.depth.loss_weight=0.1")
        steps = ACTION_STEPS + arm.more_steps
        yield self.training(name, "gem_vla_tiny", "actions", steps, seed, *arguments)
        yield self.measuring(name)
        yield self.measuring(name, HELD_OUT_FULL)
        yield self.evaluation(name, "as_trained")

    def robustness(self, arm_name: str, seed: int, changes: list[str]) -> Iterator[Cell]:
        """Evaluations of the best trained policy where something changed."""
        for change, options in self.setting.changes.items():
            if change in changes:
                yield self.evaluation(f"{arm_name}_{max(DEMONSTRATIONS)}_s{seed}", change, *options)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--settings", choices=SETTINGS, nargs="+", default=["plain"])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--arms", choices=ARMS, nargs="*", default=list("abcdef"))
    arguments.add_argument(
        "--demonstrations", type=int, choices=DEMONSTRATIONS, nargs="+", default=list(DEMONSTRATIONS)
    )
    changes = [change for setting in SETTINGS.values() for change in setting.changes]
    arguments.add_argument("--changes", choices=changes, nargs="*", default=changes)
    options = arguments.parse_args()
    cells: list[Cell] = []
    for experiment in map(Experiment, options.settings):
        cells += experiment.materials()
        policies = [(arm, seed) for seed in options.seeds for arm in options.arms]
        for arm, seed in policies:
            for count in options.demonstrations:
                cells += experiment.policies(arm, count, seed)
        if max(DEMONSTRATIONS) in options.demonstrations:
            for arm, seed in policies:
                cells += experiment.robustness(arm, seed, options.changes)
    do_cells(OUTPUT, cells)  # arms share what they start from: it is there once


if __name__ == "__main__":
    main()
