"""Resident memory of a process."""

from pathlib import Path


def resident_bytes(*, peak: bool = False) -> int:
    """Of this process; `getrusage` would count the peak of the process before it, which began it."""
    field = "VmHWM" if peak else "VmRSS"
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024
