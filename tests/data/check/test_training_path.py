"""The way of lerobot-train, compared with lerobot-train itself."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.scripts import lerobot_train
from lerobot.utils.feature_utils import dataset_to_policy_features

from lerobot_gem.data.check import training_path
from lerobot_gem.data.check.training_path import as_floats, bind, make_preprocessor, open_for_training
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from tests.conftest import CAMERAS, build_policy
from tests.data.check.conftest import gem

FRONT, WRIST = CAMERAS


class SeenEnoughError(Exception):
    """Ends a training where the test has seen enough."""


def training(root: Path, policy: PreTrainedConfig, **dataset) -> TrainPipelineConfig:
    data = DatasetConfig(repo_id="local/noise", root=str(root), video_backend="pyav", **dataset)
    return TrainPipelineConfig(dataset=data, policy=policy, num_workers=0, batch_size=4)


@pytest.fixture(scope="module")
def checkpoint(depth_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in build_policy(gem(stage="joint"), depth_dataset_root):
        part.save_pretrained(folder)
    return folder


def resumed(checkpoint: Path, **overrides) -> PreTrainedConfig:
    config = PreTrainedConfig.from_pretrained(
        checkpoint, cli_overrides=[f"--{key}={value}" for key, value in overrides.items()]
    )
    config.pretrained_path, config.device = checkpoint, "cpu"
    return config


def test_binding_gives_what_building_the_policy_gives(depth_dataset_root: Path):
    built = build_policy(gem(), depth_dataset_root)[0].config
    bound = gem()
    bind(bound, LeRobotDatasetMetadata("local/noise", root=depth_dataset_root), {})
    assert bound == built
    assert bound.built.depth_cameras == {camera: f"{camera}_depth" for camera in CAMERAS}


def test_a_checkpoint_is_bound_without_its_weights_in_memory(
    depth_dataset_root: Path, checkpoint: Path, capsys
):
    config = resumed(checkpoint)
    bind(config, LeRobotDatasetMetadata("local/noise", root=depth_dataset_root), {})
    assert config.device == "cpu" and config.built.depth_cameras
    assert capsys.readouterr().out == ""  # LeRobot prints what is no part of a report


def test_weights_that_do_not_fit_and_stages_that_were_skipped_are_errors(
    depth_dataset_root: Path, checkpoint: Path, tmp_path: Path
):
    meta = LeRobotDatasetMetadata("local/noise", root=depth_dataset_root)
    with pytest.raises(ValueError, match="starts from weights that"):
        bind(gem(stage="joint", allow_untrained=False), meta, {})
    cut = shutil.copytree(checkpoint, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="was cut short"):
        bind(resumed(cut), meta, {})


def test_a_checkpoint_with_other_cameras_does_not_bind(depth_dataset_root: Path):
    meta = LeRobotDatasetMetadata("local/noise", root=depth_dataset_root)
    front = dataset_to_policy_features(meta.features)[FRONT]
    config = gem()
    config.input_features = {"observation.images.top": front, FRONT: front}
    with pytest.raises(ValueError, match="mismatch"):
        bind(config, meta, {})


def test_a_dataset_is_opened_as_its_training_opens_it(dataset_root: Path):
    config = GemVLAConfig(preset="tiny", device="cpu", chunk_size=4)
    _, dataset = open_for_training(training(dataset_root, config), config)
    assert dataset[0]["action"].shape == (4, 7)
    _, dataset = open_for_training(training(dataset_root, config, eval_split=0.5), config)
    assert dataset.num_episodes == 1  # of the two of one task; the only one of the other is held out


def test_statistics_that_lerobot_looks_up_are_named(dataset_root: Path, tmp_path: Path):
    """Its own errors are a KeyError with the camera's name, and a TypeError."""
    root = shutil.copytree(dataset_root, tmp_path / "copy")
    file = root / "meta" / "stats.json"
    stats = json.loads(file.read_text())
    del stats[FRONT]
    file.write_text(json.dumps(stats))
    with pytest.raises(ValueError, match=f"can't be opened .* no entry for {FRONT}: expected statistics"):
        open_for_training(training(root, gem()), gem())
    assert open_for_training(training(root, gem(), use_imagenet_stats=False), gem())[1] is not None
    file.unlink()
    with pytest.raises(
        ValueError, match="can't be opened .* meta/stats.json is missing.*use_imagenet_stats=false"
    ):
        open_for_training(training(root, gem()), gem())


def test_what_lerobot_says_of_a_dataset_is_one_error(dataset_root: Path):
    with pytest.raises(ValueError, match="expected some of 0 to 2"):
        open_for_training(training(dataset_root, gem(), episodes=[7]), gem())
    with pytest.raises(ValueError, match="can't be opened .*eval_split=0.9 leaves 0 training episodes"):
        open_for_training(training(dataset_root, gem(), eval_split=0.9), gem())


def test_a_training_that_streams_is_opened_as_such(dataset_root: Path, monkeypatch):
    opened = []
    lerobots = training_path.make_train_eval_datasets

    def record(config):
        opened.append(config.dataset.streaming)
        return lerobots(config)

    monkeypatch.setattr(training_path, "make_train_eval_datasets", record)
    config = GemVLAConfig(preset="tiny", device="cpu", chunk_size=4)
    streaming = training(dataset_root, config, streaming=True)
    streaming.num_workers = 1
    _, dataset = open_for_training(streaming, config)
    assert opened == [True, False]
    assert dataset[0]["action"].shape == (4, 7)


def test_a_stream_without_a_part_for_a_worker_is_an_error(dataset_root: Path):
    """lerobot-train ends with accelerate's `Batch does not contain any data`."""
    config = training(dataset_root, gem(), streaming=True)
    config.num_workers = 0
    with pytest.raises(ValueError, match="streamed without a frame: expected --num_workers=1"):
        open_for_training(config, gem())


def test_cameras_without_named_axes_are_one_line(dataset_root: Path, tmp_path: Path):
    root = shutil.copytree(dataset_root, tmp_path / "copy")
    file = root / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"][FRONT]["names"] = None
    file.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r'axes None .* Write "names"'):
        open_for_training(training(root, gem()), gem())


def test_the_preprocessor_of_a_checkpoint_is_that_of_lerobot_train(
    depth_dataset_root: Path, checkpoint: Path, monkeypatch
):
    calls = []

    def record(*configs, policy_cfg=None, **arguments):
        calls.append(arguments)
        raise SeenEnoughError

    monkeypatch.setattr(lerobot_train, "make_pre_post_processors", record)
    monkeypatch.setattr(training_path, "make_pre_post_processors", record)
    with pytest.raises(SeenEnoughError):
        lerobot_train.train(training(depth_dataset_root, resumed(checkpoint)))
    config = resumed(checkpoint)
    meta, _ = open_for_training(training(depth_dataset_root, config), config)
    bind(config, meta, {})
    with pytest.raises(SeenEnoughError):
        make_preprocessor(config, meta, {})
    theirs, ours = calls
    theirs.pop("postprocessor_overrides")  # of actions, which training does not undo
    assert str(theirs.pop("pretrained_path")) == ours.pop("pretrained_path")
    assert repr(ours) == repr(theirs)


def test_pixels_of_videos_are_those_that_training_reads(tmp_path: Path, monkeypatch):
    root = tmp_path / "videos"
    dataset = LeRobotDataset.create(
        "local/noise",
        root=root,
        fps=5,
        features={FRONT: {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}},
    )
    random = torch.Generator().manual_seed(0)
    for _ in range(4):
        frame = torch.randint(256, (64, 64, 3), generator=random, dtype=torch.uint8)
        dataset.add_frame({FRONT: frame.numpy(), "task": "look"})
    dataset.save_episode()
    dataset.finalize()
    batches = []

    def record(batch):
        batches.append(batch)
        raise SeenEnoughError

    monkeypatch.setattr(lerobot_train, "make_pre_post_processors", lambda **_: (record, None))
    config = gem(stage="joint")
    config.depth.loss_weight = 0.0
    with pytest.raises(SeenEnoughError):
        lerobot_train.train(training(root, config))
    [batch] = batches
    _, dataset = open_for_training(training(root, config), config)
    for position, index in enumerate(batch["index"].tolist()):
        item = dataset[index]
        assert item[FRONT].dtype == torch.uint8
        assert torch.equal(as_floats(item, [FRONT])[FRONT], batch[FRONT][position])
