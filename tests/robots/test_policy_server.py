"""`lerobot-gem-server` as a subprocess: with LeRobot's unmodified client and an emulated arm, and with all that a client may do wrong."""

import logging
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import pytest
from lerobot.async_inference.helpers import RemotePolicyConfig, TimedObservation
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import TransferState, send_bytes_in_chunks
from lerobot.utils.feature_utils import hw_to_dataset_features

from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from tests.robots.conftest import FPS, NAMES, SIZE, TASK, save_policy, write_arm_dataset
from tests.robots.feetech_bus import MIDDLE, FeetechBus

CHUNK = 8
SERVER = "lerobot_gem.scripts.server"


class Server:
    """`lerobot-gem-server` on a free port, whose log is kept in a file.

    Args:
        folder: Of the log.
        *options: Of the command.
        through: What the command is started through.
    """

    def __init__(self, folder: Path, *options: str, through: tuple[str, ...] = ()) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.options = [f"--port={self.port}", f"--fps={FPS}", "--obs_queue_timeout=0.5", *options]
        self.folder, self.log, self.through = folder, folder / "server.log", through

    def __enter__(self) -> "Server":
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*self.through, sys.executable, "-m", SERVER, *self.options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        try:
            self.wait_for("PolicyServer started on 127.0.0.1")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def wait_for(self, text: str, seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < until, f"no {text!r} in {self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    def client(self) -> "Client":
        return Client(self.port)


class Client:
    """What LeRobot's client sends, one message at a time."""

    def __init__(self, port: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own, as another machine has
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self.stub = services_pb2_grpc.AsyncInferenceStub(self.channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def ready(self) -> None:
        self.stub.Ready(services_pb2.Empty())

    def start(self, policy: Path, **changes: Any) -> None:
        self.ready()
        self.stub.SendPolicyInstructions(services_pb2.PolicySetup(data=instructions(policy, **changes)))

    def observe(self, step: int, **changes: Any) -> None:
        parts = send_bytes_in_chunks(pickle.dumps(observation(step, **changes)), services_pb2.Observation)
        self.stub.SendObservations(parts)

    def actions(self) -> list[Any]:
        data = self.stub.GetActions(services_pb2.Empty()).data
        return pickle.loads(data) if data else []

    def acts(self, policy: Path) -> None:
        """Go the whole way, and look at what comes."""
        self.start(policy)
        self.observe(5)
        actions = self.actions()
        assert [action.get_timestep() for action in actions] == list(range(5, 5 + CHUNK))
        assert all(action.get_action().shape == (len(NAMES),) for action in actions)


def instructions(
    policy: Path, *, names: list[str] = NAMES, cameras: tuple[str, ...] = ("front",), **changes: Any
) -> bytes:
    values = {"policy_type": "gem_vla", "pretrained_name_or_path": str(policy), "actions_per_chunk": CHUNK}
    return pickle.dumps(
        RemotePolicyConfig(**{**values, "lerobot_features": features(names, cameras), **changes})
    )


def features(names: list[str], cameras: tuple[str, ...] = ()) -> dict[str, Any]:
    hardware = {**dict.fromkeys(names, float), **dict.fromkeys(cameras, (SIZE, SIZE, 3))}
    return hw_to_dataset_features(hardware, "observation", use_video=False)


def observation(step: int, **changes: Any) -> TimedObservation:
    values = {**dict.fromkeys(NAMES, 1.0), "front": np.full((SIZE, SIZE, 3), 120, np.uint8), "task": TASK}
    return TimedObservation(
        timestamp=time.time(), timestep=step, observation={**values, **changes}, must_go=True
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The module; LeRobot's makes a folder of logs here and sets logging up anew when it is imported."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from lerobot_gem.robots import policy_server

    yield policy_server
    root.handlers[:], root.level = handlers, level


def test_the_address_is_this_machine_alone(module: Any):
    assert module.ServerConfig().host == "127.0.0.1"
    for host in ("127.0.0.1", "127.1.2.3", "localhost", "[::1]"):
        assert not any("open to other machines" in line for line in module.trust(host))
    for host in ("0.0.0.0", "192.168.1.5", "[::]", "robot.local"):
        assert any("open to other machines" in line for line in module.trust(host))
    assert "pickles" in module.trust("127.0.0.1")[0]


@pytest.mark.parametrize(
    "options",
    [{"fps": 0}, {"port": 0}, *({"action_deadline": float(value)} for value in ("0", "-1", "nan", "inf"))],
)
def test_options_are_checked(module: Any, options: dict[str, float]):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=rf"{name}={value}: expected|Port must be"):
        module.ServerConfig(**options)


def test_late_actions_are_logged_with_their_deadline(module: Any, caplog: pytest.LogCaptureFixture):
    server = module.GemPolicyServer(module.ServerConfig(fps=10))
    server.actions_per_chunk = 8
    with caplog.at_level(logging.INFO):
        server._note(0.399)
        server._note(0.401)
        server._say_how_punctual()
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said[0] == ("INFO", "Actions left after 399 ms (deadline 400 ms).")
    late = "Late: actions left after 401 ms, and the deadline is 400 ms. Late so far: 1 of 2."
    assert said[1] == ("WARNING", late)
    assert said[2][1].endswith("had 2 chunks, 1 of them late; the slowest took 401 ms.")


@pytest.mark.parametrize(
    ("trained", "level", "said"),
    [
        (10.0, "INFO", "which is not sent: give the client --fps=10."),
        (30.0, "WARNING", "fps=10 here, and the policy's training data has 30 frames per second. "),
        (30.0, "WARNING", "give server and the client --fps=30."),
        (None, "WARNING", "is not known: its client needs it as --fps."),
    ],
)
def test_the_rate_that_the_client_needs_is_logged(
    module: Any, caplog: pytest.LogCaptureFixture, trained: float | None, level: str, said: str
):
    with caplog.at_level(logging.INFO):
        module.GemPolicyServer(module.ServerConfig(fps=10))._say_rate(trained)
    [record] = caplog.records
    assert record.levelname == level and said in record.getMessage()


def test_a_rate_of_no_arm_is_refused(module: Any):
    with pytest.raises(ValueError, match="The training data's rate is -1.0 Hz"):
        module.GemPolicyServer(module.ServerConfig(fps=10))._say_rate(-1.0)


@pytest.mark.parametrize("reads_state", [False, True])
def test_motors_in_another_order_are_refused_whatever_the_policy_reads(module: Any, reads_state: bool):
    server = module.GemPolicyServer(module.ServerConfig(fps=10))
    config = GemVLAConfig(preset="tiny", device="cpu", action_feature_names=NAMES)
    if reads_state:
        config.input_features = {"observation.state": PolicyFeature(FeatureType.STATE, (len(NAMES),))}
        config.built.state_names = NAMES
    for names in (NAMES, [f"main_{name}" for name in NAMES], [])[: 1 if reads_state else 3]:
        server._check_robot(config, features(names))
    with pytest.raises(ValueError) as refused:
        server._check_robot(config, features(NAMES[::-1]))
    assert str(refused.value).count("values would go to the wrong joints") == 1


@pytest.mark.parametrize(("asked", "sent"), [(50, 8), (8, 8), (3, 3)])
def test_more_actions_than_a_chunk_has_are_told_once(
    module: Any, caplog: pytest.LogCaptureFixture, asked: int, sent: int
):
    server = module.GemPolicyServer(module.ServerConfig(fps=10))
    server.actions_per_chunk = asked
    server._limit_actions(8)
    assert server.actions_per_chunk == sent
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == (asked > sent)
    assert all("actions_per_chunk=50" in line and "Give it --actions_per_chunk=8." in line for line in said)
    assert server._deadline() == pytest.approx(0.5 * sent / 10)


class Call:
    """What gRPC tells of a call: its client."""

    def __init__(self, client: str) -> None:
        self.client = client

    def peer(self) -> str:
        return self.client

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise grpc.RpcError(details)


def test_a_client_that_waited_does_not_replace_the_policy_of_the_next(module: Any):
    server = module.GemPolicyServer(module.ServerConfig(fps=10))

    class Overtaken:
        """A lock that the second client has before the first."""

        def __enter__(self) -> None:
            server.Ready(None, Call("second"))
            server.policy, server._loaded_for = "the second's", "second"

        def __exit__(self, *_: object) -> None:
            pass

    server.Ready(None, Call("first"))
    server._using_policy = Overtaken()
    request = services_pb2.PolicySetup(data=instructions(Path("x")))
    with pytest.raises(grpc.RpcError, match="Another client has come since"):
        server.SendPolicyInstructions(request, Call("first"))
    assert (server.policy, server._loaded_for) == ("the second's", "second")


@pytest.mark.slow
def test_a_policy_that_is_loaded_too_late_is_not_the_next_clients(
    module: Any, arm_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "SUPPORTED_POLICIES", module.SUPPORTED_POLICIES)
    module.SUPPORTED_POLICIES.append("gem_vla")
    server = module.GemPolicyServer(module.ServerConfig(fps=10))
    server.Ready(None, Call("first"))
    monkeypatch.setattr(server, "_say_rate", lambda _: server.Ready(None, Call("second")))
    request = services_pb2.PolicySetup(data=instructions(arm_policy))
    server.SendPolicyInstructions(request, Call("first"))
    assert server.policy is not None
    with pytest.raises(grpc.RpcError, match="No policy: expected SendPolicyInstructions first"):
        server.SendObservations(iter([]), Call("second"))


def test_an_observation_of_the_last_client_is_not_acted_on(module: Any):
    """It was on its way when the next client came."""
    server = module.GemPolicyServer(module.ServerConfig(fps=10))
    server._client = server._loaded_for = "first"

    def overtaken() -> Iterator[Any]:
        server.Ready(None, Call("second"))
        server._loaded_for = "second"
        yield services_pb2.Observation(
            transfer_state=TransferState.TRANSFER_END, data=pickle.dumps(observation(0))
        )

    server.SendObservations(overtaken(), Call("first"))
    assert not server.observation_queue.empty()
    assert server.GetActions(None, Call("second")) == services_pb2.Empty()


@pytest.mark.slow
@pytest.mark.usefixtures("with_camera_plugin")
def test_lerobots_unmodified_client_moves_an_arm(
    server: Server, arm_policy: Path, arm_options: Callable, tmp_path: Path
):
    with FeetechBus() as bus:
        client = subprocess.Popen(
            [
                *(sys.executable, "-m", "lerobot.async_inference.robot_client", *arm_options(bus.port)),
                f"--server_address=127.0.0.1:{server.port}",
                f"--pretrained_name_or_path={arm_policy}",
                *("--policy_type=gem_vla", f"--actions_per_chunk={CHUNK}", f"--fps={FPS}", f"--task={TASK}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        until = time.monotonic() + 120
        while len(bus.goals()) < 3 * CHUNK and client.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        client.send_signal(signal.SIGINT)
        said = client.communicate(timeout=300)[0].decode()
        goals = np.array([places for _, places in bus.goals()])
        assert len(goals) >= 3 * CHUNK, said[-3000:]
        assert np.abs(goals - MIDDLE).max() > 20, "the arm moves"
        assert bus.torque() == []
    assert server.process.poll() is None


@pytest.mark.slow
@pytest.mark.usefixtures("with_camera_plugin")
def test_a_client_that_is_killed_leaves_the_server_to_the_next(
    server: Server, arm_policy: Path, arm_options: Callable, tmp_path: Path
):
    with FeetechBus() as bus:
        client = subprocess.Popen(
            [
                *(sys.executable, "-m", "lerobot.async_inference.robot_client", *arm_options(bus.port)),
                f"--server_address=127.0.0.1:{server.port}",
                f"--pretrained_name_or_path={arm_policy}",
                *("--policy_type=gem_vla", f"--actions_per_chunk={CHUNK}", f"--fps={FPS}", f"--task={TASK}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        until = time.monotonic() + 120
        while not bus.goals() and time.monotonic() < until:
            time.sleep(0.1)
        client.kill()
        client.wait()
        assert bus.goals()
    with server.client() as following:
        following.acts(arm_policy)


@pytest.mark.slow
def test_a_client_that_asks_for_more_actions_gets_a_chunk(server: Server, arm_policy: Path):
    with server.client() as client:
        client.start(arm_policy, actions_per_chunk=50)
        server.wait_for("actions_per_chunk=50, but a chunk of the policy has 8 actions")
        client.observe(0)
        assert len(client.actions()) == CHUNK


@pytest.mark.slow
def test_ten_clients_in_turn(server: Server, arm_policy: Path):
    for _ in range(10):
        with server.client() as client:
            client.acts(arm_policy)


def parts(*messages: tuple[Any, bytes]) -> Iterator[Any]:
    for state, data in messages:
        yield services_pb2.Observation(transfer_state=state, data=data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("messages", "code", "said"),
    [
        ([(TransferState.TRANSFER_END, b"no pickle")], "INVALID_ARGUMENT", "No TimedObservation"),
        ([(TransferState.TRANSFER_END, b"")], "INVALID_ARGUMENT", "No TimedObservation"),
        (
            [(TransferState.TRANSFER_END, pickle.dumps(observation(1))[:-900])],
            "INVALID_ARGUMENT",
            "No TimedObservation",
        ),
        (
            [(TransferState.TRANSFER_BEGIN, pickle.dumps(observation(1)))],
            "INVALID_ARGUMENT",
            "TRANSFER_END",
        ),
        ([(TransferState.TRANSFER_UNKNOWN, b"")], "INVALID_ARGUMENT", "unknown transfer state"),
        ([], "INVALID_ARGUMENT", "ended early"),
        ([(TransferState.TRANSFER_END, bytes(5 * 2**20))], "RESOURCE_EXHAUSTED", "larger than max"),
        (
            [(TransferState.TRANSFER_MIDDLE, bytes(2**21))] * 40,
            "INVALID_ARGUMENT",
            "larger than 64 MiB",
        ),
        (
            [(TransferState.TRANSFER_END, pickle.dumps(subprocess.run))],
            "INVALID_ARGUMENT",
            "subprocess.run",
        ),
    ],
    ids=["malformed", "empty", "cut", "no-end", "unknown", "nothing", "large-part", "large", "function"],
)
def test_a_wrong_observation_is_refused(
    server: Server, arm_policy: Path, messages: list[tuple[Any, bytes]], code: str, said: str
):
    with server.client() as client:
        client.start(arm_policy)
        with pytest.raises(grpc.RpcError) as refused:
            client.stub.SendObservations(parts(*messages))
        assert refused.value.code().name == code, refused.value.details()
        assert said in refused.value.details()
        # The same client goes on.
        client.observe(0)
        assert len(client.actions()) == CHUNK


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no pickle", "No RemotePolicyConfig"),
        (instructions(Path("x"))[:-50], "No RemotePolicyConfig"),
        (pickle.dumps(subprocess.run), "subprocess.run"),
        (instructions(Path("x"), policy_type="act"), "'gem_vla' policies alone"),
        (instructions(Path("/nowhere/at/all")), "No checkpoint at '/nowhere/at/all'"),
        (
            instructions(Path("x"), device="gpu"),
            "policy_device='gpu': expected a device of the machine that loads the policy",
        ),
    ],
    ids=["malformed", "cut", "function", "other-type", "no-policy", "no-device"],
)
def test_wrong_instructions_are_refused(server: Server, data: bytes, said: str):
    with server.client() as client:
        client.ready()
        with pytest.raises(grpc.RpcError) as refused:
            client.stub.SendPolicyInstructions(services_pb2.PolicySetup(data=data))
        assert said in refused.value.details()
        with pytest.raises(grpc.RpcError, match="No policy: expected SendPolicyInstructions first"):
            client.observe(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": NAMES[::-1]}, "values would go to the wrong joints"),
        ({"names": NAMES[:5]}, "LeRobot would take the robot's order"),
        ({"cameras": ()}, "The robot has no camera"),
        ({"cameras": ("front", "wrist")}, "leave out others"),
    ],
    ids=["order", "fewer", "no-camera", "camera-more"],
)
def test_another_robot_is_refused_before_it_moves(
    server: Server, arm_policy: Path, changes: dict[str, Any], said: str
):
    with server.client() as client, pytest.raises(grpc.RpcError) as refused:
        client.start(arm_policy, **changes)
    assert said in refused.value.details()


@pytest.mark.slow
def test_a_chunk_that_fails_is_told_to_the_client(server: Server, tmp_path: Path):
    """LeRobot's server says that there is no observation, again and again."""
    policy = save_policy(write_arm_dataset(tmp_path / "data", tasks=("a", "b")), tmp_path / "policy")
    with server.client() as client:
        client.start(policy)
        client.observe(0, task="")
        with pytest.raises(grpc.RpcError, match="No task text"):
            client.actions()
        client.observe(1, task="a")
        assert len(client.actions()) == CHUNK
        with pytest.raises(grpc.RpcError, match="shoulder_pan"):
            client.stub.SendObservations(
                parts((TransferState.TRANSFER_END, pickle.dumps(observation(2, **{NAMES[0]: None}))))
            )


@pytest.mark.slow
def test_a_client_that_goes_in_the_middle_of_a_message(server: Server, arm_policy: Path):
    for _ in range(5):
        client = server.client()
        client.start(arm_policy)
        release = threading.Event()

        def half(release: threading.Event = release) -> Iterator[Any]:
            yield services_pb2.Observation(transfer_state=TransferState.TRANSFER_BEGIN, data=b"half")
            release.wait(10)

        client.stub.SendObservations.future(half())
        time.sleep(0.2)
        client.channel.close()
        release.set()
    with server.client() as following:
        following.acts(arm_policy)


@pytest.mark.slow
def test_the_last_client_that_is_ready_has_the_server(server: Server, arm_policy: Path):
    with server.client() as first, server.client() as second:
        first.acts(arm_policy)
        second.acts(arm_policy)
        for call in (first.actions, lambda: first.observe(9)):
            with pytest.raises(grpc.RpcError, match="Another client has come since"):
                call()
        first.acts(arm_policy)


@pytest.mark.slow
def test_a_gem_checkpoint_does_not_act(server: Server, make_gem: Callable, tmp_path: Path):
    make_gem(stage="joint")[0].save_pretrained(tmp_path / "gem")
    with server.client() as client, pytest.raises(grpc.RpcError) as refused:
        client.start(tmp_path / "gem")
    assert refused.value.details().startswith(
        "A `gem` policy is pre-trained to see and to answer, not to act."
    )


@pytest.mark.slow
def test_a_port_that_is_taken_ends_the_command(server: Server, tmp_path: Path):
    second = subprocess.run(
        [sys.executable, "-m", SERVER, f"--port={server.port}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert second.returncode == 1
    assert "is another server there?" in second.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "through"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ("env", "--ignore-signal=INT"))],
    ids=["interrupted", "terminated in a shell's background"],
)
def test_the_deadline_and_the_end(
    arm_policy: Path, tmp_path: Path, end: signal.Signals, through: tuple[str, ...]
):
    with Server(tmp_path, "--action_deadline=0.001", through=through) as server:
        said = server.log.read_text()
        assert "client unpickles whatever comes from its --server_address" in " ".join(said.split())
        with server.client() as client:
            client.acts(arm_policy)
        server.wait_for("and the deadline is 1 ms. Late so far: 1 of 1.")
        server.process.send_signal(end)
        assert server.process.wait(120) == 0
        log = server.log.read_text()
        assert re.search(r"had 1 chunks, 1 of them late; the slowest took \d+ ms", log)
        assert "trainable" not in log and "Traceback" not in log
