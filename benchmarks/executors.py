"""Whether the data commands are as fast as in another checkout: CPU and wall seconds of whole commands, here and there by turns.

    python benchmarks/executors.py --before=../main --repeats=3 --output=results/executors.md

CPU seconds are those of the command and all of its processes, imports included. On a machine that others use, wall seconds say little.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from importing import make_folder  # beside this file

MOST = 1.1  # of the CPU seconds before


def commands(folder: Path, output: Path) -> dict[str, list[str]]:
    """Name -> module and options."""
    imports = ["lerobot_gem.scripts.import_gem", f"--source={folder}", f"--output.root={output}"]
    scenes = [
        "lerobot_gem.scripts.libero_demos",
        "--mode=scenes",
        "--scenes_per_task=100",
        "--task_ids=[0,1]",
    ]
    scenes += ["--fps=5", f"--output.root={output}"]
    return {
        "import": imports,
        "import, 2 processes": [*imports, "--num_workers=2"],
        "scenes": scenes,
        "scenes, 2 processes": [*scenes, "--num_workers=2"],
    }


def measure(command: list[str], checkout: Path, log: Path) -> tuple[float, float]:
    """CPU and wall seconds of a command with the package of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=checkout, env=environment, stdout=stream, stderr=stream
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed: {log.read_text()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--before", type=Path, required=True, help="checkout to compare with")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--records", type=int, default=5000)
    options.add_argument("--output", type=Path)
    given = options.parse_args()
    checkouts = {"before": given.before.resolve(), "after": Path(__file__).resolve().parents[1]}
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        make_folder(place / "records", given.records)
        for repeat in range(given.repeats):
            for name, command in commands(place / "records", place / "set").items():
                for when in list(checkouts)[:: 1 if repeat % 2 == 0 else -1]:
                    found = measure(command, checkouts[when], place / "log")
                    shutil.rmtree(place / "set")
                    seconds.setdefault((name, when), []).append(found)
                    print(
                        f"{repeat + 1}/{given.repeats} {name}, {when}: CPU {found[0]:.1f} s, wall {found[1]:.1f} s",
                        file=sys.stderr,
                    )
    lines = [
        f"# Data commands through datatrove {version('datatrove')}, against the commit before",
        "",
        f"`python benchmarks/executors.py --before=<checkout of {_commit(given.before)}> --repeats={given.repeats} --records={given.records}`; "
        f"medians of {given.repeats} runs of each, by turns; {os.cpu_count()} cores, shared with others.",
        "",
        "| command | CPU s before | after | ratio | wall s before | after | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(name for name, _ in seconds):
        row = [name]
        for place_of in (0, 1):
            before, after = (
                statistics.median(one[place_of] for one in seconds[name, when]) for when in checkouts
            )
            row += [f"{before:.1f}", f"{after:.1f}", f"{after / before:.2f}"]
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", f"Goal: at most {MOST} of the CPU seconds."]
    print("\n".join(lines))
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
