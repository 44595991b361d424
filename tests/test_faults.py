"""The faults of `tests/faults.py` that need no process of their own; all of them: `python -m tests.faults`."""

import pytest

from tests.faults import FAULTS, REPORT, ROOT, TESTED, Fault, outcome_of

# Those in training are rows of tests/data/check/test_check_against_train.py.
QUICK = [fault for fault in FAULTS if fault.is_quick and fault.area != "training"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: f"{fault.area}-{fault.name}")
def test_a_fault_has_an_outcome_in_one_sentence(fault: Fault) -> None:
    said = outcome_of(fault)
    assert said and "\n" not in said


def test_the_report_has_an_accepted_outcome_of_each() -> None:
    rows = [line.split(" | ") for line in REPORT.read_text().splitlines() if line.startswith("| ")][1:]
    found = [(area.removeprefix("| "), name) for area, name, *_ in rows]
    assert sorted(found) == sorted((fault.area, fault.name) for fault in (*FAULTS, *TESTED))
    assert not [row for row in rows if any("**" in cell for cell in row)]


def test_the_tests_that_inject_a_fault_are_there() -> None:
    """pytest runs none of a list of tests of which one is missing."""
    tests = [str(ROOT / fault.test) for fault in TESTED]
    assert pytest.main(["--collect-only", "-q", "-m", "", *tests]) == pytest.ExitCode.OK
