"""Rules that no import shows: every module has its test. The arrows between rooms are import-linter's (make lint)."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "lerobot_gem", ROOT / "tests"
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


@pytest.mark.parametrize(
    "program",
    [path for folder in ("benchmarks", "examples", "tools") for path in sorted((ROOT / folder).glob("*.py"))],
    ids=lambda program: program.stem,
)
def test_what_a_program_takes_from_the_package_exists(program: Path) -> None:
    """Most programs are run by hand, months apart."""
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lerobot_gem"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")
