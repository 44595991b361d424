"""The rule that no import shows: every module has its test. The arrows between rooms are import-linter's (make lint)."""

from pathlib import Path

import pytest

PACKAGE, TESTS = Path(__file__).parents[1] / "lerobot_gem", Path(__file__).parent
# LeRobot's three lines for each policy, and one main for each command, which the commands' own tests run.
THIN = ("processor_gem.py", "processor_gem_vla.py")
MODULES = [
    path.relative_to(PACKAGE)
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name not in ("__init__.py", *THIN) and path.parent.name != "scripts"
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_its_test(module: Path):
    assert (TESTS / module.with_name(f"test_{module.name}")).is_file()


def test_every_package_says_what_it_is():
    for init in PACKAGE.rglob("__init__.py"):
        assert init.read_text().startswith('"""'), init
