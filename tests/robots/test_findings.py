"""The verdict is what the findings say."""

from lerobot_gem.robots.findings import Preflight


def test_an_error_is_the_verdict():
    found = Preflight("policy", "robot")
    assert found.verdict == "ready to act, 0 warning(s)"
    found.add("fps", "warning", "not known")
    found.add("task", "error", "none")
    assert (found.count("error"), found.count("warning")) == (1, 1)
    assert found.verdict == "1 error(s): do not act, 1 warning(s)"
