"""What the examples share: commands that are shown and logged, steps that are done once, and a success rate."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

SUITE = "libero_object"
FPS, IMAGE_SIZE = 5, 128
EPISODE_LENGTH = 70


# Two threads that share such small models mostly wait for each other, and beside a busy process they wait 6 to 17 times
# as long; one thread costs a fifth at most. Another number: OMP_NUM_THREADS=2 make demo
THREADS = {"OMP_NUM_THREADS": "1"}


def run(log: Path, *command: str | Path, append: bool = False) -> float:
    """Run a command, shown and logged; returns its seconds. A failure ends the example with the place of the log."""
    print(f"\n$ {' '.join(map(str, command))}", flush=True)
    start = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab" if append else "wb", buffering=0) as file,
        subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=THREADS | os.environ,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            while piece := process.stdout.read1():
                file.write(piece)
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        sys.exit(
            f"\n{command[0]} ended with code {process.returncode}; its output is in {log}\n"
            f"The same command goes on where this stopped: {_same_command()}"
        )
    return time.monotonic() - start


@contextmanager
def beside(log: Path, *command: str | Path) -> Iterator[Callable[[], None]]:
    """Run a command on another core while the block runs; its output goes to the log alone, and it ends with the block.

    Yields:
        What waits for it, and ends the example where it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"\n$ {' '.join(map(str, command))} &> {log} &", flush=True)
    with (
        log.open("ab") as file,
        subprocess.Popen(
            [str(part) for part in command], stdout=file, stderr=subprocess.STDOUT, env=THREADS | os.environ
        ) as process,
    ):

        def wait() -> None:
            if process.wait():
                sys.exit(f"\n{command[0]} ended with code {process.returncode}; its output is in {log}")

        try:
            yield wait
        finally:
            process.terminate()


def run_steps(
    output: Path, steps: dict[str, tuple[Path, Callable[[], None]]], minutes_file: str = "minutes.json"
) -> dict[str, float]:
    """Do each step whose result is not there yet; returns the minutes that each took, interrupted tries included.

    Ctrl-C, or a signal to terminate, ends the example with one line that says how to go on.

    Args:
        output: Where the minutes are kept.
        steps: Name -> its result and what makes it.
        minutes_file: Its name there.
    """
    times = output / minutes_file
    minutes = _minutes(times)
    output.mkdir(parents=True, exist_ok=True)
    for ending in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # SIGINT, too: what a shell starts behind its back ignores it
        signal.signal(ending, signal.default_int_handler)
    for number, (name, (result, step)) in enumerate(steps.items(), start=1):
        if result.exists():
            print(f"[{number}/{len(steps)}] {name}: done before, see {result}")
            continue
        print(f"[{number}/{len(steps)}] {name}", flush=True)
        start = time.monotonic()
        try:
            step()
        except KeyboardInterrupt:
            sys.exit(f"\nInterrupted. The same command goes on where this stopped: {_same_command()}")
        finally:
            minutes = _minutes(times)  # as it is now: a process on another core may have written its own
            minutes[name] = minutes.get(name, 0) + (time.monotonic() - start) / 60
            times.write_text(json.dumps(minutes))
    return minutes


def _minutes(file: Path) -> dict[str, float]:
    return json.loads(file.read_text()) if file.exists() else {}


def _same_command() -> str:
    """The command that was called, without what would start again."""
    return shlex.join([sys.executable, *(argument for argument in sys.argv if argument != "--fresh")])


def write(file: Path, content: dict) -> None:
    """Keep what was measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n")


def started_from(link: Path, policy: Path) -> None:
    """Remember which policy cells start from, and end the example if they started from another one before.

    Args:
        link: Beside the cells.
        policy: Its pretrained_model.
    """
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(policy.resolve(), target_is_directory=True)
    elif link.resolve() != policy.resolve():
        sys.exit(
            f"{link.parent} holds cells of {link.resolve()}, not of {policy}: expected the same checkpoint. Move that folder away "
            "to start from another one."
        )


def collect(output: Path, repo_id: str, task_id: int, *, demonstrations: int, scenes: int) -> None:
    """Wide demonstrations and single frames of one task, with depth, into `output / "data"`."""
    run(
        output / "logs" / "collect.log",
        BIN / "lerobot-gem-libero-demos",
        f"--suite={SUITE}",
        f"--task_ids=[{task_id}]",
        f"--episodes_per_task={demonstrations}",
        f"--scenes_per_task={scenes}",
        "--placement=wide",
        f"--fps={FPS}",
        f"--image_size={IMAGE_SIZE}",
        f"--output.repo_id={repo_id}",
        f"--output.root={output / 'data'}",
        "--num_workers=2",
        "--resume=true",
    )


def evaluate(output: Path, name: str, trained: str, task_id: int, *arguments: str, episodes: int) -> None:
    """lerobot-eval of what `train` left under `trained`, on unseen wide placements, into `output / name`.

    What an interrupted call left there is replaced.
    """
    shutil.rmtree(output / name, ignore_errors=True)
    run(
        output / "logs" / f"{name}.log",
        BIN / "lerobot-eval",
        f"--policy.path={checkpoint(output, trained)}",
        "--env.type=libero_wide",
        f"--env.task={SUITE}",
        f"--env.task_ids=[{task_id}]",
        f"--env.fps={FPS}",
        f"--env.episode_length={EPISODE_LENGTH}",
        f"--env.observation_height={IMAGE_SIZE}",
        f"--env.observation_width={IMAGE_SIZE}",
        f"--eval.n_episodes={episodes}",
        # More would be processes on other cores, each of which waits for the longest episode.
        "--eval.batch_size=1",
        f"--output_dir={output / name}",
        *arguments,
    )


def train(
    output: Path,
    name: str,
    config: str,
    *arguments: str,
    steps: int,
    log_every: int,
    data: Path | None = None,
) -> None:
    """lerobot-train with a file of configs/policy, into `output / name`; goes on from the last checkpoint, if there is one.

    The dataset is `output / "data"`, unless `data` is another.
    """
    folder, log = output / name, output / "logs" / f"{name}.log"
    save_every = max(1, steps // 8 // log_every) * log_every
    last = checkpoint(output, name)
    if last.exists():
        done = int(last.resolve().parent.name)
        _forget_behind(log, done // log_every)
        command = [f"--config_path={last / 'train_config.json'}", "--resume=true"]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted before it saved anything
        command = [
            f"--config_path={ROOT / 'configs' / 'policy' / config}.yaml",
            f"--dataset.root={data or output / 'data'}",
            f"--output_dir={folder}",
            f"--steps={steps}",
            f"--log_freq={log_every}",
            f"--save_freq={save_every}",
            *arguments,
        ]
    run(log, BIN / "lerobot-train", *command, append=last.exists())
    trained(output, name).touch()


def _forget_behind(log: Path, lines: int) -> None:
    """Cut a log of training behind so many lines with losses: the others are of steps that will be done again."""
    kept = []
    for line in log.read_bytes().splitlines(keepends=True) if log.exists() else ():
        if re.search(rb"step:\S+ ", line):
            if lines == 0:
                break
            lines -= 1
        kept.append(line)
    log.write_bytes(b"".join(kept))


def trained(output: Path, name: str) -> Path:
    """What `train` leaves when it is done: checkpoints are there before."""
    return output / name / "finished"


def checkpoint(output: Path, name: str) -> Path:
    """Where `train` leaves the policy."""
    return output / name / "checkpoints" / "last" / "pretrained_model"


def logged(log: Path, value: str) -> list[float]:
    """What lerobot-train printed of a value, in order."""
    text = log.read_text(errors="replace")  # an interrupted progress bar ends within a character
    return [float(found) for found in re.findall(rf"step:\S+ .*?\b{value}:([\d.]+)", text)]


def success(folder: Path) -> dict[str, float | int]:
    """Successes of an evaluation of one task, with the 95 % Wilson interval."""
    # LeRobot comes with them, which takes seconds.
    from lerobot_gem.results.counts import count
    from lerobot_gem.results.eval_info import read_eval_info

    found = count(read_eval_info(folder))
    return {"successes": found.successes, "n": found.episodes, "low": found.low, "high": found.high}
