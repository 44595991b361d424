"""Faults that are injected on purpose, and what becomes of them: `python -m tests.faults` writes results/faults.md.

Most are injected here, or by the commands of `tests/data/check/broken_datasets.py`, and the outcome is what was said. Where a test of
the slow suite injects one already, that test is run, and the outcome is what it demands. `python -m tests.faults AREA ...` does some
areas again, and with `--quick` only what needs no process of its own, as `tests/test_faults.py` does.
"""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lerobot_gem.data.gem_jsonl.importing import ImportGemConfig, import_gem
from lerobot_gem.data.gem_jsonl.records import RecordError
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.storage.output_folder import OutputDataset
from tests.data.check.broken_datasets import BREAKS, Break, broken, found_by_check, train, write_bases
from tests.data.conftest import GemFolder
from tests.data.gem_jsonl.test_clips import write_clip
from tests.storage.test_images import bomb

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "results" / "faults.md"
BIN = Path(sys.executable).parent
CHECKPOINT = ROOT / "tests" / "artifacts" / "0.1.0" / "gem_vla"

_LONGEST_CELL = 220


class NoOutcomeError(AssertionError):
    """A fault had no outcome that can be accepted: nothing was said of it, or harm was done."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: What is wrong.
        area: Where.
        inject: Injects it in an empty folder; returns the outcome in words.
        is_quick: Needs no process of its own.
    """

    name: str
    area: str
    inject: Callable[[Path], str]
    is_quick: bool = True


@dataclass(frozen=True)
class TestedFault:
    """A kind of fault that a test injects.

    Attributes:
        name: What is wrong.
        area: Where.
        outcome: What the test demands.
        test: Its node id.
    """

    name: str
    area: str
    outcome: str
    test: str


def said_by(action: Callable[[], object]) -> str:
    """What an error says that an action must end with."""
    try:
        action()
    except RecordError as error:
        return f"{error.reason}: {error.detail}"
    except (ValueError, OSError) as error:
        return str(error)
    raise NoOutcomeError("nothing was said")


# -- checkpoints ---------------------------------------------------------------------------------------------------------


def load_with(edit: Callable[[Path], object], folder: Path) -> str:
    """Load a policy whose files were edited."""
    path = Path(shutil.copytree(CHECKPOINT, folder / "policy"))
    edit(path)
    said = said_by(lambda: GemVLAPolicy.from_pretrained(path))
    if (folder / "ran").exists():
        raise NoOutcomeError("code of the checkpoint ran")
    return said


def edit_json(name: str, edit: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        value = json.loads((path / name).read_text())
        edit(value)
        (path / name).write_text(json.dumps(value))

    return apply


def cut(name: str, share: float = 0.6) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        os.truncate(path / name, int((path / name).stat().st_size * share))

    return apply


def drop_weight(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    del weights[sorted(weights)[0]]
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def turn_bit_of_header(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[3000] ^= 64
    (path / "model.safetensors").write_bytes(data)


def pickle_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")


def acting_with(edit: Callable[[dict, GemVLAPolicy], None], _folder: Path) -> str:
    """Predict a chunk of actions after something happened to sensors or weights."""
    from tests.test_artifacts import frames, load

    policy, preprocess, _ = load(CHECKPOINT, loss_weight=0.0)
    observation = {key: value for key, value in frames("0.1.0").items() if key != "action"}

    def act() -> None:
        edit(observation, policy)
        policy.predict_action_chunk(preprocess(observation))

    return said_by(act)


def nan_state(observation: dict, _: GemVLAPolicy) -> None:
    observation["observation.state"][1, 2] = float("nan")


def no_camera(observation: dict, _: GemVLAPolicy) -> None:
    del observation[
        next(key for key in observation if key.startswith("observation.images") and "depth" not in key)
    ]


def no_task(observation: dict, _: GemVLAPolicy) -> None:
    del observation["task"]


def short_state(observation: dict, _: GemVLAPolicy) -> None:
    observation["observation.state"] = observation["observation.state"][:, :3]


def nan_weight(_: dict, policy: GemVLAPolicy) -> None:
    next(policy.expert.parameters()).data.view(-1)[0] = float("nan")


# -- datasets and records ------------------------------------------------------------------------------------------------


@cache
def bases() -> tuple[tempfile.TemporaryDirectory, dict[str, Path]]:
    folder = tempfile.TemporaryDirectory()
    return folder, write_bases(Path(folder.name))


def training_on(fault: Break, folder: Path) -> str:
    """What `lerobot-train` ends with on a dataset with a fault; where that is LeRobot's error, also what our check says of it."""
    root = broken(fault, bases()[1], folder)
    said = train(root, fault, folder / "run")
    if not re.search(fault.train_says or fault.says, said):
        raise NoOutcomeError(said or "nothing was said")
    if not fault.train_says:
        return said
    _, found = found_by_check(root, fault)
    if not re.search(fault.says, found[0] if found else ""):
        raise NoOutcomeError("lerobot-gem-check says nothing of it")
    return f"LeRobot's {said.partition(':')[0]}; `lerobot-gem-check`: {found[0]}"


def importing(add: Callable[[GemFolder], object], folder: Path) -> str:
    """Import a folder with one good record and one that is not."""
    gem = GemFolder(folder / "gem")
    gem.root.mkdir()
    gem.add(gem.image("good.jpg"))
    add(gem)
    gem.write()
    report = import_gem(ImportGemConfig(gem.root, OutputDataset(folder / "set")))
    if report.imported != 1 or report.skipped.total() != 1:
        raise NoOutcomeError(f"imported {report.imported}, skipped {dict(report.skipped)}")
    return f"skipped and counted: {next(iter(report.skipped))}"


def add_private(gem: GemFolder) -> None:
    gem.add(gem.image("../private.png"))


def add_link(gem: GemFolder) -> None:
    private = gem.root / gem.image("../private.png")
    (gem.root / "link.png").symlink_to(private.resolve())
    gem.add("link.png")


def add_bomb(gem: GemFolder) -> None:
    (gem.root / "bomb.png").write_bytes(bomb(13_000))
    gem.add("bomb.png")


def add_cut_picture(gem: GemFolder) -> None:
    path = gem.root / gem.image("cut.jpg", seed=1)
    os.truncate(path, path.stat().st_size - 300)
    gem.add("cut.jpg")


def add_postscript(gem: GemFolder) -> None:
    Image.new("RGB", (64, 48)).save(gem.root / "program.jpg", "EPS")
    gem.add("program.jpg")


def cut_array(folder: Path) -> str:
    (folder / "llava.json").write_text('[{"id": 1}, {"id": ')
    return said_by(lambda: import_gem(ImportGemConfig(folder / "llava.json", OutputDataset(folder / "set"))))


def playlist(folder: Path) -> str:
    from lerobot_gem.data.gem_jsonl.clips import clip_size

    write_clip(folder / "private.mp4", 3)
    (folder / "clip.mp4").write_text("ffconcat version 1.0\nfile 'private.mp4'\n")
    return said_by(lambda: clip_size(folder / "clip.mp4"))


# -- processes that die --------------------------------------------------------------------------------------------------


def _train_command(folder: Path, *options: str) -> list[str]:
    return [
        *(
            "--dataset.repo_id=local/noise",
            f"--dataset.root={bases()[1]['plain']}",
            f"--output_dir={folder / 'run'}",
        ),
        *("--policy.type=gem_vla", "--policy.preset=tiny", "--policy.device=cpu", "--policy.dtype=float32"),
        *("--policy.chunk_size=4", "--batch_size=2", "--num_workers=0", "--env_eval_freq=0", "--log_freq=1"),
        *options,
    ]


def _loads(folder: Path) -> str:
    """The step of the last checkpoint, which must load."""
    last = folder / "run" / "checkpoints" / "last"
    if not last.exists():
        raise NoOutcomeError("there is no last checkpoint")
    GemVLAPolicy.from_pretrained(last / "pretrained_model")
    return last.resolve().name.lstrip("0")


def killed_rank(folder: Path) -> str:
    """One of two processes that train together is killed after the first checkpoint."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29591"]
    process = subprocess.Popen(
        [*command, str(BIN / "lerobot-train"), *_train_command(folder, "--steps=1000", "--save_freq=2")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 400
        while not (folder / "run" / "checkpoints" / "last").exists():
            if process.poll() is not None or time.monotonic() > until:
                raise NoOutcomeError(
                    "no checkpoint came: " + (process.stdout.read() if process.stdout else "")[-500:]
                )
            time.sleep(0.05)
        os.kill(_children(process.pid)[-1], signal.SIGKILL)
        said = process.communicate(timeout=200)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0 or "SIGKILL" not in said:
        raise NoOutcomeError(f"exit code {process.returncode}: {said[-500:]}")
    return f"torchrun ends the other and itself with exit code {process.returncode} (Signal 9, SIGKILL); checkpoint {_loads(folder)} loads"


def _children(pid: int) -> list[int]:
    found = []
    for task in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((task / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.append(int(task.name))
    return sorted(found)


def full_disk_at_checkpoint(folder: Path) -> str:
    """The second checkpoint finds no room: no file may grow beyond what the first one's parts need."""
    options = ("--steps=1", "--save_freq=1")
    first = subprocess.run(
        [BIN / "lerobot-train", *_train_command(folder, *options)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if first.returncode:
        raise NoOutcomeError(first.stderr[-500:])
    config = folder / "run" / "checkpoints" / "last" / "pretrained_model" / "train_config.json"
    resumed = f"ulimit -f 200; exec {BIN}/lerobot-train --config_path={config} --resume=true --steps=2"
    second = subprocess.run(["bash", "-c", resumed], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if second.returncode == 0:
        raise NoOutcomeError("the run went on")
    errors = [line for line in second.stderr.splitlines() if re.match(r"\S*error\b", line, re.IGNORECASE)]
    if not errors:
        raise NoOutcomeError("nothing says why")
    return f"exit code {second.returncode}, {errors[-1]}; `last` is still checkpoint {_loads(folder)}, which loads"


def killed_server(folder: Path) -> str:
    """The policy server is killed while LeRobot's unmodified client moves an emulated arm."""
    from tests.robots.conftest import (
        FPS,
        PLUGIN,
        TASK,
        options_of_arm,
        save_policy,
        write_arm_dataset,
        write_calibration,
    )
    from tests.robots.feetech_bus import FeetechBus
    from tests.robots.test_policy_server import CHUNK, Server

    options = options_of_arm(write_calibration(folder))
    policy = save_policy(write_arm_dataset(folder / "data"), folder / "policy")
    with FeetechBus() as bus, Server(folder) as server:
        client = subprocess.Popen(
            [
                *(sys.executable, "-m", "lerobot.async_inference.robot_client", *options(bus.port)),
                f"--server_address=127.0.0.1:{server.port}",
                f"--pretrained_name_or_path={policy}",
                *("--policy_type=gem_vla", f"--actions_per_chunk={CHUNK}", f"--fps={FPS}", f"--task={TASK}"),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PLUGIN), *sys.path])},
        )  # fmt: skip
        try:
            until = time.monotonic() + 200
            while len(bus.goals()) < CHUNK:
                if client.poll() is not None or time.monotonic() > until:
                    raise NoOutcomeError("the arm did not move")
                time.sleep(0.1)
            server.process.kill()
            until, stopped = time.monotonic() + 60, -1
            while stopped != len(bus.goals()):
                if time.monotonic() > until:
                    raise NoOutcomeError("the arm goes on without a server")
                stopped = len(bus.goals())
                time.sleep(5)
            running = client.poll() is None
            client.send_signal(signal.SIGINT)
            client.communicate(timeout=60)
        finally:
            if client.poll() is None:
                client.kill()
        if not running or bus.torque():
            raise NoOutcomeError(f"client ended: {not running}, torque on: {bus.torque()}")
    return "the arm does what it was sent and stands still; the client goes on asking, and Ctrl-C ends it with torque off"


# -- the table -----------------------------------------------------------------------------------------------------------

_PIPELINE = "policy_preprocessor.json"


def _step(edit: Callable[[list], object]) -> Callable[[Path], None]:
    return edit_json(_PIPELINE, lambda pipeline: edit(pipeline["steps"]))


CHECKPOINTS = {
    "weights cut short": cut("model.safetensors"),
    "weights: an empty file": cut("model.safetensors", 0),
    "weights: one bit of the header turned": turn_bit_of_header,
    "weights: one tensor missing": drop_weight,
    "weights: pickled code": pickle_weights,
    "`config.json` cut short": cut("config.json"),
    "`config.json`: a vocabulary of 2,000,000,000": edit_json(
        "config.json",
        lambda config: config["backbone"]["architecture"]["text_config"].update(vocab_size=2 * 10**9),
    ),
    "`config.json`: a kernel of the Hub": edit_json(
        "config.json",
        lambda config: config["backbone"]["architecture"].update(_attn_implementation="me/kernel"),
    ),
    "a step is `subprocess.Popen`": _step(
        lambda steps: steps.append({"class": "subprocess.Popen", "config": {"args": ["touch", "ran"]}})
    ),
    "the state of a step is `../private`": _step(lambda steps: steps[0].update(state_file="../private")),
    "a processor's file cut short": cut(_PIPELINE),
}
ACTING = {
    "NaN from a sensor": nan_state,
    "NaN in the weights": nan_weight,
    "a camera is missing": no_camera,
    "no task": no_task,
    "a joint's sensor is missing": short_state,
}
TRAINING = (
    "NaN in an action",
    "an empty cell in the actions",
    "infinity in a state",
    "NaN in statistics",
    "wrong count in info.json",
    "a column is missing",
    "a picture of another size",
    "a video is missing",
    "a video that is cut short",
)
RECORDS = {
    "a line of 200,000 `[`": lambda gem: gem.records.append("[" * 200_000),
    "`../private.png`": add_private,
    "a symbolic link to a private picture": add_link,
    "13,000 x 13,000 pixels in 20 kB": add_bomb,
    "a picture cut short": add_cut_picture,
    "a PostScript program named .jpg": add_postscript,
}

FAULTS: tuple[Fault, ...] = (
    *(Fault(name, "loading a policy", partial(load_with, edit)) for name, edit in CHECKPOINTS.items()),
    *(Fault(name, "acting", partial(acting_with, edit)) for name, edit in ACTING.items()),
    *(
        Fault(fault.name, "training", partial(training_on, fault))
        for fault in BREAKS
        if fault.name in TRAINING
    ),
    *(Fault(name, "import", partial(importing, add)) for name, add in RECORDS.items()),
    Fault("an array of records cut short", "import", cut_array),
    Fault("a playlist named .mp4", "import", playlist),
    Fault("one of two processes is killed", "training", killed_rank, is_quick=False),
    Fault("no room for a checkpoint", "training", full_disk_at_checkpoint, is_quick=False),
    Fault("the policy server is killed", "remote policy", killed_server, is_quick=False),
)

_IMPORT, _SERVER, _HUB = (
    f"tests/{name}.py::"
    for name in ("data/gem_jsonl/test_importing", "robots/test_policy_server", "hub/test_checkpoints")
)
_ROLLOUT, _PREFLIGHT = "tests/robots/test_rollout.py::", "tests/robots/test_preflight.py::"

TESTED = (
    TestedFault("SIGKILL", "training", "resumed, the run has the bits of one that was not killed", "tests/test_resume.py::test_a_killed_run_goes_on_bit_for_bit[gem_vla]"),
    TestedFault("weights that a step made NaN", "training", "error before they are saved", "tests/policies/test_finite_training.py::test_a_step_that_breaks_the_weights_ends_before_they_are_saved"),
    TestedFault("SIGKILL", "import", "`--resume=true` ends with the same dataset", _IMPORT + "test_a_killed_import_goes_on[1]"),
    TestedFault("SIGKILL, two workers", "import", "`--resume=true` ends with the same dataset", _IMPORT + "test_a_killed_import_goes_on[2]"),
    TestedFault("disk full while joining", "import", "one error, nothing that loads, `--resume=true` goes on", _IMPORT + "test_a_full_disk_leaves_nothing_that_loads[lerobot.datasets.aggregate.append_or_create_parquet_file]"),
    TestedFault("disk full", "export", "one error, nothing left", "tests/data/gem_jsonl/test_exporting.py::test_a_full_disk_leaves_nothing"),
    TestedFault("SIGKILL", "depth labels", "`--resume=true` ends with the same dataset", "tests/data/depth_labels/test_labelling.py::test_a_killed_run_resumes_and_processes_share_the_work"),
    TestedFault("disk full", "depth labels", "one error, nothing that loads, `--resume=true` goes on", "tests/data/depth_labels/test_labelling.py::test_a_full_disk_leaves_nothing_that_loads[0.03-labelling]"),
    TestedFault("an upload breaks off", "Hub", "nothing half is there; the client's own repetition, or the user's, ends it", "tests/hub/test_client.py::test_an_interrupted_upload_leaves_nothing_and_can_be_repeated"),
    TestedFault("a wrong token", "Hub", "exit code 1, the checkpoint stays", _HUB + "test_a_wrong_token_ends_the_run_and_leaves_the_checkpoint"),
    TestedFault("a repository that is not there", "Hub", "its name is said", _HUB + "test_a_missing_repository_is_named"),
    TestedFault("a stranger's policy with a `Popen` step", "Hub", "`lerobot-train` ends with our error, nothing ran", _HUB + "test_a_strangers_policy_is_refused[step]"),
    TestedFault("the camera is unplugged", "arm", "exit code 1, torque off", _ROLLOUT + "test_a_camera_that_is_gone_ends_the_run_with_torque_off"),
    TestedFault("the last servo answers no more", "arm", "exit code 1; it alone keeps torque, which it can't be told to drop", _ROLLOUT + "test_a_servo_that_answers_no_more_ends_the_run[6-held0]"),
    TestedFault("no task, with real-time chunking", "arm", "exit code 1 with our error, no goal was sent", _ROLLOUT + "test_what_is_missing_ends_the_run_with_our_error[task-rtc]"),
    TestedFault("motors in another order", "preflight", "error before torque: values would go to the wrong joints", _PREFLIGHT + "test_motors_of_another_order_or_name[order]"),
    TestedFault("another calibration", "preflight", "error before torque", _PREFLIGHT + "test_another_calibration"),
    TestedFault("the lens is covered", "preflight", "error before torque: a single colour", _PREFLIGHT + "test_traps_of_options[covered]"),
    TestedFault("the client is killed", "remote policy", "the server serves the next", _SERVER + "test_a_client_that_is_killed_leaves_the_server_to_the_next"),
    TestedFault("a pickle that names `subprocess.run`", "remote policy", "refused, not called; the client goes on", _SERVER + "test_a_wrong_observation_is_refused[function]"),
    TestedFault("a message cut short", "remote policy", "refused; the client goes on", _SERVER + "test_a_wrong_observation_is_refused[cut]"),
    TestedFault("a message of 80 MiB", "remote policy", "refused; the client goes on", _SERVER + "test_a_wrong_observation_is_refused[large]"),
    TestedFault("another robot", "remote policy", "refused before it moves", _SERVER + "test_another_robot_is_refused_before_it_moves[order]"),
)  # fmt: skip


def outcome_of(fault: Fault) -> str:
    """Inject a fault; what became of it, in a sentence.

    Raises:
        NoOutcomeError: Nothing was said of it, or harm was done.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            said = fault.inject(Path(folder))
        finally:
            os.chdir(before)
        return _sentence(said.replace(str(Path(folder).resolve()), "").replace(folder, ""))


def _sentence(text: str) -> str:
    text = re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")
    first = re.split(r"(?<=[^.])\. ", text)[0].rstrip(".")
    return first if len(first) <= _LONGEST_CELL else f"{first[:_LONGEST_CELL]} …"


def passed(tests: list[str]) -> set[str]:
    """Those of some tests that pass."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "", "-q", "-rA", "--no-header", "--tb=short", *tests],
        capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    print(run.stdout[-3000:] if run.returncode else run.stdout.splitlines()[-1], file=sys.stderr)
    return set(re.findall(r"^PASSED (\S+)", run.stdout, re.MULTILINE))


def rows(areas: Sequence[str], *, quick: bool) -> Iterator[tuple[str, str, str, str]]:
    """Area, fault, outcome and what shows it, of some areas."""
    for fault in FAULTS:
        if fault.area not in areas or (quick and not fault.is_quick):
            continue
        try:
            outcome = outcome_of(fault)
        except NoOutcomeError as error:
            outcome = f"**not accepted: {_sentence(str(error))}**"
        yield fault.area, fault.name, outcome, "this command" if fault.is_quick else "this command alone"
    tested = [fault for fault in TESTED if fault.area in areas and not quick]
    good = passed([fault.test for fault in tested]) if tested else set()
    for fault in tested:
        outcome = fault.outcome if fault.test in good else "**its test fails**"
        yield fault.area, fault.name, outcome, f"`{fault.test.rpartition('/')[2]}`"


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # LeRobot's commands set its level anew
    areas = list(dict.fromkeys(fault.area for fault in (*FAULTS, *TESTED)))
    chosen = [area for area in areas if area in sys.argv[1:]] or areas
    made = []
    for row in rows(chosen, quick="--quick" in sys.argv):
        made.append(f"| {' | '.join(row)} |")
        print(made[-1], flush=True)
    lines = REPORT.read_text().splitlines() if REPORT.exists() else []
    kept = [
        line for line in lines if any(line.startswith(f"| {area} |") for area in areas if area not in chosen)
    ]
    table = sorted([*kept, *made], key=lambda line: areas.index(line.split(" | ")[0].removeprefix("| ")))
    bad = sum("**" in line for line in table)
    REPORT.write_text(_HEAD.format(count=len(table), bad=bad) + "\n".join(table) + "\n")
    sys.exit(f"{bad} outcomes are not accepted" if bad else 0)


_HEAD = """# {count} kinds of fault

`python -m tests.faults` injects them and writes this page, or the rows of the areas that it is given; outcomes that are not accepted: {bad}. An
outcome is the first sentence of the error, or what was found. Where a test injects a fault, the outcome is what it demands, and it
passed. Rows of "this command" are in the slow suite as well (tests/test_faults.py; of training, test_check_against_train.py); those of
"this command alone" start processes and kill them.

| where | fault | outcome | shown by |
|---|---|---|---|
"""


if __name__ == "__main__":
    main()
