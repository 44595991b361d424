"""Configuration files parse with LeRobot's own parser; each user mistake is one error that names it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, parser
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.transforms.transforms import ImageTransforms

from lerobot_gem.policies.base_options import BackboneConfig, CamerasConfig, DepthConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.dataset_names import state_like
from lerobot_gem.processing.image_transforms import moving
from lerobot_gem.storage.opening import DatasetOptions
from lerobot_gem.storage.output_folder import OutputDataset
from lerobot_gem.storage.renaming import RenameConfig, rename_features
from lerobot_gem.training.stages import PRETRAINING
from lerobot_gem.validation import ConfigurationError
from tests.conftest import CAMERAS, write_dataset

CONFIGS = Path(__file__).parents[3] / "configs"


def parse(kind: type, file: Path, *overrides: str, validate: bool = False):
    """What the command line does with --config_path and overrides; training also validates, which reads --policy.path."""
    captured = []
    arguments = [sys.argv[0], f"--config_path={file}", *overrides]

    @parser.wrap()
    def command(config: kind):
        if validate:
            config.validate()
        captured.append(config)

    command.__wrapped__.__annotations__["config"] = kind
    before, sys.argv = sys.argv, arguments
    try:
        command()
    finally:
        sys.argv = before
        # LeRobot keeps a file's `path` for the rest of the process, which is one command in real life.
        parser._config_path_args.clear()
        parser._config_yaml_overrides.clear()
    return captured[0]


@pytest.mark.parametrize("file", sorted((CONFIGS / "policy").glob("*.yaml")), ids=lambda file: file.stem)
def test_policy_files_are_complete_and_the_command_line_overrides_them(file: Path, tmp_path: Path):
    arguments = ["--batch_size=3", "--policy.depth.num_inference_steps=7", f"--output_dir={tmp_path}/x"]
    if "\n  path: " in file.read_text():  # goes on from the checkpoint of the stage before
        folder = tmp_path / "before"
        folder.mkdir()
        GemConfig(preset="tiny", device="cpu").save_pretrained(folder)
        arguments.append(f"--policy.path={folder}")
    config = parse(TrainPipelineConfig, file, *arguments, validate=True)
    assert config.policy.type == ("gem_vla" if file.stem.startswith("gem_vla") else "gem")
    assert (config.batch_size, config.policy.depth.num_inference_steps) == (3, 7)
    assert config.optimizer.lr == config.policy.optimizer_lr
    assert config.scheduler.name == config.policy.scheduler_name
    assert not config.policy.push_to_hub
    if file.stem.startswith("gem_vla"):
        assert config.policy.depth.loss_weight == (0.1 if file.stem.endswith("_depth") else 0)
    else:
        assert config.policy.stage == PRETRAINING[int(file.stem[-1]) - 1]


@pytest.mark.parametrize("name", ["gem_vla_2b", "gem_vla_2b_depth"])
def test_the_published_recipe(name: str):
    config = parse(TrainPipelineConfig, CONFIGS / "policy" / f"{name}.yaml")
    policy = config.policy
    assert (config.steps, 8 * config.batch_size, policy.optimizer_lr) == (50_000, 256, 1e-5)
    assert (policy.chunk_size, policy.dtype, policy.expert_architecture.depth) == (32, "bfloat16", 14)
    assert policy.expert.conditioning_layers == list(range(14))
    assert (policy.camera_dropout, policy.instruction_dropout) == (0.1, 0.1)
    optimizer = policy.get_optimizer_preset()
    assert (optimizer.weight_decay, optimizer.betas, optimizer.eps) == (0.01, (0.9, 0.999), 1e-8)
    transforms = ImageTransforms(config.dataset.image_transforms)
    assert moving(transforms) == []
    image = torch.rand(3, 64, 64)
    torch.manual_seed(0)
    changed = [not transforms(image).equal(image) for _ in range(400)]
    assert sum(changed) / len(changed) == pytest.approx(0.5, abs=0.06)
    if name.endswith("_depth"):
        assert policy.depth.cameras == {"observation.images.image": "observation.images.image_depth"}
        file = CONFIGS / "policy" / f"{name}.yaml"
        assert parse(TrainPipelineConfig, file, "--policy.depth.cameras=null").policy.depth.cameras is None


@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10"])
def test_env_files_are_complete_and_the_command_line_overrides_them(suite: str):
    config = parse(
        EvalPipelineConfig, CONFIGS / "env" / f"{suite}.yaml", "--env.fps=5", "--eval.n_episodes=2"
    )
    assert (config.env.type, config.env.task, config.env.fps) == ("libero", suite, 5)
    assert config.eval.n_episodes == 2


def test_a_configuration_survives_saving(tmp_path: Path):
    config = GemVLAConfig(
        preset="tiny",
        device="cpu",
        expert=ExpertConfig(conditioning_layers=[0, 2, 1]),
        cameras=CamerasConfig(layout="concat"),
    )
    config.save_pretrained(tmp_path)
    assert GemVLAConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "3b"}, r"'3b'.*'tiny', '2b', '8b'"),
        ({"preset": "2b"}, r"preset='2b' needs pretrained.*backbone.pretrained=Qwen/Qwen3-VL-2B-Instruct"),
        ({"chunk_size": 0}, r"chunk_size=0: expected at least 1"),
        ({"chunk_size": 4, "n_action_steps": 5}, r"n_action_steps=5: expected 1 to chunk_size=4"),
        ({"n_action_steps": 0}, r"n_action_steps=0: expected 1 to"),
        ({"camera_dropout": 1.0}, r"camera_dropout=1.0: expected a probability from 0 to below 1"),
        ({"instruction_dropout": -0.1}, r"instruction_dropout=-0.1: expected a probability"),
        (
            {"camera_dropout": 0.1, "cameras": lambda: CamerasConfig(layout="concat")},
            r"camera_dropout=0.1 with cameras.layout='concat', where all cameras are one image",
        ),
        ({"dtype": "float16"}, r"dtype='float16' is unknown: expected one of 'float32', 'bfloat16'"),
        ({"scheduler_name": "step"}, r"scheduler_name='step' is unknown"),
        (
            {"expert": lambda: ExpertConfig(conditioning_layers=[0])},
            r"has 1 entries for an expert of \d blocks",
        ),
    ],
)
def test_bad_values_are_named_with_what_is_expected(arguments: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        built = {key: value() if callable(value) else value for key, value in arguments.items()}
        GemVLAConfig(**{"preset": "tiny", "device": "cpu", **built})


@pytest.mark.parametrize("depth", [0.0, 0.1])
def test_a_layer_past_the_backbone_is_named(make_policy, depth_dataset_root: Path, depth: float):
    message = (
        r"expert.conditioning_layers=\[0, 1, 9\] with expert.conditioning='states': expected layers of the "
        "backbone, 0 to 4"
    )
    with pytest.raises(ValueError, match=message):
        make_policy(
            depth_dataset_root,
            expert=ExpertConfig(conditioning_layers=[0, 1, 9]),
            depth=DepthConfig(loss_weight=depth),
        )


def test_no_camera_and_unknown_camera_are_named(make_policy):
    with pytest.raises(
        ValueError, match=r"unknown entries \['observation.images.top'\]: expected some of .*image2"
    ):
        make_policy(cameras=CamerasConfig(names=["observation.images.top"]))
    config = GemVLAConfig(preset="tiny", device="cpu")
    config.input_features = {"observation.state": PolicyFeature(FeatureType.STATE, (8,))}
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (7,))}
    with pytest.raises(ValueError, match=r"No camera: expected at least one RGB feature"):
        config.validate_features()


def test_depth_cameras_are_no_inputs():
    config = GemVLAConfig(preset="tiny", device="cpu")
    config.input_features = {
        key: PolicyFeature(FeatureType.VISUAL, (channels, 8, 8))
        for key, channels in (("observation.images.image", 3), ("observation.images.image_depth", 1))
    }
    image = {"dtype": "image", "names": ["height", "width", "channels"]}
    features = {
        "observation.images.image": {**image, "shape": (8, 8, 3), "info": None},
        "observation.images.image_depth": {**image, "shape": (8, 8, 1), "info": {"is_depth_map": True}},
    }
    config.set_dataset_feature_metadata(features)
    assert list(config.input_features) == ["observation.images.image"]


IMAGE = {"dtype": "image", "names": ["height", "width", "channels"], "shape": (8, 8, 3), "info": None}
TOP = "observation.images.top"


def told(features: dict[str, dict], **settings) -> GemVLAConfig:
    config = GemVLAConfig(preset="tiny", device="cpu", **settings)
    config.input_features = {
        key: PolicyFeature(FeatureType.VISUAL, (3, 8, 8))
        for key, value in features.items()
        if value["dtype"] == "image"
    }
    config.set_dataset_feature_metadata(features)
    return config


def test_cameras_that_lerobot_does_not_hand_on_are_left_out(caplog: pytest.LogCaptureFixture):
    assert list(told({TOP: IMAGE, "extra_cam": IMAGE}).input_features) == [TOP]
    assert "'extra_cam' is left out" in caplog.text


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("observation.images.depth", 3, "not flagged as depth"),
        ("observation.images.top_depth", 3, "not flagged as depth"),
        ("observation.images.side", 1, "not flagged as depth"),
        ("observation.images.side", 4, "has 4 channels: expected 3"),
    ],
)
def test_what_is_no_rgb_never_reaches_the_vision_tower(name: str, channels: int, message: str):
    features = {TOP: IMAGE, name: {**IMAGE, "shape": (8, 8, channels)}}
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        told(features)
    told(features, cameras=CamerasConfig(names=[TOP]))
    if channels == 3:
        told(features, cameras=CamerasConfig(names=[TOP, name]))  # the user says that it is meant


@pytest.mark.parametrize(
    ("names", "flat"),
    [
        (["x", "y"], ["x", "y"]),
        ([["x", "y"]], ["x", "y"]),
        ({"motors": ["x", "y"]}, ["x", "y"]),
        ({"arm": ["x"], "hand": ["y"]}, ["x", "y"]),
        ({"x": 0, "y": 1}, ["x", "y"]),
    ],
)
def test_names_of_actions_are_flat(names: object, flat: list[str]):
    action = {"dtype": "float32", "shape": (2,), "names": names}
    assert told({TOP: IMAGE, "action": action}).action_feature_names == flat
    nested = {**action, "names": {"motors": ["x"]}}
    with pytest.raises(ValueError, match="names of 'action' .* expected a list of 2 names"):
        told({TOP: IMAGE, "action": nested})


def test_vectors_that_look_like_a_state():
    vector = {"dtype": "float32", "shape": (6,)}
    names = (
        "observation.joint_positions",
        "state",
        "observation.state",
        "observation.effort",
        "action.joints",
    )
    assert state_like({TOP: IMAGE} | dict.fromkeys(names, vector)) == list(names[:2])


@pytest.mark.parametrize("size", ["action_dim", "state_dim"])
def test_data_of_another_robot_is_named_before_training(make_policy, tmp_path: Path, size: str):
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.policies.factory import make_policy as lerobot_make_policy

    policy, *_ = make_policy()
    policy.save_pretrained(tmp_path / "policy")
    other = write_dataset(tmp_path / "data", **{size: 3})
    config = GemVLAConfig.from_pretrained(tmp_path / "policy")
    config.pretrained_path = tmp_path / "policy"
    message = {
        "action_dim": r"Actions have 3 numbers.*trained with 7",
        "state_dim": r"shape \(3,\).*with \(8,\)",
    }
    with pytest.raises(ValueError, match=message[size]):
        lerobot_make_policy(config, ds_meta=LeRobotDatasetMetadata("local/noise", root=other))


def test_an_empty_dataset_is_named(make_policy, tmp_path: Path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    image = {"dtype": "image", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "local/empty",
        fps=5,
        root=tmp_path / "empty",
        use_videos=False,
        features={
            "observation.images.image": image,
            "action": {"dtype": "float32", "shape": (7,), "names": None},
        },
    )
    from lerobot.policies.factory import make_policy as lerobot_make_policy

    with pytest.raises(ValueError, match=r"'local/empty' is empty: expected at least one episode"):
        lerobot_make_policy(GemVLAConfig(preset="tiny", device="cpu"), ds_meta=dataset.meta)


@pytest.mark.parametrize("task", [None, [""], ["  "], [None]])
def test_no_task_text(make_policy, batch, task):
    _, preprocess, _ = make_policy()
    one = {key: value[:1] for key, value in batch.items() if isinstance(value, torch.Tensor)}
    with pytest.raises(ValueError, match=r"No task text: .* expected one sentence per sample"):
        preprocess({**one, "task": task})


@pytest.mark.parametrize("key", [CAMERAS[1], "observation.state"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_observations_are_named(make_policy, batch, key, value):
    _, preprocess, _ = make_policy()
    broken = batch[key].clone()
    broken.view(-1)[5] = value
    with pytest.raises(
        ValueError, match=rf"{key}\[.*\] is {value} in frame 0 \(episode 0\): expected finite"
    ):
        preprocess({**batch, key: broken})


def test_missing_camera_and_wrong_state_are_named_at_run_time(make_policy, batch):
    _, preprocess, _ = make_policy()
    without = {key: value for key, value in batch.items() if key != CAMERAS[1]}
    with pytest.raises(ValueError, match=r"lacks the camera\(s\) \['observation.images.image2'\]"):
        preprocess(without)
    with pytest.raises(ValueError, match=r"observation.state has 3 numbers, the policy was trained with 8"):
        preprocess({**batch, "observation.state": torch.zeros(4, 3)})
    with pytest.raises(ValueError, match=r"lacks 'observation.state'.*use_state=false"):
        preprocess({key: value for key, value in batch.items() if key != "observation.state"})


def test_a_hub_id_offline_is_named(make_policy):
    with pytest.raises(FileNotFoundError, match=r"'nobody/nowhere'.*HF_HUB_OFFLINE"):
        make_policy(backbone=BackboneConfig(pretrained="nobody/nowhere"))


def test_sizes_of_an_expert_that_do_not_fit_the_presets_name_the_option():
    message = r"expert.architecture=\{'num_kv_heads': 8\} in place of some sizes of preset='tiny': num_heads=4 .* multiple of num_kv_heads=8"
    with pytest.raises(ConfigurationError, match=message):
        GemVLAConfig(preset="tiny", expert=ExpertConfig(architecture={"num_kv_heads": 8}))


def test_nothing_trainable_is_an_error(make_policy):
    with pytest.raises(
        ValueError, match="Nothing is trainable: the policy has .*expert, but .*--policy.expert.freeze=false"
    ):
        make_policy(
            backbone=BackboneConfig(freeze_vision_tower=True, freeze_language_model=True),
            expert=ExpertConfig(freeze=True),
        )


def test_the_plugin_is_cheap_to_import():
    """No model code, no simulator, nothing written until a policy is built."""
    import subprocess

    code = (
        "import sys, lerobot.configs, lerobot.processor, lerobot.envs, lerobot.policies; before = set(sys.modules)\n"
        "import lerobot_policy_gem\n"
        "new = set(sys.modules) - before\n"
        "simulators = ('libero', 'robosuite', 'mujoco', 'lerobot_env_so101', 'lerobot.envs.libero')\n"
        "assert not [m for m in new if m.startswith(('lerobot_gem.mod', *simulators))"
        " and not m.startswith('lerobot_gem.models.presets') and m != 'lerobot_gem.models'], sorted(new)\n"
        "assert not [m for m in new if m.split('.')[0] in ('transformers', 'diffusers', 'tokenizers')], sorted(new)\n"
        "from lerobot.configs import PreTrainedConfig\n"
        "assert 'gem_vla' in PreTrainedConfig.get_known_choices()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names_of_an_action_are_kept_for_the_robot(make_policy, dataset_root, tmp_path):
    root = shutil.copytree(dataset_root, tmp_path / "data")
    info = json.loads((root / "meta" / "info.json").read_text())
    names = [f"joint_{number}.pos" for number in range(info["features"]["action"]["shape"][0])]
    info["features"]["action"]["names"] = names
    (root / "meta" / "info.json").write_text(json.dumps(info))
    policy, *_ = make_policy(root)
    assert policy.config.action_feature_names == names


def test_a_state_that_is_renamed_is_left_to_the_first_batch(make_policy, dataset_root, tmp_path):
    policy, *_ = make_policy()
    names = {"observation.state": "observation.joints"}
    options, output = DatasetOptions("local/noise", dataset_root), OutputDataset(tmp_path / "renamed")
    rename_features(RenameConfig(options, output, names))
    policy.config.check_dataset(LeRobotDatasetMetadata("local/noise", root=output.root))
