"""`tools/bootstrap.sh` in a make-believe clone, on a machine whose PATH holds stubs only: nothing real is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).parents[1] / "tools" / "bootstrap.sh"
SYSTEM_TOOLS = ("sh", "cat", "chmod", "cksum", "dirname", "env", "grep", "mkdir", "mktemp", "rm")
# A Python that fits, but makes environments of stubs and finds no uv in its package index.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-m venv") echo "python venv" >>"$LOG"; "$STUBS/make-venv" "$3" ;;
    "-m pip") shift 2; echo "pip $*" >>"$LOG"; case "$*" in *lerobot*|*libero*) ;; *) exit 1 ;; esac ;;
esac
"""
MAKE_VENV = """#!/bin/sh
mkdir -p "$1/bin"
cat "$STUBS/python" >"$1/bin/python"
echo "VIRTUAL_ENV='$PWD/.venv'" >"$1/bin/activate"
echo 'echo setup >>"$LOG"; exit ${SETUP_FAILS:-0}' >"$1/bin/lerobot-gem-libero-setup"
chmod +x "$1/bin/python" "$1/bin/lerobot-gem-libero-setup"
"""
UV = """#!/bin/sh
echo "uv $*" >>"$LOG"
case "$1" in venv) for folder; do :; done; "$STUBS/make-venv" "$folder" ;; esac
"""


class Machine:
    """A clone and the commands that it finds."""

    def __init__(self, root: Path):
        self.clone, self.stubs, self.log = root / "clone", root / "stubs", root / "log"
        for folder in (self.clone / "tools", self.stubs, root / "tmp"):
            folder.mkdir(parents=True)
        shutil.copy(BOOTSTRAP, self.clone / "tools")
        (self.clone / "pyproject.toml").write_text("[project]\n")
        for tool in SYSTEM_TOOLS:
            (self.stubs / tool).symlink_to(shutil.which(tool))
        for name in ("c++", "cmake", "apt-get"):
            self.command(name, f'echo "{name} $*" >>"$LOG"')
        self.command("id", "echo 0")
        self.command("python", PYTHON)
        self.command("make-venv", MAKE_VENV)
        self.pyenv = root / "pyenv"
        self.environment = {
            "PATH": str(self.stubs),
            "HOME": str(root),
            "TMPDIR": str(root / "tmp"),
            "PYENV_ROOT": str(self.pyenv),
            "LIBERO_CONFIG_PATH": str(self.clone / ".venv/libero"),
            "STUBS": str(self.stubs),
            "LOG": str(self.log),
        }

    def command(self, name: str, script: str) -> None:
        path = self.stubs / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def install_pyenv_python(self) -> Path:
        python = self.pyenv / "versions/3.12.9/bin/python"
        python.parent.mkdir(parents=True)
        python.symlink_to(self.stubs / "python")
        return python

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["sh", self.clone / "tools/bootstrap.sh"],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def done(self) -> list[str]:
        """What the last run called, apt-get aside: it depends on the real machine's libraries."""
        return [line for line in self.log.read_text().splitlines() if not line.startswith("apt-get")]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


INSTALL = "uv pip install --python .venv/bin/python uv pip -e .[libero,dev]"


def test_python_of_pyenv_is_found_behind_a_dead_shim(machine):
    machine.command("uv", UV)
    machine.command("python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    python = machine.install_pyenv_python()
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert machine.done == [f"uv venv --quiet --python {python} .venv", INSTALL, "setup"]


def test_python_on_path_comes_first(machine):
    machine.command("uv", UV)
    machine.command("python3.13", PYTHON)
    machine.install_pyenv_python()
    machine.run()
    assert machine.done[0] == f"uv venv --quiet --python {machine.stubs / 'python3.13'} .venv"


def test_uv_brings_a_python_where_there_is_none(machine):
    machine.command("uv", UV)
    assert machine.run().returncode == 0
    assert machine.done[0] == "uv venv --quiet --python >=3.12,<3.14 .venv"


def test_pip_installs_where_uv_cannot_be_had(machine):
    machine.install_pyenv_python()
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert machine.done == [
        "python venv",
        "pip install -q uv",
        "python venv",
        "pip install -e .[libero,dev]",
        "setup",
    ]


def test_second_run_does_nothing_until_something_changed(machine):
    machine.command("uv", UV)
    machine.install_pyenv_python()
    machine.run()
    again = machine.run()
    assert (again.returncode, again.stderr, machine.done) == (0, "", [])
    (machine.clone / "pyproject.toml").write_text("[project]\nname = 'changed'\n")
    machine.run()
    assert machine.done == [INSTALL, "setup"]


def test_environment_of_another_folder_is_made_anew(machine):
    machine.command("uv", UV)
    machine.install_pyenv_python()
    machine.run()
    activate = machine.clone / ".venv/bin/activate"
    activate.write_text(activate.read_text().replace(str(machine.clone), "/elsewhere"))
    (machine.clone / ".venv/.bootstrap").unlink()
    machine.run()
    assert len(machine.done) == 3
    assert str(machine.clone) in activate.read_text()


def test_failed_libero_setup_is_not_taken_for_done(machine):
    machine.command("uv", UV)
    machine.install_pyenv_python()
    result = machine.run(SETUP_FAILS="1")
    assert result.returncode == 1
    assert "LIBERO can't be used yet" in result.stderr
    machine.run()
    assert machine.done == [INSTALL, "setup"]


def test_without_rights_the_message_names_the_packages(machine):
    (machine.stubs / "cmake").unlink()
    machine.command("id", "echo 1000")
    result = machine.run()
    assert result.returncode == 1
    assert "sudo apt-get install python3-venv cmake" in result.stderr
    assert not (machine.clone / ".venv").exists()


def test_root_installs_the_packages(machine):
    (machine.stubs / "c++").unlink()
    machine.install_pyenv_python()
    machine.run()
    assert "apt-get install -y -qq --no-install-recommends g++" in machine.log.read_text()


def test_neither_python_nor_uv(machine):
    result = machine.run()
    assert result.returncode == 1
    assert "there is no Python 3.12 or 3.13" in result.stderr
