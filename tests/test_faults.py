"""The faults of `tests/faults.py` that need no process of their own; all of them: `python -m tests.faults`."""

import pytest

from tests.faults import FAULTS, ROOT, TESTED, Fault, outcome_of

QUICK = [fault for fault in FAULTS if fault.is_quick]


@pytest.mark.slow
@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: f"{fault.area}-{fault.name}")
def test_a_fault_has_an_outcome_in_one_sentence(fault: Fault) -> None:
    said = outcome_of(fault)
    assert said and "\n" not in said


def test_there_are_40_kinds() -> None:
    assert len({(fault.area, fault.name) for fault in (*FAULTS, *TESTED)}) == len(FAULTS) + len(TESTED) >= 40


def test_the_tests_that_inject_a_fault_are_there() -> None:
    """pytest runs none of a list of tests of which one is missing."""
    for fault in TESTED:
        file, _, name = fault.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(), fault.test
