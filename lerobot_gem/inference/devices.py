"""The devices of this machine that a policy can be loaded to."""

import torch


def check_device(device: str, option: str) -> None:
    """Refuse a device that this machine does not have.

    Args:
        device: As torch names it: "cpu", "cuda", "cuda:1".
        option: Whose value it is, such as "policy.device".

    Raises:
        ValueError: It is not here, or no device's name.
    """
    present = ["cpu", *_accelerators()]
    try:
        wanted = torch.device(device)
        is_present = any(
            wanted.type == here.type and wanted.index in (None, here.index)
            for here in map(torch.device, present)
        )
    except RuntimeError:  # no device of torch has such a name
        is_present = False
    if not is_present:
        raise ValueError(
            f"{option}={device!r}: expected a device of the machine that loads the policy, where torch finds {', '.join(present)}. Give "
            f"--{option}={present[-1].partition(':')[0]}, or install a torch that knows its GPU."
        )


def _accelerators() -> list[str]:
    """Those that torch can use now, such as "cuda:0"."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return []
    return [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
