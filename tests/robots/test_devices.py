import pytest

from lerobot_gem.robots import devices
from lerobot_gem.robots.devices import check_device


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ([], "cpu"),
        (["cuda:0"], "cpu"),
        (["cuda:0"], "cuda"),
        (["cuda:0", "cuda:1"], "cuda:1"),
        (["mps:0"], "mps"),
    ],
)
def test_a_device_of_this_machine(monkeypatch: pytest.MonkeyPatch, present: list[str], wanted: str):
    monkeypatch.setattr(devices, "_accelerators", lambda: present)
    check_device(wanted)


@pytest.mark.parametrize(
    ("present", "wanted", "fix"),
    [
        ([], "cuda", "torch finds cpu. Give --policy_device=cpu,"),
        (["cuda:0"], "cuda:1", "torch finds cpu, cuda:0. Give --policy_device=cuda,"),
        (["cuda:0"], "mps", "Give --policy_device=cuda,"),
        ([], "gpu", "Give --policy_device=cpu,"),
        ([], "", "Give --policy_device=cpu,"),
    ],
)
def test_another_device_is_refused(
    monkeypatch: pytest.MonkeyPatch, present: list[str], wanted: str, fix: str
):
    monkeypatch.setattr(devices, "_accelerators", lambda: present)
    with pytest.raises(ValueError, match=f"^policy_device='{wanted}': expected .*{fix}"):
        check_device(wanted)
