#!/bin/sh
# Runs the default test suite with some versions of packages, in an environment of its own that is removed afterwards:
#   tools/try_versions.sh transformers==5.4.0 lerobot==0.6.1
# Takes uv from .venv or from PATH, and its cache. PYTHON is the interpreter (that of .venv), WORKERS the
# number of test processes (1), TESTS what they run (all).
set -eu
cd -P "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: tools/try_versions.sh PACKAGE==VERSION ..." >&2; exit 2; }
uv=.venv/bin/uv
[ -x "$uv" ] || uv=$(command -v uv) || { echo "uv is missing: pip install uv, or make setup" >&2; exit 1; }
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
trap 'exit 1' INT TERM
# As in tools/bootstrap.sh.
export CMAKE_POLICY_VERSION_MINIMUM=3.5 UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
export LIBERO_CONFIG_PATH="$environment/libero" MUJOCO_GL="${MUJOCO_GL:-egl}" OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
"$uv" venv -q --python "$python" "$environment/venv"
"$uv" pip install -q --python "$environment/venv/bin/python" -e '.[libero,so101,dev]' "$@"
"$environment/venv/bin/lerobot-gem-libero-setup" >/dev/null

started=$(date +%s)
# shellcheck disable=SC2086 # one argument for each path
status=0
"$environment/venv/bin/python" -m pytest -q -p no:cacheprovider -n "${WORKERS:-1}" --dist loadfile ${TESTS:-} || status=$?
echo "tried: $("$uv" pip freeze -q --python "$environment/venv/bin/python" | grep -E '^(lerobot|transformers|torch|diffusers|peft|huggingface-hub|datasets)==' | tr '\n' ' ')"
echo "took: $(($(date +%s) - started)) s, exit code $status"
exit "$status"
