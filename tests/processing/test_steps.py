"""The steps that read language and write prompts."""

import json

import pytest
import torch

from lerobot_gem.processing.steps import IGNORED, OBS_LABELS, OBS_SHOWN, LanguageRowsStep, PromptStep
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer
from lerobot_gem.storage.language_columns import row
from tests.conftest import CAMERAS

IMAGES = {
    "cameras": list(CAMERAS),
    "layout": "separate",
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 64 * 64,
    "max_pixels": 128 * 128,
}


def learned_texts(preprocess, batch) -> list[str]:
    inputs = preprocess(batch)
    tokenizer = next(step for step in preprocess.steps if isinstance(step, PromptStep)).tokenizer
    return [tokenizer.decode(labels[labels != IGNORED]) for labels in inputs[OBS_LABELS]]


def test_language_columns_that_lerobot_delivers_are_used_as_they_are(make_gem, depth_batch):
    _, preprocess, _ = make_gem(stage="joint")
    events = [row("user", "What?", "vqa", CAMERAS[0]), row("assistant", "That.", "vqa", CAMERAS[0])]
    subtask = row("assistant", "reach", "subtask", timestamp=0.0)
    delivered = {"language_events": [events, [], []], "language_persistent": [[], [subtask], []]}
    texts = learned_texts(preprocess, {**depth_batch, **delivered})
    end = "<|im_end|>\n"
    assert texts == ["", f"That.{end}", f"reach{end}", f"Pick up the milk and place it in the basket.{end}"]


def test_a_dataset_without_language_columns_takes_the_place_of_one_with(
    make_gem, dataset_root, depth_dataset_root, depth_batch
):
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

    _, preprocess, _ = make_gem(stage="joint")
    LanguageRowsStep.bind(LeRobotDatasetMetadata("local/noise", root=dataset_root))
    assert not any("There." in text for text in learned_texts(preprocess, depth_batch))
    LanguageRowsStep.bind(LeRobotDatasetMetadata("local/noise", root=depth_dataset_root))
    assert any("There." in text for text in learned_texts(preprocess, depth_batch))


def test_a_prompt_step_saved_before_there_were_answers_still_loads():
    step = PromptStep(**IMAGES, tokenizer=build_tiny_tokenizer())
    assert not step.answers
    assert step.get_config() == {**IMAGES, "answers": False}


def test_messages_come_before_all_other_rows(make_gem, depth_batch):
    _, preprocess, _ = make_gem(stage="joint")
    wrist = (
        {"role": "user", "content": "Open?", "camera": CAMERAS[1]},
        {"role": "assistant", "content": "Yes."},
    )
    texts = learned_texts(preprocess, {**depth_batch, "messages": [json.dumps(wrist), "[]", "[]"]})
    assert texts == ["", "Yes.<|im_end|>\n", "", ""]


def test_messages_about_a_camera_that_the_dataset_lacks_are_named(make_gem, depth_batch):
    _, preprocess, _ = make_gem(stage="joint")
    top = {"role": "user", "content": "?", "camera": "observation.images.top"}
    text = json.dumps([top, {"role": "assistant", "content": "!"}])
    with pytest.raises(ValueError, match=r"\['observation.images.top'\] in the column 'messages': expected"):
        preprocess({**depth_batch, "messages": [text] * 3})


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 3, 64, 64)])
@pytest.mark.parametrize("task", [{}, {"task": "look"}, {"task": ["look"] * 2}])
def test_observations_need_no_text(make_gem, shape, task):
    _, preprocess, _ = make_gem()
    inputs = preprocess({**{camera: torch.rand(shape) for camera in CAMERAS}, **task})
    assert (inputs[OBS_LABELS] == IGNORED).all()
    assert len(inputs[OBS_SHOWN]) == (4 if len(shape) == 4 else 2)
