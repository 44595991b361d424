"""Checkpoints are self-contained, and a faulty one is an error that names the fault."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from safetensors.torch import load_file, save_file

from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import ACTION_DIM, CAMERAS
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save, warm  # noqa: F401 (fixtures)

OBSERVATION = {
    **{camera: torch.linspace(0, 1, 3 * 80 * 64).reshape(1, 3, 80, 64) for camera in CAMERAS},
    "observation.state": torch.linspace(-1, 1, 8)[None],
    "task": ["pick up the milk"],
}

LOAD_AND_ACT = """
import sys, torch
import lerobot_policy_gem
from lerobot.policies.factory import make_pre_post_processors
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
torch.set_num_threads(1)  # as here: another number adds in another order
folder, inputs, output = sys.argv[1:]
policy = GemVLAPolicy.from_pretrained(folder)
preprocess, postprocess = make_pre_post_processors(policy.config, pretrained_path=folder)
given = torch.load(inputs)
torch.save(postprocess(policy.predict_action_chunk(preprocess(given["observation"]), noise=given["noise"])), output)
"""


@pytest.fixture
def checkpoint(make_policy, tmp_path: Path):
    """A saved checkpoint with what its policy does for a fixed noise: (folder, noise, actions)."""
    policy, preprocess, postprocess = make_policy()
    warm(policy)
    folder = tmp_path / "pretrained_model"
    policy.save_pretrained(folder)
    preprocess.save_pretrained(folder)
    postprocess.save_pretrained(folder)
    noise = torch.randn(1, 4, ACTION_DIM)
    return folder, noise, postprocess(policy.predict_action_chunk(preprocess(dict(OBSERVATION)), noise=noise))


def test_the_python_of_the_front_page_acts(checkpoint):
    """The block as it stands there, with a tiny policy that reads a state."""
    folder, _, actions = checkpoint
    page = (Path(__file__).parents[2] / "README.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert "you/your_policy" in code
    names = {"observation": dict(OBSERVATION)}
    exec(code.replace("you/your_policy", str(folder)), names)
    assert names["actions"].shape == actions.shape and names["actions"].isfinite().all()


def test_the_observation_of_the_front_page_has_what_a_policy_reads():
    page = (Path(__file__).parents[2] / "README.md").read_text()
    [given] = re.findall(r"^`observation` is `({.*?})`", page, re.MULTILINE)
    keys = set(re.findall(r'"([\w.]+)":', given))
    cameras = {key for key in keys if key.startswith("observation.images.")}
    assert cameras and keys - cameras == OBSERVATION.keys() - set(CAMERAS)


def test_a_new_process_without_hub_or_cache_acts_bit_equally(checkpoint, tmp_path: Path):
    folder, noise, actions = checkpoint
    torch.save({"observation": OBSERVATION, "noise": noise}, tmp_path / "in.pt")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    subprocess.run(
        [sys.executable, "-c", LOAD_AND_ACT, folder, tmp_path / "in.pt", tmp_path / "out.pt"],
        check=True,
        env=environment,
        capture_output=True,
    )
    assert torch.load(tmp_path / "out.pt").equal(actions)


def test_loading_neither_initialises_nor_reads_the_pretrained_backbone(checkpoint, monkeypatch):
    folder, noise, actions = checkpoint
    config = PreTrainedConfig.from_pretrained(folder)
    config.backbone.pretrained = "nobody/nowhere"
    monkeypatch.setattr(torch.nn.init, "normal_", None)
    policy = GemVLAPolicy.from_pretrained(folder, config=config)
    preprocess, postprocess = make_pre_post_processors(config, pretrained_path=str(folder))
    chunk = policy.predict_action_chunk(preprocess(dict(OBSERVATION)), noise=noise)
    assert postprocess(chunk).equal(actions)


@pytest.mark.parametrize("initialiser", ["normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"])
def test_loading_initialises_no_generator(gem_checkpoint, monkeypatch, initialiser):  # noqa: F811
    monkeypatch.setattr(torch.nn.init, initialiser, None)
    assert GemPolicy.from_pretrained(gem_checkpoint).generator is not None


def edit_weights(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def test_missing_unexpected_and_misshaped_weights_are_named(checkpoint):
    folder, *_ = checkpoint

    def edit(weights):
        del weights["expert.state_embedding"]
        weights["expert.stranger"] = torch.zeros(1)
        weights["expert.register_tokens"] = torch.zeros(1, 2, 3)

    edit_weights(folder, edit)
    with pytest.raises(ValueError) as error:
        GemVLAPolicy.from_pretrained(folder)
    assert "missing: expert.state_embedding" in str(error.value)
    assert "unexpected: expert.stranger" in str(error.value)
    assert "shape of expert.register_tokens: (1, 2, 3) in the file" in str(error.value)


def test_a_checkpoint_cut_short_is_named(checkpoint):
    folder, *_ = checkpoint
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"model\.safetensors can't be read .* cut short"):
        GemVLAPolicy.from_pretrained(folder)


def test_a_missing_weights_file_is_named(checkpoint):
    folder, *_ = checkpoint
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors can't be read"):
        GemVLAPolicy.from_pretrained(folder)


def test_starts_from_a_qwen3_vl_folder(make_policy, tmp_path: Path, batch):
    """backbone.pretrained: weights and tokenizer come from the folder, the checkpoint needs it no more."""
    from transformers import Qwen3VLConfig

    from lerobot_gem.models.backbone import GemBackbone
    from lerobot_gem.models.presets import get_preset
    from lerobot_gem.policies.base_options import BackboneConfig
    from lerobot_gem.processing.tokenizer import build_tiny_tokenizer

    torch.manual_seed(3)
    source = GemBackbone(Qwen3VLConfig(**get_preset("tiny").backbone))
    source.model.save_pretrained(tmp_path / "qwen")
    build_tiny_tokenizer().save_pretrained(tmp_path / "qwen")

    policy, preprocess, postprocess = make_policy(backbone=BackboneConfig(pretrained=str(tmp_path / "qwen")))
    for name, weight in policy.backbone.state_dict().items():
        assert weight.equal(source.state_dict()[name]), name
    for part in (policy, preprocess, postprocess):
        part.save_pretrained(tmp_path / "policy")
    noise = torch.randn(4, 4, ACTION_DIM)
    chunk = policy.predict_action_chunk(preprocess(batch), noise=noise)

    shutil.rmtree(tmp_path / "qwen")
    loaded = GemVLAPolicy.from_pretrained(tmp_path / "policy")
    preprocess, _ = make_pre_post_processors(loaded.config, pretrained_path=str(tmp_path / "policy"))
    assert loaded.predict_action_chunk(preprocess(batch), noise=noise).equal(chunk)


def test_the_checkpoint_holds_everything_in_files_that_the_hub_push_keeps(checkpoint):
    folder, *_ = checkpoint
    # LeRobot uploads these suffixes only (policies/pretrained.py, push_model_to_hub).
    assert {file.suffix for file in folder.iterdir()} <= {".safetensors", ".json", ".yaml", ".md"}
    config = json.loads((folder / "config.json").read_text())
    assert config["built"]["backbone"]["vision_config"]["patch_size"]
