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
_LIBERO_ARM = "panda"
_LIBERO_CAMERAS = {f"{OBS_IMAGES}.image", f"{OBS_IMAGES}.image2"}
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


def _commands(config: BaseGemConfig, repo_id: str, dataset_meta: Any) -> dict[str, Any]:
    others = {}
    if config.type == "gem":
        # An adapter goes on in its own stage, and its depth is not looked at without its base.
        has_depth = "depth" in config.loss_weights and not config.use_peft
        later = [stage for stage in PRETRAINING if stage not in config.built.stages_done]
        if later and has_depth:
            others["The next stage of pre-training"] = _train(
                policy__path=repo_id, policy__stage=later[0], output_dir=f"outputs/train/{later[0]}"
            )
        others["To act, a `gem_vla` policy on it"] = _train(
            policy__type="gem_vla",
            policy__preset=config.preset,
            policy__backbone__pretrained=repo_id,
            output_dir="outputs/train/gem_vla",
        )
        if has_depth:
            others["What it knows of depth, on frames that have some"] = _command(
                "lerobot-gem-depth-viz",
                policy__path=repo_id,
                dataset__repo_id=_YOUR_DATA,
                output_dir="outputs/depth",
            )
    else:
        others["Go on with your own data (it is pushed nowhere unless you say so)"] = _train(
            policy__path=repo_id, output_dir="outputs/train/mine"
        )
    evaluation = _evaluation(config, repo_id)
    is_simulated = evaluation is not None and getattr(dataset_meta, "robot_type", None) == _LIBERO_ARM
    is_for_arms = config.type == "gem_vla" and not is_simulated
    return {
        "rollout": _rollout(config, repo_id, dataset_meta) if is_for_arms else None,
        "eval": evaluation,
        "others": others,
    }


def _train(**options: Any) -> str:
    return _command("lerobot-train", **options, dataset__repo_id=_YOUR_DATA)


def _command(name: str, **options: Any) -> str:
    """A command line; `__` in an option's name is a dot."""
    lines = [f"--{option.replace('__', '.')}={shlex.quote(str(value))}" for option, value in options.items()]
    return " \\\n    ".join([name, *lines])


def _rollout(config: BaseGemConfig, repo_id: str, dataset_meta: Any) -> str:
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
    tasks = _tasks(dataset_meta)
    return _command(
        "lerobot-rollout",
        policy__path=repo_id,
        task=tasks[0] if tasks else "pick up the cube",
        **({} if config.built.fps is None else {"fps": f"{config.built.fps:g}"}),
        duration=60,
        robot__type=robot if robot in _ARMS else _ARMS[-1],
        robot__port="/dev/ttyACM0",
        robot__id="my_arm",
        robot__cameras=json.dumps(cameras),
    )


def _evaluation(config: BaseGemConfig, repo_id: str) -> str | None:
    if config.type != "gem_vla" or not set(config.camera_names) <= _LIBERO_CAMERAS:
        return None
    width, height = (_cameras(config)[0][side] for side in ("width", "height"))
    return _command(
        "lerobot-eval",
        policy__path=repo_id,
        env__type="libero",
        env__task="libero_object",
        **({} if config.built.fps is None else {"env__fps": round(config.built.fps)}),
        env__observation_width=width,
        env__observation_height=height,
        eval__n_episodes=10,
        eval__batch_size=10,
    )


def _tasks(dataset_meta: Any) -> list[str]:
    return [] if dataset_meta is None else [str(task) for task in dataset_meta.tasks.index]


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
        "tasks": [task.replace("|", "\\|").replace("\n", " ") for task in tasks[:_MOST_TASKS]],
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
