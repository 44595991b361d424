import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLModel

from lerobot_gem.checkpoints import formats
from lerobot_gem.checkpoints.files import load_weights
from lerobot_gem.checkpoints.formats import looked_for, open_checkpoint, read_sana_architecture
from lerobot_gem.checkpoints.release_expert import expert_to_release
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import get_preset
from tests.checkpoints.conftest import contents, edit_config, edit_weights
from tests.checkpoints.test_release_expert import small_expert

TINY = Qwen3VLConfig(**get_preset("tiny").backbone)


@pytest.fixture
def sana(gem_checkpoint, reference_folder: Path, tmp_path: Path) -> Path:
    """A SANA pipeline as diffusers writes it, with random weights; the autoencoder in shards."""
    folder = tmp_path / "sana"
    shutil.copytree(reference_folder / gem_checkpoint.spec["hub_standin"], folder)
    torch.manual_seed(5)
    for model, name, size in (
        (SanaTransformer2DModel, "transformer", "10GB"),
        (AutoencoderDC, "vae", "50KB"),
    ):
        config = model.load_config(folder / name)
        model.from_config(config).save_pretrained(folder / name, max_shard_size=size)
    return folder


# --- what a checkpoint is ---------------------------------------------------------------------------------------


def test_released_gem_checkpoint(gem_2b):
    checkpoint = open_checkpoint(gem_2b)
    assert (checkpoint.format, checkpoint.parts) == ("gem-2b", {"backbone", "generator"})
    original = load_file(gem_2b / "model.safetensors")
    generator = contents(checkpoint.part("generator"))
    assert generator == contents(
        {
            name.replace("diffusion_connector.", "connector.")
            .replace("sana.", "transformer.")
            .replace("vae.", "autoencoder."): weight
            for name, weight in original.items()
            if not name.startswith("model.")
        }
    )
    assert contents(checkpoint.part("backbone")) == contents(
        {name: weight for name, weight in original.items() if name.startswith("model.")}
    )


@pytest.mark.parametrize("model", [Qwen3VLForConditionalGeneration, Qwen3VLModel])
def test_plain_qwen3_vl_with_and_without_its_head(tmp_path, model):
    model(TINY).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.format, checkpoint.parts) == ("qwen3-vl", {"backbone"})
    assert Qwen3VLConfig(**checkpoint.backbone_config).text_config.hidden_size == 128
    with torch.device("meta"):
        names = nn.ModuleDict({"model": Qwen3VLModel(TINY)}).state_dict().keys()
    assert checkpoint.part("backbone").keys() == names


def test_released_expert_in_a_file_or_folder(tmp_path):
    released = expert_to_release(small_expert().state_dict())
    torch.save({"module": released}, tmp_path / "rdt.pt")
    torch.save(released, tmp_path / "pytorch_model.bin")
    for path in (tmp_path, tmp_path / "rdt.pt"):
        checkpoint = open_checkpoint(path)
        assert (checkpoint.format, checkpoint.parts) == ("rdt", {"expert"})
        assert contents(checkpoint.part("expert")) == contents(small_expert().state_dict())


def test_our_policy(make_policy, tmp_path):
    policy, *_ = make_policy()
    policy.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.format, checkpoint.parts) == ("policy", {"backbone", "expert"})
    assert contents(checkpoint.part("expert")) == contents(policy.expert.state_dict())
    assert Qwen3VLConfig(**checkpoint.backbone_config).text_config.hidden_size == 128


# --- the depth generator ----------------------------------------------------------------------------------------


def test_pretrained_generator_and_autoencoder_are_never_initialised_anew(sana):
    """The release's constructor does it; every tensor must be the one that diffusers reads."""
    checkpoint = open_checkpoint(sana)
    assert (checkpoint.format, checkpoint.parts) == ("sana", {"generator"})
    generator = DepthGenerator(checkpoint.depth_architecture, conditioning_dim=12)
    parts = {"transformer": SanaTransformer2DModel, "autoencoder": AutoencoderDC}
    for name, model in parts.items():
        weights = checkpoint.part("generator")
        own = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}
        load_weights(getattr(generator, name), own, fault="unused")
        folder = sana / {"autoencoder": "vae"}.get(name, name)
        expected = model.from_pretrained(folder).state_dict()
        assert contents(getattr(generator, name).state_dict()) == contents(expected)


def test_architecture_is_that_of_the_pipelines_configurations(gem_checkpoint, reference_folder, gem_2b):
    spec = gem_checkpoint.spec["config"]
    beside, named = (
        open_checkpoint(gem_2b).depth_architecture,
        read_sana_architecture(reference_folder / gem_checkpoint.spec["hub_standin"]),
    )
    assert beside == named
    assert named.transformer.items() >= spec["sana"].items()
    assert named.autoencoder.items() >= spec["vae"].items()
    # The settings of another scheduler in the folder (flow_shift) mean nothing to this one.
    assert "flow_shift" not in named.scheduler
    assert json.loads(json.dumps(vars(named))) == vars(named)


def test_architecture_on_the_hub_is_read_without_weights(gem_2b, monkeypatch):
    patterns = []

    def download(repo_id: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        patterns.extend(allow_patterns)
        return str(gem_2b)

    monkeypatch.setattr(formats, "snapshot_download", download)
    assert read_sana_architecture("somebody/sana") == read_sana_architecture(gem_2b)
    assert list(
        filter_repo_objects(["vae/config.json", "vae/w.safetensors", "w.bin"], allow_patterns=patterns)
    ) == ["vae/config.json"]


def test_released_gem_without_configurations_is_sana_1_6b(gem_2b):
    for folder in ("transformer", "vae", "scheduler"):
        shutil.rmtree(gem_2b / folder)
    assert open_checkpoint(gem_2b).depth_architecture == get_preset("2b").depth


def test_wrong_dimensions_are_named(gem_2b):
    checkpoint = open_checkpoint(gem_2b)
    generator = DepthGenerator(checkpoint.depth_architecture, conditioning_dim=12)
    with pytest.raises(
        ValueError, match=r"shape of connector\.0\.weight: \(\d+, \d+\) in the file, \(\d+, 12\) expected"
    ):
        load_weights(generator, checkpoint.part("generator"), fault="It does not fit")


# --- faults -----------------------------------------------------------------------------------------------------


def test_part_that_a_checkpoint_lacks(gem_2b):
    with pytest.raises(
        ValueError, match="has no expert: as a 'gem-2b' checkpoint it holds backbone, generator"
    ):
        open_checkpoint(gem_2b).part("expert")


def test_unknown_weight_is_named(gem_2b):
    edit_weights(gem_2b, lambda weights: weights.update({"sanaa.weight": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"neither Qwen3-VL's nor GEM-2B's: unexpected: sanaa\.weight"):
        open_checkpoint(gem_2b)


def test_another_model_is_named(gem_2b):
    edit_config(gem_2b, model_type="qwen2_vl")
    with pytest.raises(ValueError, match="is a 'qwen2_vl' checkpoint; the backbone needs 'qwen3_vl'"):
        open_checkpoint(gem_2b)


def test_pipeline_without_weights(gem_2b, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (gem_2b / file).unlink()
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model\.safetensors"):
        open_checkpoint(gem_2b)
    with pytest.raises(FileNotFoundError, match="is no SANA pipeline: expected transformer/config.json"):
        read_sana_architecture(tmp_path)


def test_configuration_cut_short(gem_2b):
    (gem_2b / "config.json").write_text('{"model_type": "qwen3')
    with pytest.raises(ValueError, match=r"config\.json can't be read"):
        open_checkpoint(gem_2b)


@pytest.mark.parametrize("pretrained", ["nobody/no-such-model", "/no/such/folder"])
def test_nothing_there_offline(pretrained):
    with pytest.raises(FileNotFoundError, match=f"'{pretrained}'.*HF_HUB_OFFLINE"):
        open_checkpoint(pretrained, local_files_only=True)


def test_what_keeps_a_checkpoint_from_being_downloaded_is_told():
    missing = pytest.raises(FileNotFoundError, match="No checkpoint at 'me/gem'.* client says: too many")
    with missing, looked_for("me/gem"):
        raise OSError("too many requests")
    with pytest.raises(OSError, match="No space left on device"), looked_for("me/gem"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_expert_of_another_kind(tmp_path):
    save_file({"weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match="not the weights of the release's action expert: missing .* unexpected weight"
    ):
        open_checkpoint(tmp_path)


def test_another_pipeline_is_named(gem_2b):
    edit_config(gem_2b / "transformer", _class_name="FluxTransformer2DModel")
    with pytest.raises(
        ValueError, match="transformer is a 'FluxTransformer2DModel': expected the 'SanaTransformer2DModel'"
    ):
        read_sana_architecture(gem_2b)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_come_from_the_hub_in_either_format_but_not_in_both(name, tmp_path: Path, monkeypatch):
    repository, cache = tmp_path / "repository", tmp_path / "cache"
    repository.mkdir()
    for file in {name, "pytorch_model.bin", "config.json"}:
        (repository / file).write_bytes(b"")

    def download(repo_id: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        """What the Hub's client would fetch, by its own rules."""
        names = [file.name for file in repository.iterdir() if file.is_file()]
        for file in filter_repo_objects(
            names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            cache.mkdir(exist_ok=True)
            shutil.copy(repository / file, cache)
        return str(cache)

    monkeypatch.setattr(formats, "snapshot_download", download)
    formats._local("somebody/weights")
    assert {file.name for file in cache.iterdir()} == {name, "config.json"}
