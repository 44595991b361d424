#!/bin/sh
# Makes .venv: Python 3.12 or 3.13, this package with its extras `libero`, `so101` and `dev`, LIBERO's configuration. The Makefile runs it.
set -eu
cd -P "$(dirname "$0")/.."
die() { echo "[setup] FAILED: $*" >&2; exit 1; }

# To make environments, to compile egl-probe, and what OpenCV and MuJoCo load.
packages="python3-venv g++ cmake libgl1 libglib2.0-0 libegl1 libegl-mesa0 libgl1-mesa-dri"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # one argument per package
dpkg -s $packages >/dev/null 2>&1 ||
    { [ "$(id -u)" -eq 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >&2 ||
    echo "[setup] If something fails, install these Debian packages: sudo apt-get install $packages" >&2

if [ ! -x .venv/bin/python ]; then
    # A name on PATH says nothing: pyenv has its shims for versions that are not selected, too.
    for python in python3 python3.12 python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23].*/bin/python; do
        "$python" -c 'import ensurepip, sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' 2>/dev/null && break
        python=
    done
    if [ -n "$python" ]; then
        "$python" -m venv --clear .venv
    else
        uv venv --clear --seed --python '>=3.12,<3.14' .venv ||
            die "no Python 3.12 or 3.13. Install one (Debian 13: apt-get install python3-venv; or: pyenv install 3.12), or uv."
    fi
fi

.venv/bin/python -m pip install -q uv
# CMake 4 refuses egl-probe's project file otherwise; torch's wheels are too large for uv's half minute on slow lines.
export CMAKE_POLICY_VERSION_MINIMUM=3.5 UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
# Where PYTHONDONTWRITEBYTECODE is set, each command would compile torch, transformers and LeRobot anew: half of its start.
.venv/bin/uv pip install --compile-bytecode --python .venv/bin/python -e '.[libero,so101,dev]' ||
    die "the packages could not be installed, see above (behind a package mirror: uv reads UV_DEFAULT_INDEX, not pip.conf)."
# Beside the environment, where the plugin finds it: the one in the user's home may point into another environment.
LIBERO_CONFIG_PATH="${LIBERO_CONFIG_PATH:-$PWD/.venv/libero}" .venv/bin/lerobot-gem-libero-setup
