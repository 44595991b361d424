"""`lerobot-gem-check` finds what `lerobot-train` ends with, on datasets that were broken by hand."""

import re
from pathlib import Path

import pytest

from tests.data.check.broken_datasets import BREAKS, Break, broken, found_by_check, train, write_bases


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", BREAKS, ids=lambda fault: fault.name)
def test_check_says_beforehand_what_training_ends_with(fault: Break, bases: dict[str, Path], tmp_path: Path):
    root = broken(fault, bases, tmp_path)
    said = train(root, fault, tmp_path / "run")
    assert re.search(fault.train_says or fault.says, said, re.DOTALL), said
    code, found = found_by_check(root, fault)
    assert code == 1
    assert any(re.search(fault.says, line) for line in found), found
    assert (
        len(found) == len(set(found)) <= 4
    )  # each fault once, three frames at most and the number of the others


@pytest.mark.slow
@pytest.mark.parametrize("base", ["plain", "depth", "video"])
def test_datasets_that_are_whole_train_and_pass(base: str, bases: dict[str, Path], tmp_path: Path):
    whole = Break("nothing", lambda root: None, "", base=base)
    root = broken(whole, bases, tmp_path)
    assert train(root, whole, tmp_path / "run") == ""
    assert found_by_check(root, whole) == (0, [])
