"""The tokenizer that comes with a checkpoint: the checkpoint's own, or an error that says what is missing.

What a policy's processor files do in transformers is tested in test_convert.py.
"""

import json
from pathlib import Path

import pytest
from transformers import AutoImageProcessor, AutoTokenizer

from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.processor_files import (
    check_processor_files,
    load_tokenizer,
    write_processor_files,
)
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer

TEXT = "where is the red cube? Über 12"
PIPELINE = "policy_preprocessor.json"


@pytest.fixture
def policy(make_policy, tmp_path: Path) -> Path:
    """The folder of a policy with its processors."""
    for part in make_policy():
        part.save_pretrained(tmp_path)
    return tmp_path


def edit_steps(policy: Path, edit) -> None:
    values = json.loads((policy / PIPELINE).read_text())
    values["steps"] = edit(values["steps"])
    (policy / PIPELINE).write_text(json.dumps(values))


def load(folder: Path):
    return load_tokenizer(open_checkpoint(folder))


def test_backbone_from_scratch_has_the_tiny_tokenizer():
    assert load_tokenizer(None)(TEXT) == build_tiny_tokenizer()(TEXT)


def test_tokenizer_of_a_plain_model_is_its_own(gem_2b):
    tokenizer = build_tiny_tokenizer()
    tokenizer.add_tokens(["red cube"])
    tokenizer.save_pretrained(gem_2b)
    assert load(gem_2b)(TEXT) == tokenizer(TEXT) != build_tiny_tokenizer()(TEXT)


def test_plain_model_without_tokenizer(gem_2b):
    with pytest.raises(FileNotFoundError, match=f"No tokenizer in {gem_2b}: expected tokenizer.json"):
        load(gem_2b)


def test_tokenizer_of_a_policy_is_that_of_its_prompt_step(policy):
    assert load(policy)(TEXT) == build_tiny_tokenizer()(TEXT)


def test_other_steps_are_not_built(policy):
    unknown = {"registry_name": "gem_no_such_step", "config": {"no": "such argument"}}
    edit_steps(policy, lambda steps: [unknown, *steps])
    assert load(policy)(TEXT) == build_tiny_tokenizer()(TEXT)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_pixels": 4096}, "max_pixels 4096, not "),
        ({"cameras": ["observation.images.other"]}, r"cameras \['observation.images.other'\], not "),
        ({"layout": "concat"}, "layout 'concat', not 'separate'"),
    ],
)
def test_a_prompt_step_of_another_checkpoint_is_refused(policy, changed, message):
    def edit(steps):
        [prompt] = [step for step in steps if step["registry_name"] == "gem_prompt"]
        prompt["config"] |= changed
        return steps

    edit_steps(policy, edit)
    with pytest.raises(ValueError, match=f"{PIPELINE} makes other images than .*config.json says.*{message}"):
        GemVLAPolicy.from_pretrained(policy)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"class": "subprocess.Popen", "config": {"args": ["touch", "FILE"]}}, "by the path of a class"),
        ({"class": "no_such_package.steps.Step"}, "by the path of a class"),
        (
            {"registry_name": "action_tokenizer_processor", "config": {"action_tokenizer_name": "evil/repo"}},
            "has the step 'action_tokenizer_processor': expected steps of this package",
        ),
        ({"registry_name": ["gem_prompt"]}, "by the path of a class"),
        ({"registry_name": "normalizer_processor", "state_file": "../x.safetensors"}, "expected the name of a file beside"),
        ({"registry_name": "normalizer_processor", "state_file": "/etc/passwd"}, "expected the name of a file beside"),
        ({"registry_name": "normalizer_processor", "state_file": "..\\x"}, "expected the name of a file beside"),
        ({"registry_name": "normalizer_processor", "state_file": 7}, "expected the name of a file beside"),
        ("a text", "expected a list 'steps'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pipeline", [PIPELINE, "policy_postprocessor.json"])
def test_files_that_could_run_code_are_refused(policy, pipeline, step, message, tmp_path):
    victim = tmp_path / "ran"
    if isinstance(step, dict) and "config" in step:
        step = json.loads(json.dumps(step).replace("FILE", str(victim)))
    values = json.loads((policy / pipeline).read_text())
    values["steps"].append(step)
    (policy / pipeline).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        check_processor_files(policy)
    if pipeline == PIPELINE:
        with pytest.raises(ValueError, match=message):
            load(policy)
    with pytest.raises(ValueError, match=message):  # before LeRobot's own loader is called
        GemVLAPolicy.from_pretrained(policy)
    assert not victim.exists()


def test_policy_without_prompt_step(policy):
    edit_steps(policy, lambda steps: [step for step in steps if step.get("registry_name") != "gem_prompt"])
    with pytest.raises(ValueError, match=f"{PIPELINE} has no step 'gem_prompt', which holds the tokenizer"):
        load(policy)


def test_missing_files_of_a_policy_are_named(policy):
    [state] = [file for file in policy.glob("policy_preprocessor_*.safetensors") if "prompt" in file.name]
    state.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"lacks {state.name}.*: expected the folder pretrained_model"
    ):
        load(policy)
    (policy / PIPELINE).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"lacks {PIPELINE}, .*: expected the folder pretrained_model"
    ):
        load(policy)


@pytest.mark.parametrize("text", ['{"steps": [', "[" * 200_000])
def test_pipeline_cut_short(policy, text):
    (policy / PIPELINE).write_text(text)
    with pytest.raises(ValueError, match=f"{PIPELINE} can't be read"):
        load(policy)


@pytest.mark.parametrize("damage", [{"config": 0.5}, {"config": {"layout": "separate"}}, {"state_file": ""}])
def test_a_prompt_step_that_can_not_be_built_names_its_file(policy, damage):
    def edit(steps):
        return [{**step, **damage} if step.get("registry_name") == "gem_prompt" else step for step in steps]

    edit_steps(policy, edit)
    with pytest.raises(
        (ValueError, FileNotFoundError), match=f"{PIPELINE} describes nothing|the tokenizer: expected"
    ):
        load(policy)


def test_processor_files_are_those_of_the_policy(policy, tmp_path):
    output_dir = tmp_path / "processor"
    output_dir.mkdir()
    write_processor_files(open_checkpoint(policy), output_dir)
    step = next(
        step
        for step in json.loads((policy / PIPELINE).read_text())["steps"]
        if step.get("registry_name") == "gem_prompt"
    )
    assert AutoTokenizer.from_pretrained(output_dir)(TEXT) == build_tiny_tokenizer()(TEXT)
    images = AutoImageProcessor.from_pretrained(output_dir)
    assert images.patch_size == step["config"]["patch_size"]
    assert images.size["longest_edge"] == step["config"]["max_pixels"]
