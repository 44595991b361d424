"""Checkpoints of several formats answer, or say why they can't."""

import shutil
from pathlib import Path

import pytest
import torch

from lerobot_gem.evaluation.vqa_models import load_answerer
from lerobot_gem.models.precision import autocast_weights
from tests.checkpoints.conftest import edit_config
from tests.policies.gem.test_modeling_gem import save


def load(model: Path | str, **values):
    defaults = {"device": "cpu", "dtype": "float32", "max_new_tokens": 4}
    return load_answerer(model, **defaults | values)


def test_an_action_policy_that_kept_few_layers_is_refused(make_policy, tmp_path):
    policy, *processors = make_policy()
    folder = save(tmp_path / "action", policy, *processors)
    with pytest.raises(ValueError, match=r"keeps 2 of 4 decoder layers, .* Evaluate the `gem` checkpoint"):
        load(folder)


def test_an_action_policy_with_all_layers_answers_as_the_one_that_its_backbone_came_from(
    make_policy, policy, questions, tmp_path
):
    from lerobot_gem.policies.base_options import BackboneConfig
    from lerobot_gem.policies.expert_options import ExpertConfig

    acting, *processors = make_policy(
        questions,
        backbone=BackboneConfig(pretrained=str(policy)),
        expert=ExpertConfig(conditioning_layers=[0, 2, 4]),
    )
    folder = save(tmp_path / "action", acting, *processors)
    asked = [([torch.rand(3, 64, 64)], "Where is it?")]
    assert load(folder).answer(asked) == load(policy).answer(asked)


def test_a_policy_in_bfloat16_is_stored_as_it_computes(policy):
    """Autocast would cast these weights each time; without a number of the answer changing."""
    asked = [([torch.rand(3, 64, 64)], "Where is it?")]
    answerer = load(policy, dtype="bfloat16")
    cast = autocast_weights(answerer.backbone)
    types = {name: weight.dtype for name, weight in answerer.backbone.named_parameters()}
    assert cast and {types[name] for name in cast} == {torch.bfloat16}
    assert {types[name] for name in types.keys() - cast} == {torch.float32}
    stored = answerer.answer(asked)
    answerer.backbone.float()
    assert answerer.answer(asked) == stored


def test_plain_weights_have_the_type_that_is_asked_for(plain):
    for dtype in ("bfloat16", "float32"):
        answerer = load(plain, dtype=dtype)
        assert {weight.dtype for weight in answerer.backbone.parameters()} == {getattr(torch, dtype)}
        assert answerer.answer([([torch.rand(3, 64, 64)], "Where is it?")])


def test_a_model_without_language_head_is_refused(plain, tmp_path):
    folder = tmp_path / "headless"
    shutil.copytree(plain, folder)
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match="no language head. Evaluate the `gem` checkpoint"):
        load(folder)


def test_a_model_without_image_processor_is_refused(plain, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(plain, folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(OSError, match="preprocessor_config.json"):
        load(folder)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_here_is_told_before_anything_is_loaded(policy, device, monkeypatch):
    from lerobot_gem.evaluation import vqa_models

    monkeypatch.setattr(vqa_models, "open_checkpoint", lambda _: pytest.fail("it was opened"))
    with pytest.raises(ValueError, match=f"^policy.device='{device}': .* Give --policy.device="):
        load(policy, device=device)


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="No checkpoint at 'nobody/nothing'"):
        load("nobody/nothing")


def test_images_have_the_sizes_that_the_model_states_or_the_user(plain, policy, monkeypatch):
    """The tiny preset shows at most 128 x 128 pixels, 16 tokens; the plain folder's image processor says so too."""
    from lerobot_gem.models.backbone import GemBackbone

    shown = []
    whole = GemBackbone.for_generation

    def spy(backbone):
        model = whole(backbone)
        generate = model.generate
        monkeypatch.setattr(model, "generate", lambda **inputs: shown.append(inputs) or generate(**inputs))
        return model

    monkeypatch.setattr(GemBackbone, "for_generation", spy)
    question = [([torch.rand(3, 512, 512)], "What is it?")]
    for model, values in (
        (plain, {}),
        (policy, {}),
        (plain, {"max_pixels": 64 * 64}),
        (policy, {"max_pixels": 64 * 64}),
    ):
        load(model, **values).answer(question)
    with pytest.raises(
        ValueError, match="min_pixels=20000, max_pixels=16384: expected areas of images, the smallest first"
    ):
        load(plain, min_pixels=20_000)
    tokens = [int((inputs["input_ids"] == 3).sum()) for inputs in shown]
    assert tokens == [16, 16, 4, 4]
