"""Blocks of the pages, executed in their cheapest form: a frame, a step or an episode of the tiny preset.

The words are those of the page. `CHEAPEST` and a run's own options replace some of them. What a block reads was written by another block, and is put where
the page expects it. All commands run in this process: an import of LeRobot costs more than most of them.
"""

import importlib.metadata
import logging
import multiprocessing
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.page_commands import ROOT, Command, blocks, commands

pytestmark = [pytest.mark.slow, pytest.mark.libero, pytest.mark.usefixtures("quick_parsers")]

Key = tuple[str, str]  # a page, and what stands in one block of it alone

PRETRAIN = ("docs/how_to/pretrain.md", "gem_tiny_stage1.yaml")
QUESTIONS = ("docs/how_to/collect_questions.md", "--mode=scenes")
TOKENS = ("docs/how_to/train_with_tokens.md", "=outputs/train/tokens\n")
LORA = ("results/lora/README.md", "lerobot-train")
DEPTH_HELPS = ("docs/results/depth_helps.md", "depth_helps_report.py")
RECORDED = ("", "LIBERO's own demonstrations, which can't be downloaded in a test")

LAST = "checkpoints/last/pretrained_model"
DATA = (PRETRAIN, "data/tiny")
GEM = (PRETRAIN, f"outputs/train/gem_tiny_stage3/{LAST}")
GEM_VLA = (PRETRAIN, f"outputs/train/gem_vla_tiny_depth/{LAST}")
ADAPTER = (LORA, f"outputs/train/gem_vla_tiny/{LAST}")
# An adapter needs its base where it was trained from.
BASE = {f"outputs/demo/stage3/{LAST}": GEM}
EVALUATION = (PRETRAIN, "outputs/eval/gem_vla_tiny_depth")

# As little as each program can do.
CHEAPEST = {
    "lerobot-gem-libero-demos": ("--episodes_per_task=1", "--task_ids=[1]", "--fps=5", "--num_workers=1"),
    "lerobot-gem-so101-demos": ("--episodes=1",),
    "lerobot-gem-eval-vqa": ("--max_rows=2",),
    "lerobot-gem-depth-viz": ("--num_frames=1", "--policy.depth.num_inference_steps=1"),
    "lerobot-train": ("--steps=2", "--save_freq=2", "--log_freq=1", "--batch_size=2", "--num_workers=0"),
    "lerobot-eval": ("--env.episode_length=4", "--eval.n_episodes=1", "--eval.batch_size=1"),
    "benchmarks/acting.py": ("--preset=tiny", "--image_size=64", "--repeats=1"),
    "benchmarks/layers.py": ("--preset=tiny", "--repeats=1"),
    "benchmarks/training.py": ("--peak=ours",),
    "examples/acting_faster.py": ("--cells=steps_1", "--episodes=1"),
    "examples/action_experts.py": ("--arms=flow", "--steps=2", "--episodes=1"),
    "examples/depth_helps.py": ("--seeds=0", "--arms=c", "--demonstrations=100", "--changes"),
    "examples/train_tiny_autoencoder.py": ("--steps=2", "--batch_size=2"),
}
FEWER = {"--scenes_per_task": "4"}  # where a page has it
OF_TASK_9 = {
    "lerobot-eval": ("--env.task_ids=[9]", "--env.observation_height=128", "--env.observation_width=128")
}
TWO_EPISODES = {"lerobot-train": ("--dataset.episodes=[0,1]",)}


@dataclass(frozen=True)
class Run:
    """What a block needs to be executed.

    Attributes:
        inputs: Where the block expects something -> the block that wrote it, and where.
        options: Of a program, beside `CHEAPEST`.
    """

    inputs: dict[str, tuple[Key, str]] = field(default_factory=dict)
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


RUNS = {
    PRETRAIN: Run(),
    ("docs/how_to/pretrain.md", "lerobot-gem-depth-viz"): Run(
        {"data/tiny": DATA, f"outputs/train/gem_tiny_stage3/{LAST}": GEM}
    ),
    QUESTIONS: Run(),
    ("docs/how_to/collect_questions.md", "lerobot-train"): Run({"data/scenes": (QUESTIONS, "data/scenes")}),
    ("docs/how_to/collect_demonstrations.md", "--placement=wide"): Run(),
    ("docs/how_to/collect_demonstrations.md", "--source="): Run(
        {"LIBERO/libero/datasets/libero_goal": (RECORDED, "")},
        {
            "lerobot-gem-libero-demos": (
                "--suite=libero_object",
                "--task_ids=[0]",
                "--fps=20",
                "--image_size=64",
            )
        },
    ),
    TOKENS: Run({"data/tiny": DATA}),
    ("docs/how_to/train_with_tokens.md", "outputs/train/tokens_alone"): Run({"data/tiny": DATA}),
    ("docs/how_to/train_with_tokens.md", "outputs/train/co_training"): Run(
        {"data/tiny": DATA, "data/scenes": (QUESTIONS, "data/scenes")}
    ),
    ("docs/how_to/train_with_tokens.md", "lerobot-eval"): Run(
        {"<checkpoint>": (TOKENS, f"outputs/train/tokens/{LAST}")}, OF_TASK_9
    ),
    ("docs/how_to/act_faster.md", "quantization=int8"): Run(
        {f"outputs/vla/{LAST}": GEM_VLA},
        {"lerobot-eval": ("--env.task=libero_object", *OF_TASK_9["lerobot-eval"])},
    ),
    ("docs/how_to/convert_checkpoints.md", "--format=gem-2b"): Run(
        {
            f"outputs/train/gem_2b_stage3/{LAST}": GEM,
            f"outputs/train/gem_vla_2b_libero/{LAST}": ADAPTER,
            **BASE,
        }
    ),
    ("docs/how_to/evaluate.md", "--seed=1000"): Run({"outputs/policy": GEM_VLA}),
    ("docs/how_to/evaluate.md", "named_object=other"): Run({"outputs/policy": GEM_VLA}, OF_TASK_9),
    ("docs/how_to/evaluate.md", "libero_pro"): Run(
        {"outputs/policy": GEM_VLA},
        {"lerobot-eval": ("--env.task=libero_object_swap", *OF_TASK_9["lerobot-eval"])},
    ),
    ("docs/how_to/evaluate.md", "lerobot-gem-libero-report"): Run(
        {"outputs/eval_depth": EVALUATION, "outputs/eval_scratch": EVALUATION}
    ),
    ("docs/how_to/reproduce_libero.md", "lerobot-gem-libero-report"): Run(
        {"outputs/eval/libero_depth_1000": EVALUATION, "outputs/eval/libero_plain_1000": EVALUATION}
    ),
    ("docs/how_to/fine_tune_on_your_robot.md", "--format=acting"): Run(
        {f"outputs/train/cube/{LAST}": ADAPTER, **BASE}
    ),
    ("docs/how_to/train_with_lora.md", "--format=policy"): Run(
        {f"outputs/train/gem_vla_2b_libero/{LAST}": ADAPTER, **BASE}
    ),
    LORA: Run({"outputs/demo/data": DATA, **BASE}),
    ("docs/how_to/so100.md", "lerobot-gem-so101-demos"): Run(),
    ("results/so101/README.md", "lerobot-train"): Run(),
    # With the same output, the third command is the first.
    ("docs/results/acting.md", "benchmarks/acting.py"): Run(
        options={"benchmarks/acting.py": ("--output=2b.json",)}
    ),
    ("docs/results/acting.md", "benchmarks/layers.py"): Run(),
    ("docs/results/acting.md", "acting_faster.py"): Run(
        {"outputs/demo/data": DATA, f"outputs/demo/stage4/{LAST}": GEM_VLA}
    ),
    ("docs/results/action_experts.md", "action_experts.py"): Run(
        {
            f"outputs/depth_helps/plain/depth2400_s1/stage3/{LAST}": GEM,
            "outputs/depth_helps/plain/data/actions": DATA,
            "outputs/depth_helps/plain/data/held_out": DATA,
        },
        TWO_EPISODES,
    ),
    ("docs/results/collecting.md", "count_object"): Run(),
    DEPTH_HELPS: Run(
        {
            "outputs/depth_helps/plain/data/pretraining": DATA,
            "outputs/depth_helps/plain/data/actions": DATA,
            "outputs/depth_helps/plain/data/held_out": DATA,
            "outputs/depth_helps/plain/data/questions": (QUESTIONS, "data/scenes"),
        },
        TWO_EPISODES,
    ),
    ("docs/results/action_tokens.md", "tokens_of_16"): Run({"outputs/depth_helps/plain/data/actions": DATA}),
    ("docs/results/listening.md", "does_it_listen.py"): Run(
        {
            "outputs/listening/data": DATA,
            f"outputs/depth_helps/plain/depth2400_s1/stage3/{LAST}": GEM,
        },
        TWO_EPISODES,
    ),
    ("docs/results/training.md", "benchmarks/training.py"): Run(),
    ("lerobot_gem/models/tiny_autoencoder/README.md", "train_tiny_autoencoder.py"): Run(
        options={"lerobot-gem-libero-demos": ("--task_ids=[0]",)}
    ),
}


def commands_of(key: Key) -> Iterator[Command]:
    """The commands of a block."""
    [text] = [text for page, _, text in blocks() if page == key[0] and key[1] in text]
    return commands(key[0], text)


def forms_of(key: Key) -> Iterator[tuple[str, ...]]:
    """What is executed of a block."""
    return (cheapest_form(command.words, RUNS[key].options) for command in commands_of(key))


@contextmanager
def as_a_process(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """What a command finds in a new process, and what it changes for others, is undone."""
    from lerobot.configs import parser

    log, terminated = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = log.handlers[:], log.level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(parser, "_config_path_args", {})
        patch.setattr(parser, "_config_yaml_overrides", {})
        try:
            yield patch
        except SystemExit as ended:
            assert not ended.code, ended.code
        finally:
            log.handlers[:] = handlers
            log.setLevel(level)
            signal.signal(signal.SIGTERM, terminated)


def replaced(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The words of a command with options put in place of those of the same name."""
    names = tuple(f"{option.partition('=')[0]}=" for option in options)
    return [word for word in words if not word.startswith(names)] + list(options)


def cheapest_form(words: Sequence[str], options: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What is executed of a command of a page: a program or a file, and its arguments."""
    program, *arguments = words
    if program == "python":
        program, *arguments = arguments
    fewer = [f"{name}={FEWER[name]}" for name in FEWER if any(word.startswith(name) for word in arguments)]
    cheapest = [
        option
        for option in CHEAPEST.get(program, ())
        if not (option.startswith("--episodes_per_task") and "--mode=scenes" in arguments)
    ]
    for other in (fewer, cheapest, options.get(program, ())):
        arguments = replaced(arguments, other)
    return program, *arguments


def execute(folder: Path, form: Sequence[str], options: dict[str, tuple[str, ...]]) -> None:
    """Run a command in a folder; the options are for commands that it calls."""
    program = form[0]
    with as_a_process(folder) as patch:
        patch.setattr(sys, "argv", list(form))
        if program.endswith(".py"):
            execute_file(folder, program, options, patch)
        else:
            [script] = importlib.metadata.entry_points(group="console_scripts", name=program)
            script.load()()


def execute_file(
    folder: Path, file: str, options: dict[str, tuple[str, ...]], patch: pytest.MonkeyPatch
) -> None:
    """Run an example or a benchmark. Commands that it calls run in this process, too; other processes share one import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lerobot_gem.policies.gem_vla.modeling_gem_vla"])
    patch.setattr(multiprocessing, "get_context", lambda *_: context)
    for beside in ("examples", "benchmarks"):
        patch.syspath_prepend(folder / beside)
    before = set(sys.modules)
    runs = importlib.import_module("runs")

    def run(log: Path, *command: str | Path, append: bool = False) -> float:
        program, *arguments = map(str, command)
        if program == sys.executable:
            arguments[0] = str(Path(arguments[0]).relative_to(folder))
        words = ["python" if program == sys.executable else Path(program).name, *arguments]
        execute(folder, cheapest_form(words, options), options)
        return 0.0

    patch.setattr(runs, "run", run)
    try:
        runpy.run_path(str(folder / file), run_name="__main__")
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def record_demonstration(folder: Path) -> None:
    """A task's file as LIBERO has them."""
    from lerobot_gem.simulation.scene import LiberoScene
    from tests.data.libero_demos.recorded_source import FPS, record, write_source

    scene = LiberoScene("libero_object", 0, FPS, 64, 64)
    write_source(folder, scene, [record(scene, 0)])
    scene.close()


@pytest.fixture(scope="module")
def folder_of(libero: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Key], Path]]:
    """A function that executes a block, and gives the folder it was executed in; what is alike is executed once."""
    from lerobot_gem.data.libero_demos.attempts import open_scene

    done: dict[str, Path] = {}

    def executed(key: Key) -> Path:
        run = RUNS.get(key, Run())
        forms = {} if key == RECORDED else dict.fromkeys(forms_of(key))
        alike = repr((run, list(forms)))
        if alike in done:
            return done[alike]
        folder = tmp_path_factory.mktemp("clone")
        if key == RECORDED:
            record_demonstration(folder)
        else:
            for name in ("configs", "examples", "benchmarks"):
                (folder / name).symlink_to(ROOT / name)
            for place, (block, path) in run.inputs.items():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).symlink_to(executed(block) / path)
            for form in forms:
                execute(folder, form, run.options)
        done[alike] = folder
        return folder

    yield executed
    open_scene.close()


@pytest.mark.parametrize("key", RUNS, ids=": ".join)
def test_a_block_does_what_its_page_says(key: Key, folder_of: Callable[[Key], Path]):
    folder = folder_of(key)
    for command in commands_of(key):
        for word in command.words:
            name, _, value = word.partition("=")
            if name in ("--output", "--output_dir", "--output.root"):
                assert (folder / value).exists(), command
