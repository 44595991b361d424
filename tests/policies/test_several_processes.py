"""Two processes learn what one learns from both batches: their losses are means over all images and tokens of both."""

import os
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from tests.conftest import ACTION_DIM
from tests.policies.gem.test_modeling_gem import warm
from tests.policies.gem_vla.test_modeling_gem_vla import grads
from tests.policies.test_depth_loss import Case, make_vla  # noqa: F401 (fixture)
from tests.policies.test_gradients import draw_by_content
from tests.processes import run_processes

CASE = Case(wide=True)
# Samples of each process: answers and images of different numbers; the second without any.
UNEVEN, WITHOUT = ((0, 2), (3, 4)), ((0, 2), (1, 1))


def of_samples(raw: dict, samples: tuple[int, ...]) -> dict:
    return {
        key: value[list(samples)] if isinstance(value, Tensor) else [value[sample] for sample in samples]
        for key, value in raw.items()
        if isinstance(value, Tensor | list | tuple)
    }


def train(rank: int, port: int, policy, inputs: list[dict], draws: list[dict], output: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    draw_by_content(policy.generator, pytest.MonkeyPatch())
    distributed.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    with policy.train().own_draws({}):
        drawn = torch.rand(4)
    wrapped = DistributedDataParallel(policy, find_unused_parameters=True)  # as LeRobot does
    loss, logs = wrapped(inputs[rank], **draws[rank])
    loss.backward()
    torch.save(
        {"loss": loss.item(), "logs": logs, "grads": grads(policy), "drawn": drawn}, output / f"{rank}.pt"
    )
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("policy_type", ["gem", "gem_vla"])
@pytest.mark.parametrize("samples", [UNEVEN, WITHOUT], ids=["uneven", "one without any"])
def test_two_processes_learn_what_one_learns_from_both_batches(
    policy_type,
    samples,
    make_gem,
    make_vla,  # noqa: F811
    depth_dataset_root,
    monkeypatch,
    tmp_path: Path,
):
    if policy_type == "gem":
        policy, preprocess, _ = make_gem(stage="joint", **CASE.options())
    else:
        policy, preprocess, _ = make_vla(CASE)
    warm(policy).train()
    for_processes = deepcopy(policy)
    draw_by_content(policy.generator, monkeypatch)
    raw = CASE.batch(depth_dataset_root)
    if policy_type == "gem":
        raw["task"] = ["", *raw["task"]][:5]
        raw["task"][1] = ""
    inputs = [preprocess(of_samples(raw, part)) for part in samples]
    both = preprocess(of_samples(raw, (*samples[0], *samples[1])))
    draws: list[dict[str, Tensor]] = [{}, {}]
    if policy_type == "gem_vla":
        draws = [{"noise": torch.randn(2, 4, ACTION_DIM), "time": torch.rand(2)} for _ in samples]
    loss, logs = policy(both, **{name: torch.cat([part[name] for part in draws]) for name in draws[0]})
    loss.backward()
    expected = grads(policy)
    policy.zero_grad()

    run_processes(train, for_processes, inputs, draws, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))

    assert not first["drawn"].equal(second["drawn"])
    assert (first["loss"] + second["loss"]) / 2 == pytest.approx(loss.item(), rel=1e-4)
    # LeRobot averages logs over processes.
    averaged = {name: (first["logs"][name] + second["logs"][name]) / 2 for name in logs}
    averaged["images_without_depth"] *= 2  # a number, not a mean
    assert averaged == pytest.approx(logs, rel=1e-4)
    if samples == WITHOUT:
        without = second["logs"]
        assert without["depth_loss"] == without["frames_with_depth"] == without.get("language_loss", 0) == 0
    assert first["grads"].keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(first["grads"][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
        assert first["grads"][name].equal(second["grads"][name])
