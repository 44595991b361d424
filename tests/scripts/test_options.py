"""Mistakes on the command line: one line that says what is wrong."""

import pytest

from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.scripts.options import parse_options


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--fps=0", "error: fps must be at least 1, but is 0."),
        ("--qa.kinds=[colour]", "error: qa.kinds=['colour']: expected some of point, box,"),
        ("--fps=often", "error: `fps`: Couldn't parse 'often' into an int"),
        ("--frames_per_second=2", None),  # argparse's own message
    ],
)
def test_a_wrong_option_ends_with_the_reason(option: str, message: str | None) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_options(LiberoDemosConfig, ["--output.root=somewhere", option])
    assert caught.value.code == 2 if message is None else str(caught.value.code).startswith(message)


def test_options_that_are_right() -> None:
    config = parse_options(LiberoDemosConfig, ["--output.root=somewhere", "--fps=5"])
    assert config.fps == 5 and str(config.output.root) == "somewhere"
