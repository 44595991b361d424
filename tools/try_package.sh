#!/bin/sh
# Builds wheel and sdist, installs each by itself into a fresh environment outside the clone, and uses it there as a newcomer would.
#   tools/try_package.sh [FOLDER]
# FOLDER gets the two packages. UV and PYTHON are those of .venv unless the environment names others.
set -eu
cd -P "$(dirname "$0")/.."
uv=$(command -v "${UV:-$PWD/.venv/bin/uv}")
python=$(command -v "${PYTHON:-$PWD/.venv/bin/python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$uv" build -q --python "$python" --out-dir "$work/dist" .
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    cp "$work"/dist/*.whl "$work"/dist/*.tar.gz "$1"
fi
cd "$work"
"$uv" venv -q --python "$python" env
for package in dist/*.tar.gz dist/*.whl; do
    # The wheel takes the place of the sdist: what both need is there then, and Python has compiled it.
    "$uv" pip uninstall -q --python env/bin/python lerobot_policy_gem
    "$uv" pip install -q --python env/bin/python "$package"
    env/bin/python - <<'PYTHON'
from importlib.metadata import files

import lerobot_policy_gem

needed = {
    "configs/policy/gem_vla_2b.yaml",
    "data/check/page.html.jinja",
    "models/tiny_autoencoder/config.json",
    "policies/model_card.md.jinja",
    "robots/page.html.jinja",
}
missing = needed - {str(path).removeprefix("lerobot_gem/") for path in files("lerobot_policy_gem")}
assert not missing, f"not in the package: {missing}"
PYTHON
    config=$(env/bin/lerobot-gem-config gem_vla_tiny)
    case "$config" in "$work"/env/*) ;; *) echo "$config is not in the fresh environment" >&2; exit 1 ;; esac
    echo "$package: installed by itself, and all its files are there"
done

# With the wheel, LeRobot finds the policy and parses the file: what ends the command is that there is no such dataset.
HF_HUB_OFFLINE=1 env/bin/lerobot-train --config_path="$config" --dataset.root="$work/no_dataset" >train.log 2>&1 && exit 1
grep -q no_dataset train.log || { cat train.log >&2; exit 1; }
echo "lerobot-train --config_path=$config: reads the file, and asks for the dataset"
