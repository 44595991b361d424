"""Files that older versions wrote still load, and do what they did then (tests/artifacts/README.md)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import get_policy_class, make_policy, make_pre_post_processors
from lerobot.utils.collate import lerobot_collate_fn
from safetensors.torch import load_file

from lerobot_gem.processing.language import messages_of_rows
from lerobot_gem.storage.language_rows import LanguageTable
from tests.write_artifacts import frames as raw_frames

ARTIFACTS = Path(__file__).parent / "artifacts"
VERSIONS = ["0.1.0"]  # later ones have other parts, below


def frames(version: str, chunk_size: int | None = None):
    """A raw batch of the first three frames."""
    delta = {"action": [step / 5 for step in range(chunk_size)]} if chunk_size else None
    dataset = LeRobotDataset("local/scenes", root=ARTIFACTS / version / "dataset", delta_timestamps=delta)
    return lerobot_collate_fn([dataset[index] for index in range(3)])


def load(folder: Path, **overrides: float):
    """Policy and processors, as lerobot-train loads them beside the dataset."""
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    for name, value in overrides.items():
        setattr(config.depth, name, value)
    meta = LeRobotDatasetMetadata("local/scenes", root=folder.parent / "dataset")
    return make_policy(config, ds_meta=meta), *make_pre_post_processors(config, pretrained_path=str(folder))


@pytest.mark.parametrize("version", VERSIONS)
def test_gem_generates_the_same_depth(version: str):
    policy, preprocess, _ = load(ARTIFACTS / version / "gem")
    expected = load_file(ARTIFACTS / version / "gem.expected.safetensors")
    batch = preprocess(frames(version))
    loss, logs = policy.forward(batch, reduction="none")
    assert loss.isfinite().all() and logs["frames_with_language"] == logs["frames_with_depth"] == 1
    for camera, depth in policy.generate_depth(batch, torch.Generator().manual_seed(3)).items():
        torch.testing.assert_close(depth, expected[camera], rtol=0, atol=1e-5)
    assert policy.config.built.stages_done == ["joint"]


@pytest.mark.parametrize("version", VERSIONS)
def test_gem_vla_predicts_the_same_chunk(version: str):
    policy, preprocess, postprocess = load(ARTIFACTS / version / "gem_vla", loss_weight=0.0)
    expected = load_file(ARTIFACTS / version / "gem_vla.expected.safetensors")
    batch = preprocess(frames(version, chunk_size=4))
    chunk = postprocess(policy.predict_action_chunk(batch, noise=expected["noise"]))
    torch.testing.assert_close(chunk, expected["chunk"], rtol=0, atol=1e-5)
    policy.train()
    _, logs = policy.forward(batch, noise=expected["noise"], time=expected["time"])
    assert logs["action_loss"] == pytest.approx(2.185393, abs=1e-5)


@pytest.mark.parametrize(
    "override", ["--cameras.max_pixels=8192", "--cameras.layout=concat", '--expert.architecture={"depth": 3}']
)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_old_checkpoint_was_built_with_cannot_be_overridden(version: str, override: str):
    folder = ARTIFACTS / version / "gem_vla"
    overrides = ["--depth.loss_weight=0", override]
    if "expert" in override:
        overrides.append("--expert.conditioning_layers=[0,1,2]")
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=overrides)
    with pytest.raises(ValueError, match="trained with"):
        get_policy_class("gem_vla").from_pretrained(folder, config=config)


@pytest.mark.parametrize("kind", ["gem", "gem_vla"])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_configuration_is_saved_in_new_words(version: str, kind: str, tmp_path: Path):
    config = PreTrainedConfig.from_pretrained(ARTIFACTS / version / kind)
    assert kind == "gem_vla" or config.built.stages_done == ["joint"]
    config.save_pretrained(tmp_path)
    again = PreTrainedConfig.from_pretrained(tmp_path)
    assert again == config and again.built == config.built and again.built.images["cameras"]
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["type"] == kind and "stages_done" not in saved
    assert not {"architecture", "pairs"} & (saved["backbone"].keys() | saved["depth"].keys())


# -- 0.2.0, as tests/write_artifacts.py wrote it --------------------------------------------------------------------

NEWER = ARTIFACTS / "0.2.0"


def chunk_of(folder: Path, expected: dict) -> torch.Tensor:
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    meta = LeRobotDatasetMetadata("local/artifact", root=NEWER / "dataset")
    policy = make_policy(config, ds_meta=meta)
    preprocess, postprocess = make_pre_post_processors(config, pretrained_path=str(folder))
    return postprocess(
        policy.predict_action_chunk(preprocess(raw_frames(NEWER / "dataset")), noise=expected["noise"])
    )


@pytest.mark.parametrize("kind", ["gem_vla", "acting"])
def test_a_checkpoint_of_0_2_acts_the_same(kind: str):
    expected = load_file(NEWER / "gem_vla.expected.safetensors")
    torch.testing.assert_close(chunk_of(NEWER / kind, expected), expected["chunk"], rtol=0, atol=1e-5)


def test_a_checkpoint_of_0_2_learns_the_same():
    expected = load_file(NEWER / "gem_vla.expected.safetensors")
    policy = get_policy_class("gem_vla").from_pretrained(NEWER / "gem_vla").train()
    preprocess, _ = make_pre_post_processors(policy.config, pretrained_path=str(NEWER / "gem_vla"))
    _, logs = policy.forward(
        preprocess(raw_frames(NEWER / "dataset")), noise=expected["noise"], time=expected["time"]
    )
    assert logs["action_loss"] == pytest.approx(expected["action_loss"].item(), abs=1e-5)


def test_an_adapter_of_0_2_acts_the_same(tmp_path: Path):
    folder = Path(shutil.copytree(NEWER / "adapter", tmp_path / "adapter"))
    for name in ("adapter_config.json", "config.json"):  # its base was written without a place
        values = json.loads((folder / name).read_text())
        for key in ("base_model_name_or_path", "pretrained_path"):
            values |= {key: str(NEWER / "gem_vla")} if values.get(key) == "gem_vla" else {}
        (folder / name).write_text(json.dumps(values))
    expected = load_file(NEWER / "gem_vla.expected.safetensors")
    torch.testing.assert_close(chunk_of(folder, expected), expected["adapted_chunk"], rtol=0, atol=1e-5)


def test_a_dataset_of_0_2_has_depth_and_language():
    dataset = LeRobotDataset("local/artifact", root=NEWER / "dataset")
    assert (dataset.num_frames, dataset.num_episodes, dataset.meta.fps) == (6, 2, 5)
    assert dataset.meta.has_language_columns and set(dataset.meta.tasks.index) == {
        "lift the cube",
        "put it down",
    }
    frame = dataset[4]
    assert frame["observation.images.front_depth"].unique().tolist() == [600]
    assert frame["action"].tolist() == [0.0, 0.5, 0.5]
    persistent, events = LanguageTable(dataset.meta).rows(1)
    messages = messages_of_rows(persistent, events, 0.2, "lift the cube", 1)
    assert [message["content"] for message in messages][:2] == ["Where is it?", "There."]
    assert messages[-1]["content"] == "reach"
