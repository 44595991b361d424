"""How `tools/bootstrap.sh` finds a Python, where PATH holds stubs only: nothing real is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).parents[1] / "tools" / "bootstrap.sh"
# A Python that fits, but ends the script when it is to make an environment.
PYTHON = '#!/bin/sh\n[ "$1" = -c ] || { echo "${0##*/} $*" >"$LOG"; exit 1; }\n'
OLD_PYTHON = "#!/bin/sh\nexit 1\n"
DEAD_SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2; exit 127\n"
UV = '#!/bin/sh\necho "uv $*" >"$LOG"\nexit 1\n'
OF_PYENV = "../pyenv/versions/3.12.9/bin/python"


@pytest.mark.parametrize(
    ("commands", "called"),
    [
        ({"python3": PYTHON, "uv": UV}, "python3 -m venv --clear .venv"),
        ({"python3": OLD_PYTHON, "python3.13": PYTHON}, "python3.13 -m venv --clear .venv"),
        ({"python3.12": DEAD_SHIM, OF_PYENV: PYTHON, "uv": UV}, "python -m venv --clear .venv"),
        ({"python3": OLD_PYTHON, "uv": UV}, "uv venv --clear --seed --python >=3.12,<3.14 .venv"),
        ({"python3": OLD_PYTHON}, None),
    ],
)
def test_a_python_that_fits_is_found(tmp_path, commands, called):
    clone, stubs, log = tmp_path / "clone", tmp_path / "stubs", tmp_path / "log"
    (clone / "tools").mkdir(parents=True)
    shutil.copy(BOOTSTRAP, clone / "tools")
    stubs.mkdir()
    (stubs / "dirname").symlink_to(shutil.which("dirname"))
    for name, script in {**commands, "dpkg": "#!/bin/sh\n"}.items():
        path = (stubs / name).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    result = subprocess.run(
        [shutil.which("sh"), clone / "tools" / "bootstrap.sh"],
        env={"PATH": str(stubs), "PYENV_ROOT": str(tmp_path / "pyenv"), "LOG": str(log)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert (log.read_text().strip() if log.exists() else None) == called
    assert ("no Python 3.12 or 3.13" in result.stderr) == (called is None or called.startswith("uv"))
