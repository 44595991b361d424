"""Mistakes on the command line: one line that says what is wrong."""

import pytest

from lerobot_gem.data.depth_labels.labelling import LabelDepthConfig
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.scripts.options import mistakes_in_one_line, options_of, parse_options


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--fps=0", "error: fps=0: expected at least 1."),
        ("--qa.kinds=[colour]", "error: qa.kinds=['colour']: expected some of point, box,"),
        ("--fps=often", "error: `fps`: Couldn't parse 'often' into an int"),
        ("--frames_per_second=2", None),  # argparse's own message
    ],
)
def test_a_wrong_option_ends_with_the_reason(option: str, message: str | None) -> None:
    with pytest.raises(SystemExit) as caught, mistakes_in_one_line():
        parse_options(LiberoDemosConfig, ["--output.root=somewhere", option])
    assert caught.value.code == 2 if message is None else str(caught.value.code).startswith(message)


def test_options_that_are_right() -> None:
    config = parse_options(LiberoDemosConfig, ["--output.root=somewhere", "--fps=5"])
    assert config.fps == 5 and str(config.output.root) == "somewhere"


def test_help_tells_what_each_option_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        parse_options(LabelDepthConfig, ["--help"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert caught.value.code == 0
    assert "--batch_size int Frames that go through the model together. (default: 16)" in lines
    assert "LeRobot's name of the dataset, or its Hub id. (required)" in lines
    assert not any("Attributes:" in line or "Config file for" in line for line in lines)


@pytest.mark.parametrize("config_class", [LabelDepthConfig, LiberoDemosConfig])
def test_no_option_is_without_a_meaning(config_class: type) -> None:
    options = list(options_of(config_class))
    assert options and [option.name for option in options if not option.meaning] == []


def test_optional_parts_have_their_meanings() -> None:
    names = {option.name for option in options_of(LiberoDemosConfig)}
    assert "qa" not in names and "qa.kinds" in names
