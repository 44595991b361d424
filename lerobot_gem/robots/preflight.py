"""`lerobot-gem-preflight`: looks at arm, cameras and policy as `lerobot-rollout` would bring them together, and moves nothing."""

import logging
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.utils import prepare_observation_for_inference
from lerobot.processor import PolicyProcessorPipeline
from lerobot.robots import Robot, RobotConfig, make_robot_from_config
from lerobot.rollout import RolloutConfig
from lerobot.rollout.inference import RTCInferenceConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.utils.feature_utils import build_dataset_frame, hw_to_dataset_features
from peft import PeftConfig, PeftModel

from lerobot_gem.inference.motor_order import numbers
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.policies.loading import why_no_actions
from lerobot_gem.processing.steps import PromptStep
from lerobot_gem.robots import checks
from lerobot_gem.robots.findings import CameraPictures, JointRow, Preflight
from lerobot_gem.robots.reading import opened
from lerobot_gem.robots.training_facts import Array, TrainingFacts, training_facts

# Chunks that are timed. Those before them warm up: the first that continues no chunk, and the first that continues one.
_CHUNKS, _WARM_UP = 3, 2

_Loaded = tuple[Any, PolicyProcessorPipeline, PolicyProcessorPipeline]

logger = logging.getLogger(__name__)


@dataclass
class PreflightConfig(RolloutConfig):
    """The options of `lerobot-rollout`, and two more.

    Attributes:
        html: File to write the page with pictures to.
        training_data: Folder or repo id of the dataset that the policy was trained on; where the checkpoint says, if it is on this
            machine, when None.
    """

    html: Path | None = None
    training_data: str | None = None


def preflight(config: PreflightConfig) -> Preflight:
    """Look at everything, in the order in which it can go wrong.

    Once policy and training data are read, whatever goes wrong is one more finding: those before it are not lost.

    Raises:
        OSError: The policy or the training data can't be read.
        ValueError: The policy is not `gem_vla`, or can't be loaded.
    """
    assert config.robot is not None
    assert config.policy is not None
    path = str(config.policy.pretrained_path)
    if not isinstance(config.policy, GemVLAConfig):
        why = f" {why_no_actions(config.policy.preset, path)}" if isinstance(config.policy, GemConfig) else ""
        raise ValueError(
            f"{config.policy.type!r} policies are not looked at: expected a checkpoint of 'gem_vla'.{why}"
        )
    port = getattr(config.robot, "port", None)
    found = Preflight(path, _types(config.robot) + (f" at {port}" if port else ""))
    policy, preprocess, postprocess = _load(config)
    facts = training_facts(found, policy.config, preprocess, path, config.training_data)
    try:
        _look(found, config, (policy, preprocess, postprocess), facts)
    except Exception as error:  # each kind of robot has its own
        logger.exception("The preflight ended early.")
        found.add(
            "preflight",
            "error",
            f"It ended early, and did not look at the rest: {type(error).__name__}: {error}",
        )
    return found


def _look(found: Preflight, config: PreflightConfig, loaded: _Loaded, facts: TrainingFacts) -> None:
    assert config.robot is not None
    policy, preprocess, _ = loaded
    default = next((step.default_task for step in preprocess.steps if isinstance(step, PromptStep)), "")
    task = _task(config)
    checks.check_task(found, task, default, facts.tasks or [default] * bool(default))
    checks.check_rate(found, config.fps, facts.fps)
    if isinstance(config.inference, RTCInferenceConfig):
        policy.config.rtc_config = config.inference.rtc
        try:
            policy.init_rtc_processor()
        except ValueError as error:
            found.add("inference", "error", str(error))
            policy.config.rtc_config = None
    robot = make_robot_from_config(config.robot)
    names = _check_robot(found, robot, policy.config, facts, config.rename_map)
    with opened(robot, found) as observation:
        pass
    _look_at_pictures(found, config, observation, policy.config, facts)
    if _is_complete(observation, policy.config, config.rename_map):
        _act_once(found, config, task, robot, observation, names, loaded, facts)


def _task(config: PreflightConfig) -> str:
    """The text that lerobot-rollout acts on: that of the dataset which it records, where it records one."""
    return config.task if config.dataset is None else config.dataset.single_task


def _types(robot: RobotConfig) -> str:
    """Its type; all of them where LeRobot has several names for one, and can't tell which was given."""
    names = [name for name, choice in RobotConfig.get_known_choices().items() if choice is type(robot)]
    return " or ".join(sorted(names))


def _load(config: PreflightConfig) -> _Loaded:
    """Policy and processors, as lerobot-rollout loads them."""
    policy_config: Any = config.policy
    policy_config.compile_model = config.use_torch_compile
    path, revision = str(policy_config.pretrained_path), policy_config.pretrained_revision
    if policy_config.use_peft:
        adapter: Any = PeftConfig.from_pretrained(path, revision=revision)
        base = GemVLAPolicy.from_pretrained(
            adapter.base_model_name_or_path, config=policy_config, revision=adapter.revision
        )
        adapted = PeftModel.from_pretrained(base, path, config=adapter, revision=revision)
        policy: Any = adapted.get_base_model()  # with the adapter in its layers
    else:
        policy = GemVLAPolicy.from_pretrained(path, config=policy_config, revision=revision)
    policy = policy.to(config.device)
    policy.eval()
    pipelines = make_pre_post_processors(
        policy_cfg=policy_config,
        pretrained_path=path,
        pretrained_revision=revision,
        preprocessor_overrides={
            "device_processor": {"device": config.device},
            "rename_observations_processor": {"rename_map": config.rename_map},
        },
    )
    return policy, *pipelines


def _check_robot(
    found: Preflight, robot: Robot, config: GemVLAConfig, facts: TrainingFacts, renamed: dict[str, str]
) -> list[str]:
    """What can be told before anything is opened; returns the names of the robot's state."""
    names = numbers(robot.observation_features)
    if config.state_feature is not None:
        checks.check_names(found, "state", names, facts.names[OBS_STATE])
    checks.check_names(found, "action", numbers(robot.action_features), facts.names[ACTION])
    cameras = {
        _renamed(name, renamed): (shape[0], shape[1])
        for name, shape in robot.observation_features.items()
        if isinstance(shape, tuple) and shape[-1] == 3
    }
    wanted = {camera: config.image_features[camera].shape[1:] for camera in config.camera_names}
    checks.check_cameras(found, {camera: (size[0], size[1]) for camera, size in wanted.items()}, cameras)
    return names


def _renamed(camera: str, renamed: dict[str, str]) -> str:
    key = f"{OBS_IMAGES}.{camera}"
    return renamed.get(key, key)


def _pictures(observation: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    return {
        _renamed(name, renamed): value
        for name, value in observation.items()
        if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[-1] == 3
    }


def _is_complete(observation: dict[str, Any], config: GemVLAConfig, renamed: dict[str, str]) -> bool:
    has_state = any(name.endswith(".pos") for name in observation)
    return has_state and set(config.camera_names) <= set(_pictures(observation, renamed))


def _look_at_pictures(
    found: Preflight,
    config: PreflightConfig,
    observation: dict[str, Any],
    policy: GemVLAConfig,
    facts: TrainingFacts,
) -> None:
    live = _pictures(observation, config.rename_map)
    live = {camera: live[camera] for camera in policy.camera_names if camera in live}
    checks.check_pictures(found, live, facts.pictures)
    for camera in policy.camera_names:
        trained = facts.pictures.get(camera)
        found.pictures.append(
            CameraPictures(camera, live.get(camera), None if trained is None else trained[len(trained) // 2])
        )


def _act_once(
    found: Preflight,
    config: PreflightConfig,
    task: str,
    robot: Robot,
    observation: dict[str, Any],
    names: list[str],
    loaded: _Loaded,
    facts: TrainingFacts,
) -> None:
    """Predict chunks for what the robot observes, and compare the last with the training data."""
    policy, preprocess, postprocess = loaded
    state = np.array([observation[name] for name in names])
    lowest, highest = facts.lowest, facts.highest
    if policy.config.state_feature is not None:
        if OBS_STATE in lowest:
            checks.check_state(found, names, state, lowest[OBS_STATE], highest[OBS_STATE])
        else:
            checks.warn_of_no_range(found, "state")
    features = {name: kind for name, kind in robot.observation_features.items() if name in observation}
    frame = build_dataset_frame(
        hw_to_dataset_features(features, "observation"), observation, prefix="observation"
    )
    rtc = config.inference if isinstance(config.inference, RTCInferenceConfig) else None
    seconds: list[float] = []
    # Of the last chunk, as real-time chunking is told of it, which guides what continues a chunk.
    last: dict[str, Any] = {}
    try:
        for _ in range(_WARM_UP + _CHUNKS):
            began = time.perf_counter()
            inputs = prepare_observation_for_inference(
                dict(frame), torch.device(str(config.device)), task, robot.robot_type
            )
            normalised = policy.predict_action_chunk(preprocess(inputs), **last)
            chunk = postprocess(normalised)[0].numpy()
            seconds.append(time.perf_counter() - began)
            if rtc is not None:
                delay = math.ceil(seconds[-1] * config.fps)
                last = {"inference_delay": delay, "prev_chunk_left_over": normalised}
    except ValueError as error:
        found.add("actions", "error", str(error))
        return
    actions = facts.names[ACTION] or [f"action[{index}]" for index in range(chunk.shape[1])]
    trained = [side[ACTION] for side in (lowest, highest) if ACTION in side]
    if not checks.check_sizes(found, actions, chunk, *trained):
        return
    if ACTION in lowest:
        checks.check_chunk(found, actions, chunk, lowest[ACTION], highest[ACTION])
        if actions == names:
            checks.check_first_step(found, names, state, chunk[0], lowest[ACTION], highest[ACTION])
    else:
        checks.warn_of_no_range(found, "actions")
    checks.check_latency(
        found,
        statistics.median(seconds[_WARM_UP:]),
        config.fps,
        chunk_size=policy.config.chunk_size,
        executed=policy.config.n_action_steps,
        queue_threshold=None if rtc is None else rtc.queue_threshold,
        horizon=0 if rtc is None else rtc.rtc.execution_horizon,
        can_be_guided=policy.config.action_tokens.act == "flow",
    )
    found.joints = _joints(names, state, actions, chunk, facts)


def _joints(
    names: list[str], state: Array, actions: list[str], chunk: Array, facts: TrainingFacts
) -> list[JointRow]:
    def limits(key: str, known: list[str], name: str) -> tuple[float, float] | None:
        if key not in facts.lowest or name not in known or len(facts.lowest[key]) != len(known):
            return None
        position = known.index(name)
        return float(facts.lowest[key][position]), float(facts.highest[key][position])

    rows = []
    for name in dict.fromkeys([*names, *actions]):
        wanted = chunk[:, actions.index(name)] if name in actions else None
        rows.append(
            JointRow(
                name,
                float(state[names.index(name)]) if name in names else None,
                limits(OBS_STATE, names, name),
                None if wanted is None else float(wanted[0]),
                None if wanted is None else float(wanted.min()),
                None if wanted is None else float(wanted.max()),
                limits(ACTION, actions, name),
            )
        )
    return rows
