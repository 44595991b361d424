"""docs/how_to/reproduce_libero.md: the paired t-test over the seeds does what the page says."""

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "how_to" / "reproduce_libero.md"
SUCCESS = {"depth": (96.0, 97.0, 95.5), "plain": (95.0, 95.0, 95.0)}


def test_the_paired_t_test_reads_the_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arm, rates in SUCCESS.items():
        for seed, rate in zip((1000, 1001, 1002), rates, strict=True):
            folder = tmp_path / "outputs" / "eval" / f"libero_{arm}_{seed}"
            folder.mkdir(parents=True)
            (folder / "eval_info.json").write_text(json.dumps({"overall": {"pc_success": rate}}))
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(block, names)
    assert names["solved"] == {arm: list(rates) for arm, rates in SUCCESS.items()}
    # Differences of 1, 2 and 0.5: their mean by its standard error, and 4.303 of these to each side (t of two degrees of freedom).
    assert names["test"].statistic == pytest.approx(7 / 6 / (7 / 36) ** 0.5)
    interval = names["test"].confidence_interval()
    assert interval.high - interval.low == pytest.approx(2 * 4.3027 * (7 / 36) ** 0.5, rel=1e-4)
    assert str(interval) in capsys.readouterr().out
