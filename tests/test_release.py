"""What a release is made of: one version, a changelog that has it, links, and a workflow that tests what it publishes."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_stands_in_one_place():
    for path in (ROOT / "lerobot_gem").rglob("*.py"):
        assert not re.search(r"^__version__\b", path.read_text(), re.MULTILINE), path


def test_the_changelog_has_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert released[0] == PROJECT["version"]


def test_paper_code_weights_and_data_are_linked():
    assert {"Paper", "Official code", "Weights", "Data"} <= PROJECT["urls"].keys()


def test_what_is_published_was_tested_and_no_password_is_kept():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert [step["run"] for step in jobs["packages"]["steps"] if "try_package" in step.get("run", "")] == [
        "tools/try_package.sh dist"
    ]
    assert {"make lint", "make docs", "make test", "make test-slow"} <= {
        step.get("run") for step in jobs["tests"]["steps"]
    }
    assert jobs["pypi"]["needs"] == ["tests", "packages"]
    assert jobs["pypi"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in text and 'tags: ["v*"]' in text


def test_robots_get_no_more_than_their_drivers():
    """Extras that an arm's computer installs add LeRobot's extras alone; what trains, labels and simulates is in others."""
    extras = PROJECT["optional-dependencies"]
    assert all(package.startswith("lerobot[") for name in ("arms", "server") for package in extras[name])
