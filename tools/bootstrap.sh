#!/bin/sh
# Makes .venv ready: a Python 3.12 or 3.13, this package with its `libero` and `dev` extras, LIBERO's configuration.
# Returns at once when nothing that it depends on has changed since it last succeeded. The Makefile runs it.
set -eu
cd -P "$(dirname "$0")/.."
venv=$PWD/.venv
: "${LIBERO_CONFIG_PATH:?is not set. Run this through: make setup}"

say() { echo "[setup] $*" >&2; }
die() { say "FAILED: $*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# fits PYTHON [MODULE]: pyenv's shims exist for versions that are not selected, so a name on PATH says nothing.
fits() {
    "$1" -c "import sys, ${2:-sys}; sys.exit(not (3, 12) <= sys.version_info < (3, 14))" >/dev/null 2>&1 </dev/null
}

# Debian's Python has no ensurepip until python3-venv is installed; only uv can do without.
find_python() {
    for python in python3.12 python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23].*/bin/python; do
        if fits "$python" ensurepip; then command -v "$python"; return; fi
    done
}

# The Debian packages of what is missing: sources to compile (egl-probe), OpenCV's and MuJoCo's libraries.
missing_packages() {
    [ -n "$(find_python)" ] || has uv || python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
    has c++ || echo g++
    has cmake || echo cmake
    libraries=$(/sbin/ldconfig -p)
    lacks() { ! echo "$libraries" | grep -qE "^[[:space:]]*($1) "; }
    ! lacks 'libGL\.so\.1' || echo libgl1
    ! lacks 'libgthread-2\.0\.so\.0' || echo libglib2.0-0
    ! lacks 'libEGL\.so\.1' || echo libegl1
    ! lacks 'libEGL_(mesa|nvidia)\.so\.0' || echo libegl-mesa0 libgl1-mesa-dri
}

install_packages() {
    by_hand="Debian packages are missing. Install them and run make again: sudo apt-get install $*"
    if [ "$(id -u)" -eq 0 ]; then root=; elif sudo -n true 2>/dev/null; then root="sudo -n"; else die "$by_hand"; fi
    has apt-get || die "$by_hand"
    say "installing the Debian packages $*"
    { $root apt-get update -qq &&
        $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } </dev/null >&2 ||
        die "$by_hand"
}

find_uv() {
    if has uv; then command -v uv; return; fi
    if [ -x .venv/bin/uv ]; then echo .venv/bin/uv; return; fi
    say "fetching uv"
    "${python:-python3}" -m venv "$scratch" && "$scratch/bin/python" -m pip install -q uv && echo "$scratch/bin/uv"
}

stamp="$venv $LIBERO_CONFIG_PATH $(cat pyproject.toml tools/bootstrap.sh | cksum)"
if [ "$(cat .venv/.bootstrap 2>/dev/null)" = "$stamp" ] && fits .venv/bin/python; then exit 0; fi
say "making .venv ready (the first time: some minutes, about 8 GB)"

missing=$(missing_packages)
# shellcheck disable=SC2086 # one argument per package
[ -z "$missing" ] || install_packages $missing

# The scripts of an environment name its folder: one that was moved or copied here is no good.
if ! { grep -qs "^ *VIRTUAL_ENV=['\"]\{0,1\}${venv}['\"]\{0,1\}\$" .venv/bin/activate && fits .venv/bin/python; }; then
    rm -rf .venv
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python=$(find_python)
uv=$(find_uv) || uv=
[ -n "$python$uv" ] || die "there is no Python 3.12 or 3.13, and uv, which could fetch one, can't be had either." \
    "Install one of them (Debian 13: sudo apt-get install python3 python3-venv; or: pyenv install 3.12)."

if [ ! -d .venv ]; then
    say "Python: ${python:-one that uv finds or fetches}"
    if [ -n "$uv" ]; then "$uv" venv --quiet --python "${python:->=3.12,<3.14}" .venv; else "$python" -m venv .venv; fi ||
        die "no environment could be made. A Python 3.12 or 3.13 is needed (pyenv install 3.12)."
fi

# CMake 4 refuses egl-probe's project file otherwise; torch's wheels are too large for uv's half minute on slow lines.
export CMAKE_POLICY_VERSION_MINIMUM=3.5 UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
say "installing lerobot_policy_gem[libero,dev] with ${uv:-pip}"
if [ -n "$uv" ]; then set -- "$uv" pip install --python .venv/bin/python uv pip; else set -- .venv/bin/python -m pip install; fi
"$@" -e '.[libero,dev]' ||
    die "the packages could not be installed, see above (behind a package mirror: uv reads UV_DEFAULT_INDEX, not pip.conf)."

.venv/bin/lerobot-gem-libero-setup || die "LIBERO can't be used yet, see MISSING above."
echo "$stamp" >.venv/.bootstrap
say "ready"
