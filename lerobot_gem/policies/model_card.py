"""A policy's card on the Hub: one template for `gem`, `gem_vla` and adapters of them."""

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from lerobot.utils.constants import OBS_IMAGES

from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.results.report import results_beside
from lerobot_gem.training.stages import PRETRAINING

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
# A dataset of questions may have as many tasks as frames.
_MOST_TASKS = 20
_YOUR_DATA = "you/your_data"
_MERGED = "outputs/merged"
_LIBERO_CAMERAS = {f"{OBS_IMAGES}.image", f"{OBS_IMAGES}.image2"}
_LIBERO_ACTION_SIZE = 7
# What `simulation.so101_scene` has, which can't be imported here.
_SO101_CAMERAS = {f"{OBS_IMAGES}.front", f"{OBS_IMAGES}.side"}
_SO101_ACTION = ["delta.x", "delta.y", "delta.z", "gripper"]
# Of an episode, as in configs/env/so101_pick_place.yaml; the scripted policy takes 6 to 7.
_SO101_SECONDS = 12
# How LeRobot names the goal of a motor: <motor>.pos.
_OF_MOTOR = ".pos"
_ARMS = ("so100_follower", "so101_follower")


def make_model_card(
    config: BaseGemConfig,
    *,
    dataset: str | None = None,
    cfg: Any = None,
    dataset_meta: Any = None,
    pictures: Iterable[str] = (),
) -> ModelCard:
    """What a stranger must know to load the policy, run it, go on from it, and doubt it.

    Args:
        config: Of the policy.
        dataset: Hub id of the training dataset.
        cfg: The training run's configuration, when there is one; evaluations below its `output_dir` join the card.
        dataset_meta: Metadata of the training dataset, when there is one.
        pictures: Files that are pushed beside the card (policies/card_pictures.py).
    """
    kind = "adapter" if config.use_peft else config.type
    repo_id = config.repo_id or f"you/{config.type}"
    base = config.built.base_model
    public = [dataset] if dataset and not dataset.startswith("local/") else []
    card_data = ModelCardData(
        license=config.license or "apache-2.0",
        library_name="lerobot",
        pipeline_tag="robotics" if config.type == "gem_vla" else "image-text-to-text",
        tags=sorted({*(config.tags or ()), "robotics", "lerobot", "gem", config.type, "depth"}),
        model_name=repo_id.split("/")[-1],
        datasets=public or None,
        base_model=base or None,
    )
    if base:
        card_data["base_model_relation"] = "adapter" if kind == "adapter" else "finetune"
    output_dir = getattr(cfg, "output_dir", None)
    results = None if output_dir is None else results_beside(Path(output_dir))
    return ModelCard.from_template(
        card_data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        kind=kind,
        type=config.type,
        title=repo_id,
        adapter_type=_adapter_type(cfg),
        base=_base(config),
        preset=config.preset,
        stages=config.built.stages_done,
        losses=[f"{weight:g} x {name}" for name, weight in config.loss_weights.items()],
        depth=_depth(config),
        trainable=["the adapter"] if kind == "adapter" else _trainable(config),
        dtype=config.dtype,
        versions=", ".join(f"{name} {version}" for name, version in config.built.versions.items()),
        cameras=_cameras(config),
        pictures={file: _PICTURES[Path(file).stem] for file in pictures},
        fps=None if config.built.fps is None else f"{config.built.fps:g}",
        commands=_commands(config, repo_id, dataset_meta),
        python_path=_MERGED if kind == "adapter" else repo_id,
        example_task=repr(_example_task(dataset_meta)),
        dataset=_dataset(dataset, bool(public), dataset_meta),
        training=_training(cfg),
        results=results,
        limits=_limits(config, has_results=results is not None),
        **_numbers(config),
    )


_PICTURES = {
    "rollout": "A rollout, from left to right",
    "depth": "RGB, true and generated depth, for each camera",
}


def _adapter_type(cfg: Any) -> str:
    peft = getattr(cfg, "peft", None)
    return str(getattr(peft, "method_type", None) or "LoRA").upper().replace("LORA", "LoRA")


def _base(config: BaseGemConfig) -> str:
    built = config.built
    if not built.base_model:
        is_random = config.backbone.pretrained is None
        return "random weights" if is_random else "a folder that does not say where it is from"
    commit = f", commit `{built.base_revision}`" if built.base_revision else ""
    return f"[{built.base_model}](https://huggingface.co/{built.base_model}){commit}"


def _trainable(config: BaseGemConfig) -> list[str]:
    without_depth = set() if "depth" in config.loss_weights else {"connector", "transformer"}
    return sorted(name.replace("_", " ") for name in config.trainable_parts - without_depth)


def _depth(config: BaseGemConfig) -> str:
    if "depth" not in config.loss_weights:
        return "off: no depth loss in the last stage"
    cameras = ", ".join(f"`{name}`" for name in config.built.depth_cameras) or "none"
    if config.depth.target == "rgb":
        return (
            f"off: the control arm, whose generator painted the pictures of {cameras} instead of their depth"
        )
    return f"on: generated for {cameras}, colours `{config.depth.colormap}`"


def _cameras(config: BaseGemConfig) -> list[dict[str, Any]]:
    cameras = []
    for position, key in enumerate(config.camera_names):
        _, height, width = (*config.image_features[key].shape, "?", "?")[:3]
        cameras.append(
            {"key": key, "width": width, "height": height, "note": f"image {position + 1} of the prompt"}
        )
    return cameras


def _numbers(config: Any) -> dict[str, Any]:
    """Of `gem_vla`, which reads a state and makes actions."""
    state = config.state_feature
    return {
        "state_dim": None if state is None else state.shape[0],
        "state_names": config.built.state_names,
        "action_dim": config.built.action_dim,
        "action_names": getattr(config, "action_feature_names", None) or [],
        "chunk_size": getattr(config, "chunk_size", 0),
        "n_action_steps": getattr(config, "n_action_steps", 0),
    }


def _commands(config: BaseGemConfig, repo_id: str, dataset_meta: Any) -> dict[str, str]:
    """What each command is for -> the command."""
    if config.type == "gem":
        return _commands_of_gem(config, repo_id)
    further = "Go on with your own data (it is pushed nowhere unless you say so)"
    return {
        **(_on_a_robot(config, repo_id, dataset_meta) or _in_a_simulator(config, repo_id)),
        **_merging(config, repo_id),
        further: _train(policy__path=repo_id, output_dir="outputs/train/mine"),
    }


def _commands_of_gem(config: BaseGemConfig, repo_id: str) -> dict[str, str]:
    commands = {}
    # An adapter goes on in its own stage, and its depth is not looked at without its base.
    has_depth = "depth" in config.loss_weights and not config.use_peft
    later = [stage for stage in PRETRAINING if stage not in config.built.stages_done]
    if later and has_depth:
        commands["The next stage of pre-training"] = _train(
            policy__path=repo_id, policy__stage=later[0], output_dir=f"outputs/train/{later[0]}"
        )
    commands["To act, a `gem_vla` policy on it"] = _train(
        policy__type="gem_vla",
        policy__preset=config.preset,
        policy__backbone__pretrained=repo_id,
        output_dir="outputs/train/gem_vla",
    )
    if has_depth:
        commands["What it knows of depth, on frames that have some"] = _command(
            "lerobot-gem-depth-viz",
            policy__path=repo_id,
            dataset__repo_id=_YOUR_DATA,
            output_dir="outputs/depth",
        )
    return commands


def _train(**options: Any) -> str:
    return _command("lerobot-train", **options, dataset__repo_id=_YOUR_DATA)


def _command(name: str, **options: Any) -> str:
    """A command line; `__` in an option's name is a dot."""
    lines = [f"--{option.replace('__', '.')}={shlex.quote(str(value))}" for option, value in options.items()]
    return " \\\n    ".join([name, *lines])


def _on_a_robot(config: Any, repo_id: str, dataset_meta: Any) -> dict[str, str]:
    """Commands of real arms; none where the actions are not known to be motors' goals, since LeRobot finds that out with torque on."""
    names = config.action_feature_names or []
    if not names or not all(str(name).endswith(_OF_MOTOR) for name in names):
        return {}
    cameras = {
        camera["key"].removeprefix(f"{OBS_IMAGES}."): {
            "type": "opencv",
            "index_or_path": position,
            "width": camera["width"],
            "height": camera["height"],
            "fps": 30,
        }
        for position, camera in enumerate(_cameras(config))
    }
    robot = getattr(dataset_meta, "robot_type", None)
    options = {
        "policy__path": repo_id,
        "task": _example_task(dataset_meta),
        **({} if config.built.fps is None else {"fps": f"{config.built.fps:g}"}),
        "robot__type": robot if robot in _ARMS else _ARMS[-1],
        "robot__port": "/dev/ttyACM0",
        "robot__id": "my_arm",
        "robot__cameras": json.dumps(cameras),
    }
    return {
        "On a robot, first what compares it with the policy and moves nothing. Set port, name and camera indices to those of yours; cameras must "
        "have the names of training, or give `--rename_map`": _command("lerobot-gem-preflight", **options),
        "Then the robot moves, by the same options": _command("lerobot-rollout", **options, duration=60),
    }


def _in_a_simulator(config: Any, repo_id: str) -> dict[str, str]:
    """The evaluation where the policy was trained, if that is a simulator that is known."""
    cameras, fps = set(config.camera_names), config.built.fps
    if cameras <= _SO101_CAMERAS and config.action_feature_names == _SO101_ACTION:
        rate = {} if fps is None else {"fps": round(fps), "episode_length": round(_SO101_SECONDS * fps)}
        return {
            "In the simulated SO-101 that it was trained in (`pip install '.[so101]'`)": _evaluation(
                config, repo_id, type="gem_so101", **rate
            )
        }
    if cameras <= _LIBERO_CAMERAS and config.built.action_dim == _LIBERO_ACTION_SIZE:
        rate = {} if fps is None else {"fps": round(fps)}
        return {
            "In LIBERO, whose cameras it was trained with (`pip install '.[libero]'`)": _evaluation(
                config, repo_id, type="libero", task="libero_object", **rate
            )
        }
    return {}


def _evaluation(config: BaseGemConfig, repo_id: str, **environment: Any) -> str:
    width, height = (_cameras(config)[0][side] for side in ("width", "height"))
    return _command(
        "lerobot-eval",
        policy__path=repo_id,
        **{f"env__{name}": value for name, value in environment.items()},
        env__observation_width=width,
        env__observation_height=height,
        eval__n_episodes=10,
        eval__batch_size=10,
    )


def _merging(config: BaseGemConfig, repo_id: str) -> dict[str, str]:
    """How an adapter becomes a policy that Python loads."""
    if not config.use_peft:
        return {}
    return {
        "Merged with its base": _command(
            "lerobot-gem-convert", policy__path=repo_id, format="policy", output_dir=_MERGED
        )
    }


def _tasks(dataset_meta: Any) -> list[str]:
    """Each in one line, since a line of a task could end a table or a block of code."""
    return [] if dataset_meta is None else [" ".join(str(task).split()) for task in dataset_meta.tasks.index]


def _example_task(dataset_meta: Any) -> str:
    return (*_tasks(dataset_meta), "pick up the cube")[0]


def _dataset(name: str | None, is_public: bool, meta: Any) -> dict[str, Any] | None:
    if meta is None:
        return None
    tasks = _tasks(meta)
    link = f"[{name}](https://huggingface.co/datasets/{name})"
    return {
        "name": link if is_public else f"`{name or meta.repo_id}`, which is not public",
        "episodes": meta.total_episodes,
        "frames": meta.total_frames,
        "fps": meta.fps,
        "robot_type": meta.robot_type,
        "tasks": [task.replace("|", "\\|") for task in tasks[:_MOST_TASKS]],
        "more_tasks": max(len(tasks) - _MOST_TASKS, 0),
    }


def _training(cfg: Any) -> Mapping[str, Any]:
    steps = getattr(cfg, "steps", None)
    if steps is None:
        return {}
    optimizer = getattr(cfg, "optimizer", None)
    return {
        "steps": steps,
        "batch size of each process": cfg.batch_size,
        "optimiser, learning rate": f"{getattr(optimizer, 'type', '?')}, {getattr(optimizer, 'lr', '?')}",
        "seed": cfg.seed,
    }


def _limits(config: BaseGemConfig, *, has_results: bool) -> list[str]:
    limits = []
    if config.type == "gem_vla":
        limits.append(
            "It was trained for the robot, cameras, rate and tasks above. With another arm, another order of motors, moved cameras or "
            "another task it acts all the same, and wrongly."
        )
        limits.append(
            "It knows no limits of force, speed or workspace: keep those of the robot, and a hand on the emergency stop."
        )
    else:
        limits.append("It does not act, and its answers may be wrong.")
        limits.append("Depth that it generates is relative: it has no scale.")
    if config.preset == "tiny":
        limits.append("`tiny` is made to try things out: it knows little beyond its training data.")
    skipped = [stage for stage in PRETRAINING if stage not in config.built.stages_done]
    if config.type == "gem_vla" and skipped:
        limits.append(
            f"GEM's pre-training ({', '.join(skipped)}) is not among its stages, which costs accuracy (arXiv 2605.28548, ablation)."
        )
    if has_results:
        limits.append(
            "Success rates above are of the environment that they name, with their interval; none is a promise."
        )
    return limits
