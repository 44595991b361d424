"""Six emulated STS3215 servos on a pseudo-terminal, as an SO-100 or SO-101 arm has them.

They speak Feetech's protocol 0 as far as LeRobot's bus does: ping, read, write, sync read and sync write.
"""

import os
import pty
import select
import threading
import time
import tty
from dataclasses import dataclass, field
from types import TracebackType

MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
# Limits of position that are stored in the servos, in steps of 4096 a turn; the middle is where all stand at first.
LOWEST, MIDDLE, HIGHEST = 1024, 2047, 3071

# Addresses of the control table.
MIN_LIMIT, MAX_LIMIT, TORQUE, GOAL, PRESENT = 9, 11, 40, 42, 56
_PING, _READ, _WRITE, _SYNC_READ, _SYNC_WRITE, _ALL = 1, 2, 3, 0x82, 0x83, 254


def _word(value: int) -> bytes:
    return value.to_bytes(2, "little")


@dataclass
class Servo:
    """One servo: its control table, and whether it answers."""

    number: int
    answers: bool = True
    table: bytearray = field(default_factory=lambda: bytearray(128))

    def __post_init__(self) -> None:
        self.table[0:2] = bytes([3, 10])  # firmware
        self.table[3:5] = _word(777)  # model
        self.table[5] = self.number
        self.table[MIN_LIMIT : MIN_LIMIT + 2] = _word(LOWEST)
        self.table[MAX_LIMIT : MAX_LIMIT + 2] = _word(HIGHEST)
        self.table[GOAL : GOAL + 2] = self.table[PRESENT : PRESENT + 2] = _word(MIDDLE)

    def word(self, address: int) -> int:
        return int.from_bytes(self.table[address : address + 2], "little")

    def write(self, address: int, data: bytes) -> None:
        self.table[address : address + len(data)] = data
        if address <= GOAL < address + len(data) and self.table[TORQUE]:
            # As the servo does, it goes no farther than its limits.
            place = min(max(self.word(GOAL), self.word(MIN_LIMIT)), self.word(MAX_LIMIT))
            self.table[PRESENT : PRESENT + 2] = _word(place)


@dataclass(frozen=True)
class Write:
    """A write to a servo: when (time.monotonic), to which one, and what."""

    at: float
    servo: int
    address: int
    data: bytes


class FeetechBus:
    """The arm, in a thread of this process.

    Args:
        silent_after: Servo -> number of goals after which it answers no more.

    Attributes:
        port: Path of the serial port.
        servos: By number.
        writes: All that was written, in order.
    """

    def __init__(self, silent_after: dict[int, int] | None = None) -> None:
        self.servos = {number: Servo(number) for number in range(1, len(MOTORS) + 1)}
        self.writes: list[Write] = []
        self._silent_after = silent_after or {}
        self._goals = 0
        self._master, self._slave = pty.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "FeetechBus":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)

    def goals(self) -> list[tuple[float, list[int]]]:
        """Each set of goals that was sent to all servos: when, and where to, in the order of `MOTORS`."""
        sent = [write for write in self.writes if write.address == GOAL]
        rows = [sent[start : start + len(MOTORS)] for start in range(0, len(sent), len(MOTORS))]
        return [(row[0].at, [int.from_bytes(write.data, "little") for write in row]) for row in rows]

    def torque(self) -> list[int]:
        """Numbers of the servos that hold their place."""
        return [number for number, servo in self.servos.items() if servo.table[TORQUE]]

    def _serve(self) -> None:
        buffer = b""
        while not self._done.is_set():
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            buffer += os.read(self._master, 4096)
            while (packet := self._next(buffer)) is not None:
                (number, instruction, parameters), buffer = packet
                self._answer(number, instruction, parameters)

    @staticmethod
    def _next(buffer: bytes) -> tuple[tuple[int, int, bytes], bytes] | None:
        """The first whole packet (servo, instruction, parameters), and what follows it."""
        start = buffer.find(b"\xff\xff")
        if start < 0 or len(buffer) < start + 4 or len(buffer) < start + 4 + buffer[start + 3]:
            return None
        number, length = buffer[start + 2], buffer[start + 3]
        body = buffer[start + 4 : start + 4 + length]
        return (number, body[0], body[1:-1]), buffer[start + 4 + length :]

    def _answer(self, number: int, instruction: int, parameters: bytes) -> None:
        if instruction == _PING:
            for servo in self.servos if number == _ALL else [number]:
                self._reply(servo)
        elif instruction == _READ:
            self._read(number, *parameters)
        elif instruction == _WRITE:
            self._write(number, parameters[0], parameters[1:])
            self._reply(number)
        elif instruction == _SYNC_READ:
            for servo in parameters[2:]:
                self._read(servo, *parameters[:2])
        elif instruction == _SYNC_WRITE:
            address, width = parameters[:2]
            for start in range(2, len(parameters), width + 1):
                self._write(parameters[start], address, parameters[start + 1 : start + 1 + width])
            if address == GOAL:
                self._goals += 1
                for servo, goals in self._silent_after.items():
                    self.servos[servo].answers &= self._goals < goals

    def _read(self, number: int, address: int, length: int) -> None:
        if number in self.servos:
            self._reply(number, bytes(self.servos[number].table[address : address + length]))

    def _write(self, number: int, address: int, data: bytes) -> None:
        if number in self.servos and self.servos[number].answers:
            self.writes.append(Write(time.monotonic(), number, address, data))
            self.servos[number].write(address, data)

    def _reply(self, number: int, data: bytes = b"") -> None:
        if number in self.servos and self.servos[number].answers:
            packet = bytes([number, len(data) + 2, 0]) + data
            os.write(self._master, b"\xff\xff" + packet + bytes([~sum(packet) & 0xFF]))
