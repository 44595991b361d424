import pytest

from lerobot_gem.inference import devices
from lerobot_gem.inference.devices import check_device


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
    check_device(wanted, "policy.device")


@pytest.mark.parametrize("option", ["policy.device", "policy_device"])
@pytest.mark.parametrize(
    ("present", "wanted", "fix"),
    [
        ([], "cuda", "torch finds cpu. Give --{}=cpu,"),
        (["cuda:0"], "cuda:1", "torch finds cpu, cuda:0. Give --{}=cuda,"),
        (["cuda:0"], "mps", "Give --{}=cuda,"),
        ([], "gpu", "Give --{}=cpu,"),
        ([], "", "Give --{}=cpu,"),
    ],
)
def test_another_device_is_refused(
    monkeypatch: pytest.MonkeyPatch, present: list[str], wanted: str, fix: str, option: str
):
    monkeypatch.setattr(devices, "_accelerators", lambda: present)
    with pytest.raises(ValueError, match=f"^{option}='{wanted}': expected .*{fix.format(option)}"):
        check_device(wanted, option)
