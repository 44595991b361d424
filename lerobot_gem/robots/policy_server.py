"""LeRobot's async policy server for `gem_vla`: what a client sends is checked, and what goes wrong is told to the client."""

import ipaddress
import logging
import math
import pickle
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from queue import Empty
from typing import Any

import grpc
from lerobot.async_inference.configs import PolicyServerConfig
from lerobot.async_inference.constants import SUPPORTED_POLICIES
from lerobot.async_inference.helpers import TimedAction, TimedObservation
from lerobot.async_inference.policy_server import PolicyServer
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import receive_bytes_in_chunks
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE

from lerobot_gem.inference.control_rate import check_trained_rate
from lerobot_gem.inference.devices import check_device
from lerobot_gem.inference.motor_order import why_not_in_order
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.robots import checks
from lerobot_gem.robots.client_messages import bounded, read_instructions, read_observation
from lerobot_gem.robots.findings import Preflight

_POLICY_TYPE = "gem_vla"
# Share of a chunk's duration that its successor may take: LeRobot's client asks for it when half is left.
_SHARE_OF_CHUNK = 0.5
_THREADS = 16
_OPTIONS = [
    # A client that lost its power or its network answers no more: its connection is closed after 15 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A port that another server has is an error, and not shared with it.
    ("grpc.so_reuseport", 0),
]


@dataclass
class ServerConfig(PolicyServerConfig):
    """Options of the server: LeRobot's, and the deadline.

    Attributes:
        host: Address to listen at. There is no password: whoever reaches it can load policies and use the GPU.
        port: Port to listen at.
        fps: Actions per second, as in the client's `--fps`.
        inference_latency: Seconds that a chunk takes at least; a quicker one waits.
        obs_queue_timeout: Seconds until a client that asks for actions is told that there is no observation.
        action_deadline: Seconds from an observation's arrival until its actions leave; later ones are logged as warnings. Half of
            what a chunk lasts when None.
    """

    host: str = "127.0.0.1"
    action_deadline: float | None = None

    def __post_init__(self) -> None:
        if self.fps <= 0:
            raise ValueError(f"fps={self.fps}: expected actions per second, more than 0.")
        super().__post_init__()
        deadline = self.action_deadline
        if deadline is not None and not (math.isfinite(deadline) and deadline > 0):
            raise ValueError(f"action_deadline={deadline}: expected a finite number of seconds, more than 0.")


@dataclass
class _Arrived(TimedObservation):
    """An observation, when it came (time.perf_counter()), and from which client."""

    arrived: float = 0.0
    client: str = ""


@dataclass
class _Punctuality:
    """Chunks of one client: how many, how many of them late, and the slowest in seconds."""

    chunks: int = 0
    late: int = 0
    slowest: float = 0.0


class GemPolicyServer(PolicyServer):
    """LeRobot's policy server, for one client at a time: the one that said last that it is ready.

    Attributes:
        config: Options.
    """

    config: ServerConfig
    policy: Any
    actions_per_chunk: Any

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        # The policy is loaded, or predicts, but not both.
        self._using_policy = threading.Lock()
        # Whose turn it is, and whose policy is loaded. The former may change at any time, also while a policy is loaded.
        self._client: str | None = None
        self._loaded_for: str | None = None
        self._arrived = 0.0
        self._failure: Exception | None = None
        self._punctuality = _Punctuality()

    # What LeRobot's client calls

    def Ready(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._say_how_punctual()
        self._client, self._loaded_for = context.peer(), None
        return super().Ready(request, context)

    def SendPolicyInstructions(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        with self._using_policy:
            # Not before: another client may have come, and loaded its policy, while this one waited.
            self._check_turn(context)
            with self._telling_errors(context):
                self._load(request, context)
        return services_pb2.Empty()

    def SendObservations(self, request_iterator: Iterable[Any], context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._check_turn(context, must_be_loaded=True)
        with self._telling_errors(context):
            data = receive_bytes_in_chunks(bounded(request_iterator), None, self.shutdown_event, self.logger)
            if data is None:
                raise ValueError("The observation ended early: expected a last part marked TRANSFER_END.")
            observation = read_observation(data)
            self._enqueue_observation(
                _Arrived(**vars(observation), arrived=time.perf_counter(), client=context.peer())
            )
        return services_pb2.Empty()

    def GetActions(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._check_turn(context, must_be_loaded=True)
        with self._telling_errors(context):
            self._failure = None
            actions = super().GetActions(request, context)
            if self._failure is not None:
                raise self._failure
        # Another client may have come in the meantime; its robot is another one.
        self._check_turn(context)
        if isinstance(actions, services_pb2.Actions):
            self._note(time.perf_counter() - self._arrived)
        return actions

    def _predict_action_chunk(self, observation_t: TimedObservation) -> list[TimedAction]:
        """LeRobot's, whose caller logs an error and tells the client that there is no observation."""
        assert isinstance(observation_t, _Arrived)
        with self._using_policy:
            if observation_t.client != self._loaded_for:
                # It was on its way when another client came: to that one, there is no observation.
                raise Empty
            self._arrived = observation_t.arrived
            try:
                return super()._predict_action_chunk(observation_t)
            except Exception as error:
                self._failure = error
                raise

    # What is added

    def _load(self, request: Any, context: grpc.ServicerContext) -> None:
        """Load the policy that a client asks for.

        Raises:
            ValueError: It is no policy for this server, or for the client's robot.
        """
        instructions = read_instructions(request.data)
        if instructions.policy_type != _POLICY_TYPE:
            raise ValueError(
                f"policy_type={instructions.policy_type!r}: this server has {_POLICY_TYPE!r} policies alone. For others, start "
                "LeRobot's own: python -m lerobot.async_inference.policy_server."
            )
        check_device(instructions.device, "policy_device")
        # Of the last client: two policies may not fit into memory.
        self._loaded_for = None
        self.policy = self.preprocessor = self.postprocessor = self.last_processed_obs = None
        checked = services_pb2.PolicySetup(data=pickle.dumps(instructions))
        super().SendPolicyInstructions(checked, context)
        self._check_robot(self.policy.config, instructions.lerobot_features)
        self._say_rate(self.policy.config.built.fps)
        self._limit_actions(self.policy.config.chunk_size)
        self._loaded_for = context.peer()

    def _check_turn(self, context: grpc.ServicerContext, must_be_loaded: bool = False) -> None:
        """Refuse a client that is not the last one that said that it is ready: the queue has observations of one robot."""
        if context.peer() != self._client:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Another client has come since, or the connection was lost. Start this client again.",
            )
        if must_be_loaded and self._loaded_for != context.peer():
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, "No policy: expected SendPolicyInstructions first."
            )

    @contextmanager
    def _telling_errors(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Log an error, and give it to the client, whose call ends with it."""
        try:
            yield
        except grpc.RpcError:
            # gRPC has no name for a client whose connection is closed.
            self.logger.info("Client %s went away, or sent more than 4 MB in one part.", self._client)
            context.abort(grpc.StatusCode.CANCELLED, "The client went away.")
        except (ValueError, FileNotFoundError) as error:
            self.logger.warning("Refused what client %s sent: %s", context.peer(), error)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception as error:
            self.logger.exception("Client %s gets no answer.", context.peer())
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    def _check_robot(self, config: GemVLAConfig, features: dict[str, Any]) -> None:
        """Are the client's robot and its cameras those of the policy?

        The names of actions are not sent. LeRobot's robots have those of their state, in its order.

        Raises:
            ValueError: They are others, or in another order.
        """
        found = Preflight(str(config.pretrained_path), "the client's robot")
        names = list((features.get(OBS_STATE) or {}).get("names") or [])
        if config.state_feature is not None:
            checks.check_names(found, "state", names, list(config.built.state_names))
        if why := why_not_in_order(names, config.action_feature_names or []):
            found.add("names of the action", "error", why)
        prefix = f"{OBS_IMAGES}."
        cameras = {name: feature["shape"] for name, feature in features.items() if name.startswith(prefix)}
        missing, unknown = (
            set(config.camera_names) - cameras.keys(),
            cameras.keys() - config.image_features.keys(),
        )
        if missing or unknown:
            found.add(
                "cameras",
                "error",
                f"The robot has {', '.join(sorted(cameras)) or 'no camera'}, but the policy was trained with "
                f"{', '.join(config.image_features)}. Name the cameras so in --robot.cameras, and leave out others.",
            )
        else:
            wanted = {name: config.image_features[name].shape[1:] for name in config.camera_names}
            checks.check_cameras(
                found,
                {name: (size[0], size[1]) for name, size in wanted.items()},
                {name: (shape[0], shape[1]) for name, shape in cameras.items()},
            )
        for finding in found.findings:
            if finding.level == "warning":
                self.logger.warning("%s: %s", finding.subject, finding.text)
        # State and actions that are in the same other order are one mistake.
        errors = dict.fromkeys(finding.text for finding in found.findings if finding.level == "error")
        if errors:
            raise ValueError(" ".join(errors))

    def _say_rate(self, trained: float | None) -> None:
        """Log the rate at which the arm should act. The client sends actions at its own, and does not tell it: there is nothing to refuse.

        Args:
            trained: Frames per second of the training data; None where the checkpoint does not say.

        Raises:
            ValueError: The checkpoint says a rate at which no arm acts.
        """
        if trained is None:
            self.logger.warning(
                "The rate of the policy's training data is not known: its client needs it as --fps."
            )
            return
        check_trained_rate(trained)
        is_same = self.config.fps == trained
        self.logger.log(
            logging.INFO if is_same else logging.WARNING,
            "fps=%g here, and the policy's training data has %g frames per second. How fast the arm moves is decided by the client's --fps, "
            "which is not sent: give%s the client --fps=%g.",
            self.config.fps,
            trained,
            "" if is_same else " server and",
            trained,
        )

    def _limit_actions(self, chunk_size: int) -> None:
        """Send as many actions as a chunk has; log it where the client asked for more.

        Args:
            chunk_size: Of the policy.
        """
        if self.actions_per_chunk > chunk_size:
            self.logger.warning(
                "actions_per_chunk=%d, but a chunk of the policy has %d actions (its chunk_size): the client gets %d. Give it "
                "--actions_per_chunk=%d.",
                self.actions_per_chunk,
                *3 * [chunk_size],
            )
            self.actions_per_chunk = chunk_size

    def _deadline(self) -> float:
        if self.config.action_deadline is not None:
            return self.config.action_deadline
        return _SHARE_OF_CHUNK * self.actions_per_chunk / self.config.fps

    def _note(self, seconds: float) -> None:
        """Log how long a chunk took, from the arrival of its observation until it leaves."""
        deadline, seen = self._deadline(), self._punctuality
        seen.chunks += 1
        seen.slowest = max(seen.slowest, seconds)
        if seconds <= deadline:
            self.logger.info("Actions left after %.0f ms (deadline %.0f ms).", 1e3 * seconds, 1e3 * deadline)
            return
        seen.late += 1
        self.logger.warning(
            "Late: actions left after %.0f ms, and the deadline is %.0f ms. Late so far: %d of %d.",
            1e3 * seconds,
            1e3 * deadline,
            seen.late,
            seen.chunks,
        )

    def _say_how_punctual(self) -> None:
        seen, self._punctuality = self._punctuality, _Punctuality()
        if seen.chunks:
            self.logger.info(
                "Client %s had %d chunks, %d of them late; the slowest took %.0f ms.",
                self._client,
                seen.chunks,
                seen.late,
                1e3 * seen.slowest,
            )

    def stop(self) -> None:
        """Stop, and say how punctual the last client's actions were."""
        self._say_how_punctual()
        super().stop()


def serve(config: ServerConfig) -> None:
    """Serve until the process is interrupted (SIGINT) or told to end (SIGTERM).

    Raises:
        OSError: The address can't be listened at.
    """
    if _POLICY_TYPE not in SUPPORTED_POLICIES:
        SUPPORTED_POLICIES.append(_POLICY_TYPE)
    logging.info("%s", asdict(config))
    policy_server = GemPolicyServer(config)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=_THREADS), options=_OPTIONS)
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(policy_server, server)
    address = f"{config.host}:{config.port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(
            f"{address} can't be listened at: is another server there? Give another --port. Or is it no address of this "
            f"machine? Give another --host. ({error})"
        ) from error
    for line in trust(config.host):
        policy_server.logger.warning("%s", line)
    server.start()
    policy_server.logger.info("PolicyServer started on %s", address)
    try:
        # Of systemd and docker. A shell's background jobs ignore SIGINT.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server.wait_for_termination()
    except KeyboardInterrupt:
        policy_server.stop()
        server.stop(grace=1).wait()


def trust(host: str) -> list[str]:
    """What the transport trusts, in sentences for whoever starts the server."""
    lines = [
        "Messages are pickles, without password or encryption. This server unpickles numbers, text and arrays alone; LeRobot's "
        "client unpickles whatever comes from its --server_address, so that whoever answers there can run code at the robot.",
        "A client chooses which gem_vla checkpoint of this machine or of the Hub is loaded.",
    ]
    if not _is_loopback(host):
        lines.append(
            f"--host={host} is open to other machines. Use --host=127.0.0.1 and an SSH tunnel (ssh -L) unless you trust all of the network."
        )
    return lines


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
