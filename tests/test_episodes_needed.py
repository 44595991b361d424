"""What examples/episodes_needed.py computes: against drawn episodes, and against the numbers that the page quotes."""

import importlib.util
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
WITH, WITHOUT = 0.961, 0.949  # the paper's averages
HOURS_OF_A_PAIR = 20 + 11  # on eight A800, as the page computes


@pytest.fixture(scope="module")
def needed():
    spec = importlib.util.spec_from_file_location("episodes_needed", ROOT / "examples" / "episodes_needed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pairs_have_the_power(needed):
    share = 0.75 * needed.independent_share(WITH, WITHOUT)
    first, second = (share + WITH - WITHOUT) / 2, (share - WITH + WITHOUT) / 2
    pairs = ceil(needed.paired(WITH, WITHOUT, share))
    draws = np.random.default_rng(0).multinomial(pairs, [first, second, 1 - share], size=400)
    found = np.mean([binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b, _ in draws])
    assert 0.73 < found < 0.86  # the exact test is a little careful


def test_seeds_without_spread_are_episodes_alone(needed):
    share = 0.75 * needed.independent_share(WITH, WITHOUT)
    enough = needed.paired(WITH, WITHOUT, share) / needed.EPISODES
    assert (
        enough <= needed.seeds(WITH, WITHOUT, share, 0) <= enough + 4
    )  # t in place of the normal distribution


def test_the_page_quotes_what_it_prints(needed):
    page = (ROOT / "docs" / "how_to" / "reproduce_libero.md").read_text()
    chance = needed.independent_share(WITH, WITHOUT)
    numbers = [
        needed.unpaired(WITH, WITHOUT),
        *(needed.paired(WITH, WITHOUT, part * chance) for part in (0.75, 0.5)),
    ]
    for number in numbers:
        assert f"| {ceil(number):,} |" in page
    for spread in (0.3, 0.5, 1):
        seeds = needed.seeds(WITH, WITHOUT, chance, spread / 100)
        days = round(seeds * HOURS_OF_A_PAIR / 24)
        assert f"| {spread} | {seeds} | {days} |" in page


def test_the_command_of_the_page(needed, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["episodes_needed.py", "94.9", "96.1"])
    needed.main()
    assert "Unpaired: 4684 episodes for each policy." in capsys.readouterr().out
