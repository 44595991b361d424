"""What a policy's card on the Hub says, and that its commands are understood."""

import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import draccus
import pytest
from huggingface_hub import ModelCard
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.rollout.configs import RolloutConfig
from lerobot.scripts.lerobot_eval import EvalPipelineConfig

from lerobot_gem.checkpoints.convert import ConvertConfig
from lerobot_gem.envs.configuration_so101 import SO101EnvConfig
from lerobot_gem.evaluation.depth_report import DepthReportConfig
from lerobot_gem.policies.model_card import make_model_card
from lerobot_gem.robots.preflight import PreflightConfig
from tests.conftest import ACTION_DIM, CAMERAS, TASKS
from tests.results.test_eval_info import write_eval_info
from tests.robots.conftest import write_arm_dataset

PARSERS = {
    "lerobot-train": TrainPipelineConfig,
    "lerobot-eval": EvalPipelineConfig,
    "lerobot-rollout": RolloutConfig,
    "lerobot-gem-convert": ConvertConfig,
    "lerobot-gem-depth-viz": DepthReportConfig,
    "lerobot-gem-preflight": PreflightConfig,
}
MOTORS = [f"joint_{number}.pos" for number in range(ACTION_DIM)]
SCRIPTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]


def card_of(policy, root: Path, **values) -> ModelCard:
    meta = LeRobotDatasetMetadata("local/noise", root=root)
    return make_model_card(policy.config, dataset="me/data", dataset_meta=meta, **values)


def commands(card: ModelCard) -> list[list[str]]:
    """The command lines of a card, in words as a shell reads them."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", card.text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("lerobot-")]


@pytest.mark.parametrize("tasks", [2, 500])
def test_the_model_card_says_how_to_load_the_policy(make_policy, dataset_root: Path, tasks: int) -> None:
    policy, *_ = make_policy()
    meta = LeRobotDatasetMetadata("local/noise", root=dataset_root)
    if tasks > 2:
        meta.tasks = meta.tasks.iloc[[0] * tasks]
    card = policy.generate_model_card("local/noise", "gem_vla", "apache-2.0", None, dataset_meta=meta)
    title, *_ = card.text.strip().splitlines()
    assert title.startswith("# Model Card") and card.data.license == "apache-2.0"
    # Not by its name, which somebody else could register.
    assert "\npip install .\n" in card.text and "pip install lerobot_policy_gem" not in card.text
    assert "not on PyPI yet" in card.text and "2605.28548" in card.text
    assert card.text.count(TASKS[0]) <= 22 and len(meta.tasks) == tasks
    assert card.data.datasets is None and "`local/noise`, which is not public" in card.text


def test_evaluations_of_the_run_join_the_card(make_policy, dataset_root: Path, tmp_path: Path) -> None:
    policy, *_ = make_policy()
    cfg = SimpleNamespace(output_dir=tmp_path)
    assert "None lies beside the checkpoint" in card_of(policy, dataset_root, cfg=cfg).text
    write_eval_info(tmp_path / "eval", {("libero_object", 9): [True] * 26 + [False] * 4})
    card = card_of(policy, dataset_root, cfg=cfg, pictures=["assets/rollout.png"])
    assert "| eval | libero_object | 9 | 30 | 86.7% | 70.3% to 94.7% |" in card.text
    assert "(assets/rollout.png)" in card.text


def test_what_an_action_policy_needs_is_on_its_card(make_policy, dataset_root: Path) -> None:
    policy, *_ = make_policy()
    policy.config.built.base_model, policy.config.built.base_revision = "author/base", "c0ffee"
    policy.config.repo_id, policy.config.tags = "me/policy", ["arm"]
    policy.config.action_feature_names = MOTORS
    card = card_of(policy, dataset_root)
    assert (card.data.base_model, card.data.base_model_relation) == ("author/base", "finetune")
    assert card.data.datasets == ["me/data"] and {"gem", "gem_vla", "arm"} <= set(card.data.tags)
    for needed in (
        *(f"| `{camera}` | 64 x 64 | image {i + 1} of the prompt |" for i, camera in enumerate(CAMERAS)),
        "| stages that trained it | action |",
        "commit `c0ffee`",
        "**5 actions per second**",
        "off: no depth loss",
        "lerobot_policy_gem 0.",
        "--fps=5",
        "2605.28548}",
        "## Limits",
    ):
        assert needed in card.text, needed
    assert "_depth" not in card.text


@pytest.mark.parametrize(
    "names", [None, ["x", "y", "z", "a", "b", "c", "gripper"], [*MOTORS[:-1], "base.vel"]]
)
def test_what_does_not_drive_motors_is_offered_no_arm(
    make_policy, dataset_root: Path, names: list | None
) -> None:
    """With LIBERO's cameras, LIBERO; in Python, all that was trained."""
    policy, *_ = make_policy()
    policy.config.action_feature_names = names
    card = card_of(policy, dataset_root)
    assert [name for name, *_ in commands(card)] == ["lerobot-eval", "lerobot-train"]
    assert "--env.type=libero" in card.text and "robot.type" not in card.text
    policy.config.built.action_dim = 6
    assert [name for name, *_ in commands(card_of(policy, dataset_root))] == ["lerobot-train"]


def test_what_was_trained_in_the_simulated_so101_is_evaluated_there(make_policy, tmp_path: Path) -> None:
    from lerobot_gem.simulation.so101_scene import ACTION_NAMES, CAMERAS

    root = write_arm_dataset(tmp_path / "arm", cameras=CAMERAS)
    policy, *_ = make_policy(root)
    policy.config.action_feature_names = [*ACTION_NAMES]
    (name, *options), *others = commands(card_of(policy, root))
    assert name == "lerobot-eval" and [other for other, *_ in others] == ["lerobot-train"]
    parsed = draccus.parse(EvalPipelineConfig, args=parser.filter_path_args(["policy"], options))
    expected = SO101EnvConfig(fps=10, episode_length=120, observation_height=64, observation_width=64)
    assert parsed.env == expected and set(policy.config.camera_names) <= {*expected.features_map.values()}


def test_a_task_of_several_lines_stays_in_its_block(make_policy, dataset_root: Path) -> None:
    policy, *_ = make_policy()
    policy.config.action_feature_names = MOTORS
    meta = LeRobotDatasetMetadata("local/noise", root=dataset_root)
    meta.tasks = meta.tasks.rename(index={meta.tasks.index[0]: "pick\n```\nrm -rf ~\n```bash\n| up"})
    card = make_model_card(policy.config, dataset_meta=meta)
    names = [name for name, *_ in commands(card)]
    assert names == ["lerobot-gem-preflight", "lerobot-rollout", "lerobot-train"]
    assert "--task=pick ``` rm -rf ~ ```bash | up" in commands(card)[1]
    assert "| tasks | pick ``` rm -rf ~ ```bash \\| up; " in card.text


def test_a_gem_card_offers_no_robot(make_gem, depth_dataset_root: Path) -> None:
    policy, *_ = make_gem(stage="joint")
    card = card_of(policy, depth_dataset_root)
    assert "lerobot-rollout" not in card.text and "lerobot-eval" not in card.text
    assert f"on: generated for `{CAMERAS[0]}`, `{CAMERAS[1]}`, colours `spectral`" in card.text
    assert "1 x language, 0.1 x depth" in card.text
    assert "--policy.backbone.pretrained=you/gem" in card.text


def test_an_adapter_says_what_of(make_policy, dataset_root: Path) -> None:
    policy, *_ = make_policy()
    policy.config.use_peft, policy.config.built.base_model = True, "author/base"
    card = card_of(policy, dataset_root)
    assert "An adapter (LoRA) for [author/base](https://huggingface.co/author/base)" in card.text
    assert (card.data.base_model, card.data.base_model_relation) == ("author/base", "adapter")


KINDS = {
    "gem": ["lerobot-train", "lerobot-train", "lerobot-gem-depth-viz"],
    "gem_vla": ["lerobot-eval", "lerobot-train"],
    "adapter": ["lerobot-eval", "lerobot-gem-convert", "lerobot-train"],
    "arm": ["lerobot-gem-preflight", "lerobot-rollout", "lerobot-train"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_its_commands_are_understood(
    kind: str,
    make_gem: Callable,
    make_policy: Callable,
    depth_dataset_root: Path,
    tmp_path: Path,
    monkeypatch,
) -> None:
    """By the parsers of the commands themselves, with the checkpoint in place of its Hub id."""
    policy, *_ = make_gem(stage="joint") if kind == "gem" else make_policy()
    if kind == "arm":
        policy.config.action_feature_names = MOTORS
    policy.config.use_peft = kind == "adapter"
    policy.save_pretrained(tmp_path / "you" / policy.config.type)
    monkeypatch.chdir(tmp_path)
    found = commands(card_of(policy, depth_dataset_root))
    assert [name for name, *_ in found] == KINDS[kind]
    for name, *options in found:
        config = PARSERS[name]
        monkeypatch.setattr(sys, "argv", [name, *options])
        if "--robot.id=my_arm" in options:
            importlib.import_module("lerobot.cameras.opencv")
            importlib.import_module("lerobot.robots.so_follower")
        paths = config.__get_path_fields__() if hasattr(config, "__get_path_fields__") else []
        parsed = draccus.parse(config, args=parser.filter_path_args(paths, options))
        if name == "lerobot-train":
            parsed.validate()
            assert not parsed.policy.push_to_hub
        if "--robot.id=my_arm" in options:
            assert {*parsed.robot.cameras} == {"image", "image2"} and parsed.fps == 5


def test_its_python_runs(make_policy, dataset_root: Path, tmp_path: Path, monkeypatch) -> None:
    parts = make_policy()
    for part in parts:
        part.save_pretrained(tmp_path / "you" / "gem_vla")
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(
        r"^```python\n(.*?)^```$", card_of(parts[0], dataset_root).text, re.DOTALL | re.MULTILINE
    )
    found: dict = {}
    exec(code, found)
    assert found["actions"].shape == (1, 4, ACTION_DIM) and f"# (1, 4, {ACTION_DIM})" in code
