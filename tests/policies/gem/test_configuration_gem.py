"""Each user mistake about stages, depth and language is one error that names it, before training starts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from lerobot_gem.policies.base_options import BackboneConfig, CamerasConfig, DepthConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.storage.language_columns import row
from lerobot_gem.validation import ConfigurationError
from tests.conftest import CAMERAS, add_language_rows, write_dataset
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save  # noqa: F401 (a fixture)

DEPTH = f"{CAMERAS[0]}_depth"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "four"}, r"stage='four' is unknown: expected one of 'connector', 'generator', 'joint'"),
        ({"stage": "action"}, r"stage='action' is unknown"),
        (
            {"cameras": lambda: CamerasConfig(layout="concat")},
            r"layout='concat': pre-training needs 'separate'",
        ),
        (
            {"depth": lambda: DepthConfig(colormap="jet")},
            r"depth.colormap='jet' is unknown: .*'spectral', 'inferno'",
        ),
        ({"depth": lambda: DepthConfig(unit="cm")}, r"depth.unit='cm' is unknown: expected one of 'mm', 'm'"),
        ({"depth": lambda: DepthConfig(loss_weight=-1)}, r"depth.loss_weight=-1: expected 0 or more"),
        (
            {"depth": lambda: DepthConfig(num_inference_steps=0)},
            r"num_inference_steps=0: expected 1 to 1000",
        ),
        ({"preset": "2b"}, r"preset='2b' needs pretrained"),
        (
            {"cameras": lambda: CamerasConfig(min_pixels=9999, max_pixels=100)},
            r"min_pixels=9999, cameras.max_pixels=100: expected areas of images, the smallest first",
        ),
        ({"depth": lambda: DepthConfig(max_side=16)}, r"depth.max_side=16: expected at least 32"),
    ],
)
def test_bad_values_are_named_with_what_is_expected(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        built = {key: value() if callable(value) else value for key, value in arguments.items()}
        GemConfig(**{"preset": "tiny", "device": "cpu", **built})


def edited(source: Path, folder: Path, edit) -> Path:
    """A copy of a dataset whose features were edited."""
    shutil.copytree(source, folder)
    info = json.loads((folder / "meta" / "info.json").read_text())
    edit(info["features"])
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda f: f[DEPTH]["info"].pop("is_depth_map"),
            rf"'{DEPTH}' is not flagged as depth: .*is_depth_map=true",
        ),
        (
            lambda f: f[DEPTH].update(shape=[64, 32, 1]),
            rf"'{DEPTH}' is 32 x 64 pixels, '{CAMERAS[0]}' 64 x 64",
        ),
        (
            lambda f: f[DEPTH]["info"].pop("depth_unit"),
            rf"unit of '{DEPTH}' is unknown \(info.depth_unit=None\)",
        ),
        (lambda f: f.pop(CAMERAS[0]), rf"'{DEPTH}' has no RGB camera: expected '{CAMERAS[0]}'"),
    ],
    ids=["not flagged", "aspect ratio", "unit", "no RGB"],
)
def test_faulty_depth_is_named_and_ignored_without_depth_loss(
    make_gem, make_policy, depth_dataset_root, tmp_path, edit, message
):
    root = edited(depth_dataset_root, tmp_path / "data", edit)
    with pytest.raises(ValueError, match=message):
        make_gem(root)
    if "not flagged" in message:
        with pytest.raises(ValueError, match=message):
            make_policy(root)  # as a camera, it would be one of another kind
    else:
        make_policy(root)


def test_relative_depth_is_not_learned_in_a_metric_colormap(make_gem, depth_dataset_root, tmp_path):
    edit = lambda f: f[DEPTH]["info"].update(depth_kind="relative")  # noqa: E731
    root = edited(depth_dataset_root, tmp_path / "data", edit)
    make_gem(root)
    with pytest.raises(ValueError, match="colormap='inferno' paints depth, but .* has relative depth"):
        make_gem(root, depth=DepthConfig(colormap="inferno"))


def test_a_depth_camera_that_is_asked_for_but_missing_is_named(make_gem):
    depth = DepthConfig(cameras={CAMERAS[0]: "observation.images.top_depth"})
    with pytest.raises(ValueError, match=r"names 'observation.images.top_depth', which the dataset lacks"):
        make_gem(depth=depth)


def test_depth_is_paired_as_asked(make_gem, depth_dataset_root, tmp_path):
    crossed = {CAMERAS[0]: f"{CAMERAS[1]}_depth"}
    policy, *_ = make_gem(depth=DepthConfig(cameras=crossed))
    assert policy.config.built.depth_cameras == crossed


def test_data_without_depth_names_both_ways_out(make_gem, make_policy, dataset_root, gem_checkpoint):  # noqa: F811
    message = r"No depth for the cameras .*lerobot-gem-label-depth.*--policy.depth.loss_weight=0"
    with pytest.raises(ValueError, match=message):
        make_gem(dataset_root)
    with pytest.raises(ValueError, match=message):
        make_policy(backbone=BackboneConfig(pretrained=gem_checkpoint), depth=DepthConfig(loss_weight=0.1))
    policy, *_ = make_gem(dataset_root, stage="joint", depth=DepthConfig(loss_weight=0))
    assert policy.generator is None, "what no loss reads is not built"


def test_depth_that_is_zero_throughout_is_named(make_gem, depth_dataset_root, tmp_path):
    root = edited(depth_dataset_root, tmp_path / "data", lambda features: None)
    stats = json.loads((root / "meta" / "stats.json").read_text())
    stats[DEPTH]["max"] = np.zeros_like(stats[DEPTH]["max"]).tolist()
    (root / "meta" / "stats.json").write_text(json.dumps(stats))
    with pytest.raises(ValueError, match=rf"'{DEPTH}' is zero in the whole dataset"):
        make_gem(root)


def test_a_dataset_whose_depth_is_zero_is_named_by_its_own_statistics(make_gem, tmp_path):
    with pytest.raises(ValueError, match=rf"'{DEPTH}' is zero in the whole dataset"):
        make_gem(write_dataset(tmp_path / "data", depth=True, depth_range=(0, 1)))


def test_a_batch_without_the_depth_that_was_paired_is_named(make_gem, depth_batch):
    policy, preprocess, _ = make_gem()
    del depth_batch[DEPTH]
    with pytest.raises(ValueError, match=rf"The batch lacks '{DEPTH}', which the depth loss needs"):
        policy(preprocess(depth_batch))


def test_depth_in_another_unit_than_configured_is_named(make_gem, depth_batch):
    policy, preprocess, _ = make_gem()
    in_metres = {f"{camera}_depth": depth_batch[f"{camera}_depth"] / 1000 for camera in CAMERAS}
    with pytest.raises(ValueError, match=r"reaches 4\.\d+, which can't be mm.*depth_output_unit"):
        policy(preprocess({**depth_batch, **in_metres}))
    policy.config.depth.unit = "m"
    policy(preprocess({**depth_batch, **in_metres}))
    with pytest.raises(ValueError, match=r"reaches 4\d\d\d, which can't be m:"):
        policy(preprocess(depth_batch))


@pytest.mark.parametrize(
    ("stage", "skipped"), [("generator", "'connector'"), ("joint", "'connector' and 'generator'")]
)
def test_skipped_stages_must_be_acknowledged(make_gem, stage, skipped):
    with pytest.raises(
        ValueError, match=rf"stage='{stage}' .* {skipped} did not train: .*allow_untrained=true"
    ):
        make_gem(stage=stage, allow_untrained=False)


def test_tiny_starts_without_an_acknowledgement(make_gem):
    policy, *_ = make_gem(allow_untrained=False)
    assert policy.config.stage == "connector"


def test_an_action_policy_with_depth_needs_a_trained_generator(make_policy, depth_dataset_root):
    with pytest.raises(ValueError, match=r"no weights for connector, transformer .*<gem checkpoint>"):
        make_policy(depth_dataset_root, depth=DepthConfig(loss_weight=0.1))


def test_language_rows_about_an_unknown_camera_are_named(make_gem, tmp_path):
    top = "observation.images.top"
    events = {2: [row("user", "Where?", "vqa", top), row("assistant", "There.", "vqa", top)]}
    root = add_language_rows(write_dataset(tmp_path / "data", depth=True), [], events)
    with pytest.raises(ValueError, match=r"Unknown camera\(s\) \['observation.images.top'\]"):
        make_gem(root)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--policy.stage=four", "stage='four' is unknown: expected one of 'connector', 'generator', 'joint'"),
        ("--policy.depth.unit=cm", "depth.unit='cm' is unknown: expected one of 'mm', 'm'"),
        ("--policy.preset=2b", "preset='2b' needs pretrained weights and their tokenizer"),
        ("--policy.preset=3b", "Unknown preset '3b'; choose one of 'tiny', '2b', '8b'"),
    ],
)
def test_the_command_line_shows_what_is_wrong(argument, message, tmp_path, monkeypatch, capsys):
    """LeRobot's parser prints the messages of some errors only."""
    from lerobot.configs import parser
    from lerobot.configs.train import TrainPipelineConfig

    @parser.wrap()
    def command(config: TrainPipelineConfig) -> None:
        raise AssertionError("parsed")

    arguments = ["--dataset.repo_id=local/noise", "--policy.type=gem", "--policy.preset=tiny", argument]
    monkeypatch.setattr("sys.argv", ["lerobot-train", *arguments])
    with pytest.raises(SystemExit):
        command()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["2b", "8b"])
@pytest.mark.parametrize(
    ("number", "stage", "steps", "samples"),
    [(1, "connector", 500, 0), (2, "generator", 4_000, 0), (3, "joint", 0, 4e6)],
)
def test_the_published_stages(preset, number, stage, steps, samples):
    """The published durations: steps, or one epoch of 4 M samples on 32 GPUs; 3 % of warm-up."""
    file = Path(__file__).parents[3] / "configs" / "policy" / f"gem_{preset}_stage{number}.yaml"
    config = yaml.safe_load(file.read_text())
    policy = config["policy"]
    assert policy["stage"] == stage
    assert config["steps"] == (steps or samples / (32 * config["batch_size"]))
    assert policy["optimizer_lr"] == 1e-5
    assert policy["scheduler_name"] == "cosine"
    assert policy["scheduler_warmup_steps"] == pytest.approx(0.03 * config["steps"], abs=1)
