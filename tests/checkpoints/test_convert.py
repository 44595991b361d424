import json
import math
import resource
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from lerobot_gem.checkpoints import formats
from lerobot_gem.checkpoints.convert import FORMATS, ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.checkpoints.files import load_weights
from lerobot_gem.checkpoints.formats import Checkpoint, open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.policies.base_options import BackboneConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.processing.chat import conversation
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer, encode
from lerobot_gem.scripts.convert import main
from tests.checkpoints.conftest import contents, edit_config, edit_weights
from tests.checkpoints.test_release_expert import RELEASED_SHAPES
from tests.models.test_backbone import golden_inputs


def converted(source: Path, output_dir: Path, **options) -> Checkpoint:
    return convert(ConvertConfig(SourceCheckpoint(str(source)), output_dir, **options))


def weights_of(folder: Path) -> dict:
    return contents(open_checkpoint(folder).weights)


def whole_backbone(folder: Path) -> GemBackbone:
    return load_backbone(open_checkpoint(folder), language_head=True).eval()


@torch.no_grad()
def transformers_logits(folder: Path, golden) -> Tensor:
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokens, mask, pixels, grid = golden_inputs(golden)
    types = (tokens == model.config.image_token_id).int()
    return model(
        input_ids=tokens,
        attention_mask=mask,
        pixel_values=pixels,
        image_grid_thw=grid,
        mm_token_type_ids=types,
    ).logits


# --- parity with the official code on its checkpoint ------------------------------------------------------------


@pytest.mark.parity
def test_logits_and_language_loss_match(gem_checkpoint, gem_2b):
    backbone = whole_backbone(gem_2b)
    tokens, *_ = inputs = golden_inputs(gem_checkpoint)
    with torch.no_grad():
        logits = backbone.logits(backbone.final_states(*inputs))
    gem_checkpoint.check("out.logits", logits)
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], gem_checkpoint["in.labels"][0, 1:])
    gem_checkpoint.check("out.lm_loss", loss[None], tolerance="loss_scalars")


@pytest.mark.parity
def test_padded_logits_match(gem_checkpoint, gem_2b):
    backbone = whole_backbone(gem_2b)
    inputs = golden_inputs(gem_checkpoint, "b2.")
    with torch.no_grad():
        logits = backbone.logits(backbone.final_states(*inputs))
    real = inputs[1].bool()[..., None]
    gem_checkpoint.check("out.b2.logits", torch.where(real, logits, gem_checkpoint["out.b2.logits"]))


@pytest.mark.parity
@pytest.mark.parametrize("drop", ["nodrop", "drop"])
def test_depth_loss_and_total_loss_match(gem_checkpoint, gem_2b, drop):
    """Backbone, vision spans and depth generator, all from one released checkpoint."""
    checkpoint = open_checkpoint(gem_2b)
    backbone, generator = whole_backbone(gem_2b), load_generator(gem_2b)
    tokens, *_ = inputs = golden_inputs(gem_checkpoint)
    steps = generator.scheduler.config.num_train_timesteps
    with torch.no_grad():
        states = backbone.final_states(*inputs)
        losses = generator.loss(
            *backbone.vision_spans(states, tokens),
            gem_checkpoint["in.input_images"],
            noise=gem_checkpoint["in.dit_noise"],
            timestep_indices=(gem_checkpoint["in.dit_u"] * steps).long(),
            drop=gem_checkpoint["in.drop"].bool() & (drop == "drop"),
        )
        language = torch.nn.functional.cross_entropy(
            backbone.logits(states)[0, :-1], gem_checkpoint["in.labels"][0, 1:]
        )
    assert checkpoint.format == "gem-2b"
    gem_checkpoint.check(f"out.dit_loss.{drop}", losses.mean()[None], tolerance="loss_scalars")
    total = language + 0.1 * losses.mean()
    gem_checkpoint.check(f"out.loss.{drop}", total[None], tolerance="loss_scalars")


@pytest.mark.parity
def test_generated_pictures_match(gem_checkpoint, gem_2b):
    backbone, generator = whole_backbone(gem_2b), load_generator(gem_2b)
    tokens = gem_checkpoint["in.gen.input_ids"]
    pixels, grid = gem_checkpoint["in.gen.pixel_values"], gem_checkpoint["in.gen.image_grid_thw"]
    expected = gem_checkpoint["out.gen.images"]
    with torch.no_grad():
        states = backbone.final_states(tokens, torch.ones_like(tokens), pixels, grid)
        pictures = generator.sample(
            *backbone.vision_spans(states, tokens),
            tuple(expected.shape[-2:]),
            guidance_scale=5.0,
            num_inference_steps=4,
            latents=gem_checkpoint["in.gen.init_latents"],
        )
    gem_checkpoint.check("out.gen.images", pictures)


def load_generator(folder: Path) -> DepthGenerator:
    checkpoint = open_checkpoint(folder)
    width = checkpoint.backbone_config["text_config"]["hidden_size"]
    generator = DepthGenerator(checkpoint.depth_architecture, width).eval()
    load_weights(generator, checkpoint.part("generator"), fault="unused")
    return generator


# --- out --------------------------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("max_shard_gb", [5.0, 2e-4], ids=["one file", "shards"])
def test_transformers_reads_the_plain_model(gem_checkpoint, gem_2b, tmp_path, max_shard_gb):
    written = converted(gem_2b, tmp_path / "qwen", max_shard_gb=max_shard_gb)
    assert (written.format, written.parts) == ("qwen3-vl", {"backbone"})
    assert len(list((tmp_path / "qwen").glob("*.safetensors"))) > 1 or max_shard_gb == 5.0
    config = json.loads((tmp_path / "qwen" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]
    gem_checkpoint.check("out.logits", transformers_logits(tmp_path / "qwen", gem_checkpoint))


def test_plain_models_own_files_are_kept(gem_2b, tmp_path):
    build_tiny_tokenizer().save_pretrained(gem_2b)
    converted(gem_2b, tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (gem_2b / name).read_bytes()


def test_released_format_there_and_back_is_bit_equal(gem_2b, tmp_path):
    converted(gem_2b, tmp_path / "shards", format="gem-2b", max_shard_gb=3e-4)
    converted(tmp_path / "shards", tmp_path / "one", format="gem-2b")
    original = contents(load_file(gem_2b / "model.safetensors"))
    assert contents(load_file(tmp_path / "one" / "model.safetensors")) == original
    assert weights_of(tmp_path / "shards") == weights_of(gem_2b)
    assert open_checkpoint(tmp_path / "one").depth_architecture == open_checkpoint(gem_2b).depth_architecture


@pytest.mark.parametrize("tied", [True, False])
def test_language_head_is_kept_where_it_is_stored(gem_2b, tmp_path, tied):
    def add_head(weights):
        weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"] + (not tied)

    edit_weights(gem_2b, add_head)
    text = json.loads((gem_2b / "config.json").read_text())["text_config"]
    edit_config(gem_2b, tie_word_embeddings=tied, text_config=text | {"tie_word_embeddings": tied})
    converted(gem_2b, tmp_path / "out", format="gem-2b")
    assert weights_of(tmp_path / "out") == weights_of(gem_2b)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight.equal(load_file(gem_2b / "model.safetensors")["lm_head.weight"])


def test_generator_that_the_source_does_not_describe(gem_checkpoint, reference_folder, gem_2b, tmp_path):
    for folder in ("transformer", "vae", "scheduler"):
        shutil.rmtree(gem_2b / folder)
    with pytest.raises(ValueError, match=r"(?s)missing: .*shape of .*--sana"):
        converted(gem_2b, tmp_path / "out", format="gem-2b")
    assert not (tmp_path / "out").exists()
    sana = str(reference_folder / gem_checkpoint.spec["hub_standin"])
    converted(gem_2b, tmp_path / "out", format="gem-2b", sana=sana)
    assert weights_of(tmp_path / "out") == weights_of(gem_2b)


# --- our policies -----------------------------------------------------------------------------------------------


def policy_with_whole_backbone(make_policy):
    """A tiny gem_vla that reads the last layer, so that it keeps all of them."""
    return make_policy(expert=ExpertConfig(conditioning_layers=[0, 2, 4]))


def save(folder: Path, *parts) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


QUESTION = "where is the red cube? Über 12"


def test_our_policy_becomes_a_plain_model_with_its_processor(make_policy, tmp_path):
    policy, *pipelines = policy_with_whole_backbone(make_policy)
    folder = save(tmp_path / "policy", policy, *pipelines)
    converted(folder, tmp_path / "qwen")
    assert weights_of(tmp_path / "qwen") == contents(
        {name: w for name, w in policy.state_dict().items() if name.startswith("backbone.")}
    )

    processor = AutoProcessor.from_pretrained(tmp_path / "qwen")
    images = [Image.effect_noise((90, 70), 50).convert("RGB"), Image.new("RGB", (64, 64))]
    content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    tokens = (inputs["image_grid_thw"].prod(dim=1) // 4).tolist()
    prompt, _ = conversation([(QUESTION, "answer")], tokens)
    tokenizer = build_tiny_tokenizer()
    assert inputs["input_ids"][0].tolist() == encode(tokenizer, prompt[0])
    assert AutoTokenizer.from_pretrained(tmp_path / "qwen")(QUESTION) == tokenizer(QUESTION)

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "qwen").eval()
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        ours = whole_backbone(folder)
        states = ours.final_states(
            *(inputs[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"))
        )
        torch.testing.assert_close(model(**inputs).logits, ours.logits(states), rtol=1e-5, atol=1e-5)


def test_truncated_policy_is_refused(make_policy, tmp_path):
    policy, *pipelines = make_policy()
    folder = save(tmp_path / "policy", policy, *pipelines)
    with pytest.raises(
        ValueError, match=r"(?s)missing: model\.language_model\.layers\.2\..*trained without depth keeps"
    ):
        converted(folder, tmp_path / "qwen")
    assert not (tmp_path / "qwen").exists()


def test_policy_without_its_processors(make_policy, tmp_path):
    folder = save(tmp_path / "policy", policy_with_whole_backbone(make_policy)[0])
    with pytest.raises(FileNotFoundError, match="lacks policy_preprocessor.json"):
        converted(folder, tmp_path / "qwen")


@pytest.mark.parametrize("pipeline", ["policy_preprocessor.json", "policy_postprocessor.json"])
@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"class": "subprocess.Popen", "config": {"args": ["true"]}}, "by the path of a class"),
        (
            {"registry_name": "normalizer_processor", "state_file": "../x.safetensors"},
            "expected the name of a file beside it",
        ),
    ],
)
def test_processors_that_could_run_code_are_not_copied(make_policy, tmp_path, step, message, pipeline):
    for part in make_policy():
        part.save_pretrained(tmp_path / "policy")
    file = tmp_path / "policy" / pipeline
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"steps": [*values["steps"], step]}))
    for format in FORMATS:
        with pytest.raises(ValueError, match=message):
            converted(tmp_path / "policy", tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()


def test_policy_without_generator_is_no_gem_2b(make_policy, tmp_path):
    policy, *pipelines = policy_with_whole_backbone(make_policy)
    folder = save(tmp_path / "policy", policy, *pipelines)
    with pytest.raises(ValueError, match="has no generator"):
        converted(folder, tmp_path / "out", format="gem-2b")


def test_released_format_through_our_policy_is_bit_equal(make_gem, gem_2b, tmp_path):
    build_tiny_tokenizer().save_pretrained(gem_2b)
    # All stages are behind released weights, so that none is skipped.
    released = BackboneConfig(pretrained=str(gem_2b))
    policy, *pipelines = make_gem(stage="joint", backbone=released, allow_untrained=False)
    assert policy.config.built.stages_done == ["connector", "generator", "joint"]
    folder = save(tmp_path / "policy", policy, *pipelines)
    assert weights_of(folder) == weights_of(gem_2b)
    converted(folder, tmp_path / "out", format="gem-2b")
    original = contents(load_file(gem_2b / "model.safetensors"))
    assert contents(load_file(tmp_path / "out" / "model.safetensors")) == original
    assert open_checkpoint(tmp_path / "out").depth_architecture == open_checkpoint(gem_2b).depth_architecture


# --- the action expert ------------------------------------------------------------------------------------------


def test_expert_of_a_policy_is_what_the_release_names(make_policy, tmp_path):
    policy, *_ = make_policy()
    folder = save(tmp_path / "policy", policy)
    written = converted(folder, tmp_path / "rdt", format="rdt")
    assert (written.format, written.parts) == ("rdt", {"expert"})
    assert contents(written.part("expert")) == contents(policy.expert.state_dict())
    assert [file.name for file in (tmp_path / "rdt").iterdir()] == ["model.safetensors"]
    # The release's demo has more blocks than the tiny expert, and the same names in each.
    blocks = tuple(f"model.blocks.{index}." for index in range(len(policy.expert.blocks)))
    assert load_file(tmp_path / "rdt" / "model.safetensors").keys() == {
        name for name in RELEASED_SHAPES["tensors"] if "blocks" not in name or name.startswith(blocks)
    }


def test_released_expert_there_and_back_is_bit_equal(tmp_path):
    """The official code wrote the weights."""
    official = Path(__file__).parents[1] / "reference" / "rdt_small.weights.0.safetensors"
    converted(official, tmp_path / "rdt", format="rdt")
    assert contents(load_file(tmp_path / "rdt" / "model.safetensors")) == contents(load_file(official))
    assert weights_of(tmp_path / "rdt") == weights_of(official)


def test_policy_starts_from_a_converted_expert(make_policy, tmp_path):
    policy, *_ = make_policy()
    converted(save(tmp_path / "policy", policy), tmp_path / "rdt", format="rdt")
    other, *_ = make_policy(expert=ExpertConfig(pretrained=str(tmp_path / "rdt")))
    assert contents(other.expert.state_dict()) == contents(policy.expert.state_dict())


def test_checkpoint_without_expert_is_no_rdt(gem_2b, tmp_path):
    with pytest.raises(ValueError, match="has no expert"):
        converted(gem_2b, tmp_path / "out", format="rdt")
    assert not (tmp_path / "out").exists()


# --- faults -----------------------------------------------------------------------------------------------------


def test_missing_weight_is_named_before_anything_is_written(gem_2b, tmp_path):
    edit_weights(gem_2b, lambda weights: weights.pop("model.visual.pos_embed.weight"))
    with pytest.raises(ValueError, match=r"missing: model\.visual\.pos_embed\.weight"):
        converted(gem_2b, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "onnx"}, "format='onnx' is unknown: expected one of 'qwen3-vl', 'gem-2b', 'rdt'"),
        ({"max_shard_gb": 0}, "max_shard_gb=0: expected a finite number above 0"),
        ({"max_shard_gb": math.nan}, "max_shard_gb=nan: expected a finite number above 0"),
        ({"max_shard_gb": math.inf}, "max_shard_gb=inf: expected a finite number above 0"),
        ({"max_shard_gb": 1, "format": "rdt"}, "max_shard_gb=1 has no effect with format='rdt'"),
        ({"max_shard_gb": 5.0, "format": "policy"}, "max_shard_gb=5.0 has no effect with format='policy'"),
        ({"max_shard_gb": 1, "format": "acting"}, "no effect with format='acting'.* 'qwen3-vl' and 'gem-2b'"),
        ({"sana": "somebody/sana"}, "sana='somebody/sana' has no effect with format='qwen3-vl'"),
        ({"sana": "here", "format": "policy"}, "sana='here' has no effect with format='policy'"),
    ],
)
def test_bad_options_are_named(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ConvertConfig(SourceCheckpoint("anywhere"), tmp_path, **values)


# --- the command ------------------------------------------------------------------------------------------------


def run(monkeypatch, source: Path | str, output_dir: Path, *options: str) -> None:
    monkeypatch.setattr(
        "sys.argv", ["convert", f"--policy.path={source}", f"--output_dir={output_dir}", *options]
    )
    main()


def test_output_is_never_overwritten(gem_2b, monkeypatch):
    for output in (gem_2b, gem_2b / "config.json"):
        with pytest.raises(SystemExit, match="exists and is not an empty folder"):
            run(monkeypatch, gem_2b, output)


def test_command_says_what_it_wrote(gem_2b, tmp_path, monkeypatch, capsys):
    run(monkeypatch, gem_2b, tmp_path / "out")
    written = open_checkpoint(tmp_path / "out")
    assert f"{tmp_path / 'out'}: qwen3-vl, {len(written.weights)} weights" in capsys.readouterr().out


def test_a_full_disk_leaves_nothing(gem_2b, tmp_path, monkeypatch):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))  # config.json fits, the weights do not
    try:
        with pytest.raises(
            SystemExit, match=f"No space left on the disk of {tmp_path / 'out'}. Free some and"
        ):
            run(monkeypatch, gem_2b, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not (tmp_path / "out").exists()
    run(monkeypatch, gem_2b, tmp_path / "out")


def test_source_on_the_hub_is_fetched_once_in_its_revision(gem_2b, tmp_path, monkeypatch):
    fetched = []

    def download(repo_id: str, *, revision: str | None, **patterns: list[str]) -> str:
        fetched.append((repo_id, revision))
        return str(gem_2b)

    monkeypatch.setattr(formats, "snapshot_download", download)
    run(monkeypatch, "somebody/gem", tmp_path / "out", "--policy.revision=v1", "--format=gem-2b")
    assert fetched == [("somebody/gem", "v1")]
    assert weights_of(tmp_path / "out") == weights_of(gem_2b)


def test_a_folder_has_no_revision(gem_2b, tmp_path, monkeypatch):
    with pytest.raises(
        SystemExit, match=f"policy.revision='v1' has no effect, since policy.path={gem_2b} is on this"
    ):
        run(monkeypatch, gem_2b, tmp_path / "out", "--policy.revision=v1")
    assert not (tmp_path / "out").exists()


def test_command_needs_a_source(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["convert", f"--output_dir={tmp_path / 'out'}"])
    with pytest.raises(SystemExit, match="Missing required field.* `policy`"):
        main()
