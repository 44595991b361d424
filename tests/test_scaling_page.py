"""The figures of docs/results/scaling.md are those that the benchmark printed."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "results" / "scaling.md").read_text()


def test_figures_are_those_that_were_printed() -> None:
    printed = (ROOT / "results" / "scaling.md").read_text()
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:-1]
        for line in printed.splitlines()
        if line.startswith("|")
    }
    wanted = {
        "steps": "steps of 256",
        "seconds of a step: computing": "seconds of a step, computing",
        "network, sharded in each machine": "seconds of a step, network, sharded in nodes",
        "network, sharded over all 32": "seconds of a step, network, sharded over all",
        "GB on each GPU: weights, gradients, AdamW": "weights, gradients, AdamW on each of 8 GPUs of a node, float32, GB",
        "gathered at a time": "gathered at a time, GB",
        "samples read in a second, all machines": "samples read in a second",
        "CPU cores that read, for each GPU": "CPU cores that read, for each GPU",
    }
    told = {
        line.split("|")[1].strip(): line.split("|")[2:4] for line in PAGE.splitlines() if line.startswith("|")
    }
    for name, row in wanted.items():
        assert [cell.strip() for cell in told[name]] == [cell.strip() for cell in rows[row]], name
