"""What is checked when a checkpoint is loaded."""

import json
from pathlib import Path

import pytest
from lerobot.configs import PreTrainedConfig

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import CAMERAS


@pytest.fixture
def checkpoint(make_policy, tmp_path: Path) -> Path:
    policy, *_ = make_policy()
    policy.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


@pytest.mark.parametrize("change", [{"names": CAMERAS[::-1]}, {"max_pixels": 64 * 64}])
def test_cameras_are_those_of_the_checkpoint(checkpoint: Path, change: dict) -> None:
    config = PreTrainedConfig.from_pretrained(checkpoint)
    assert GemVLAPolicy.from_pretrained(checkpoint, config=config).config.cameras.names == list(CAMERAS)
    for name, value in change.items():
        setattr(config.cameras, name, value)
    with pytest.raises(ValueError, match=r"is not what the checkpoint was trained with, .*--rename_map"):
        GemVLAPolicy.from_pretrained(checkpoint, config=config)


@pytest.mark.parametrize(
    ("part", "size"),
    [
        (("text_config", "vocab_size"), 2_000_000_000),
        (("text_config", "num_hidden_layers"), 10**9),
        (("text_config", "hidden_size"), 10**12),
        (("vision_config", "depth"), 10**9),
        (("vision_config", "num_position_embeddings"), 10**12),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_sizes_are_bounded_by_the_weights_beside_them(
    checkpoint: Path, part: tuple[str, str], size: int
) -> None:
    """As `--policy.path` and as `--policy.backbone.pretrained`; a gem_vla keeps the first decoder layers alone."""
    values = json.loads((checkpoint / "config.json").read_text())
    values["built"]["backbone"][part[0]][part[1]] = size
    (checkpoint / "config.json").write_text(json.dumps(values))
    too_large = "config.json asks for a model that is far larger than the weights beside it"
    if part[1] != "num_hidden_layers":
        with pytest.raises(ValueError, match=too_large):
            GemVLAPolicy.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match=too_large):
        load_backbone(open_checkpoint(checkpoint))


@pytest.mark.parametrize(
    "built",
    [
        {"images": 7},
        {"images": {"cameras": 7}},
        {"backbone": "x"},
        {"backbone": {"vision_config": None}},
        {"expert": {"hidden_size": "x"}},
        {"expert": {"num_heads": -1}},
        {"conditioning": "zz"},
        {"action_dim": "x"},
        {"action_dim": -1},
    ],
    ids=str,
)
def test_malformed_values_name_their_file(checkpoint: Path, built: dict, tmp_path: Path) -> None:
    """As a policy that is loaded, and as one that is converted to act."""
    file = checkpoint / "config.json"
    values = json.loads(file.read_text())
    for name, value in built.items():
        known = values["built"][name]
        values["built"][name] = known | value if isinstance(value, dict) else value
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=str(file)):
        GemVLAPolicy.from_pretrained(checkpoint)
    if "backbone" in built or "expert" in built or "action_dim" in built:
        with pytest.raises(ValueError, match=f"{checkpoint}.*config.json"):
            convert(ConvertConfig(SourceCheckpoint(str(checkpoint)), tmp_path / "acting", format="acting"))


def test_a_damaged_configuration_names_its_file(checkpoint: Path) -> None:
    file = checkpoint / "config.json"
    values = json.loads(file.read_text())
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.built.backbone = {"type": "gem"}
    with pytest.raises(ValueError, match="built.backbone describes no vision tower"):
        config.settle_images()
    values["built"]["backbone"]["text_config"]["vocab_size"] = {"": None}
    for text, message in (
        (json.dumps(values), f"{file} describes nothing that can be built"),
        (json.dumps(values)[:200], f"{file} describes nothing that can be built"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            GemVLAPolicy.from_pretrained(checkpoint)


def test_a_kernel_of_the_hub_is_refused(checkpoint: Path) -> None:
    values = json.loads((checkpoint / "config.json").read_text())
    values["built"]["backbone"]["text_config"]["_attn_implementation"] = "evil/kernel"
    (checkpoint / "config.json").write_text(json.dumps(values))
    for load in (GemVLAPolicy.from_pretrained, lambda folder: load_backbone(open_checkpoint(folder))):
        with pytest.raises(ValueError, match="asks for the kernel _attn_implementation='evil/kernel'"):
            load(checkpoint)


def test_a_gem_checkpoint_does_not_act(make_gem, checkpoint: Path, tmp_path: Path) -> None:
    policy, *_ = make_gem(stage="joint")
    policy.save_pretrained(tmp_path / "gem")
    with pytest.raises(
        ValueError,
        match=f"^A `gem` policy is pre-trained to see .*--policy.backbone.pretrained={tmp_path}/gem ",
    ):
        GemVLAPolicy.from_pretrained(tmp_path / "gem")
    with pytest.raises(ValueError, match=f"^{checkpoint} is a 'gem_vla' checkpoint: expected 'gem'"):
        GemPolicy.from_pretrained(checkpoint)


def test_the_folder_of_a_run_names_the_checkpoint_in_it(checkpoint: Path, tmp_path: Path) -> None:
    """As a policy that is loaded, and as one that is converted or trained on."""
    inside = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    inside.parent.mkdir(parents=True)
    checkpoint.rename(inside)
    for folder in (inside.parents[2], inside.parents[1], inside.parent):
        for load in (GemVLAPolicy.from_pretrained, open_checkpoint):
            with pytest.raises(
                FileNotFoundError, match=f"^{folder} is a folder of a training run.*Give {inside}"
            ):
                load(folder)
    assert open_checkpoint(inside).format == "policy"


@pytest.mark.parametrize("pretrained", ["nobody/nothing", "/no/such/folder"])
def test_a_checkpoint_that_is_not_there(pretrained: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^No checkpoint at '{pretrained}'"):
        GemVLAPolicy.from_pretrained(pretrained, local_files_only=True)


def test_a_folder_without_configuration(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"^{checkpoint} has no config.json: expected"):
        GemVLAPolicy.from_pretrained(checkpoint)
