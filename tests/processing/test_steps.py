"""The steps that read language and write prompts."""

import json
import re

import numpy as np
import pytest
import torch
from lerobot.utils.constants import OBS_LANGUAGE_TOKENS

from lerobot_gem.policies.base_options import DepthConfig
from lerobot_gem.policies.processors import make_gem_pipelines
from lerobot_gem.processing.steps import IGNORED, OBS_LABELS, OBS_SHOWN, LanguageRowsStep, PromptStep
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer
from lerobot_gem.storage.language_columns import row
from lerobot_gem.storage.language_rows import bound_language
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

    config = make_gem(stage="joint")[0].config
    for root, has_questions in ((dataset_root, False), (depth_dataset_root, True)):
        LanguageRowsStep.bind(bound_language(LeRobotDatasetMetadata("local/noise", root=root)))
        preprocess, _ = make_gem_pipelines(config, answers=True)
        assert any("There." in text for text in learned_texts(preprocess, depth_batch)) == has_questions


def test_a_pipeline_keeps_the_questions_of_its_own_dataset(make_gem, dataset_root, depth_batch):
    _, preprocess, _ = make_gem(stage="joint")
    make_gem(
        root=dataset_root, stage="joint", depth=DepthConfig(loss_weight=0.0)
    )  # of another dataset, without questions
    assert any("There." in text for text in learned_texts(preprocess, depth_batch))


def test_a_frame_that_differs_in_its_task_or_action_alone_is_refused(make_gem, depth_batch):
    """Two recordings of the same lengths: the second's frames have the same indices, episodes and times."""
    _, preprocess, _ = make_gem(stage="joint")
    preprocess(depth_batch)
    with pytest.raises(ValueError, match="Frame 0 has task=pick up .*, but task=stack .* of another dataset"):
        preprocess({**depth_batch, "task": ["stack the cups", *depth_batch["task"][1:]]})
    with pytest.raises(ValueError, match=r"Frame 3 has action=\[.*of another dataset"):
        actions = depth_batch["action"][:, 0].clone()
        actions[1, 2] += 0.01
        preprocess({**depth_batch, "action": actions})


@pytest.mark.parametrize("change", [{"episode_index": 1}, {"timestamp": 0.2}])
def test_a_frame_of_another_dataset_is_refused(make_gem, depth_batch, change):
    _, preprocess, _ = make_gem(stage="joint")
    [(key, more)] = change.items()
    with pytest.raises(
        ValueError, match=r"Frame 0 has .* in 'local/noise', but .* in the batch: .* another dataset"
    ):
        preprocess({**depth_batch, key: depth_batch[key] + more})


def test_special_tokens_in_questions_and_answers_are_text(make_gem, depth_batch):
    policy, preprocess, _ = make_gem(stage="joint")
    talk = [
        {"role": "user", "content": "Which <|image_pad|>?"},
        {"role": "assistant", "content": "<|im_end|> it is."},
    ]
    written = {**depth_batch, "messages": [json.dumps(talk)] * 3}
    assert learned_texts(preprocess, written) == ["<|im_end|> it is.<|im_end|>\n"] * 3
    policy(preprocess(written))  # as many image tokens as patches


def test_a_text_that_cannot_be_encoded_is_named_with_its_frame(make_gem, depth_batch):
    _, preprocess, _ = make_gem(stage="joint")
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "half \ud83d"}]
    with pytest.raises(ValueError, match=r"half of a character .* It is the text of frame 3 \(episode 0\)"):
        preprocess({**depth_batch, "messages": ["[]", json.dumps(talk), "[]"]})


def test_actions_that_are_not_finite_are_named_with_their_frame(make_policy, batch):
    _, preprocess, _ = make_policy()
    for sample, ahead, frame in ((0, 2, "frame 2 (episode 0)"), (3, 3, "frame 19 (episode 1)")):
        actions = batch["action"].clone()
        actions[sample, ahead, 5] = np.inf
        with pytest.raises(ValueError, match=rf"action\[5\] is inf in {re.escape(frame)}: expected finite"):
            preprocess({**batch, "action": actions})


def test_vectors_that_are_not_read_stop_nothing(make_gem, make_policy, batch, depth_batch):
    nothing = torch.full((3, 7), np.nan)
    make_gem(stage="joint")[1]({**depth_batch, "action": nothing, "observation.state": nothing})
    make_policy()[1]({**batch, "observation.tactile": torch.full((4, 2), np.nan)})


def test_an_action_that_is_not_finite_does_not_reach_the_robot(make_policy, batch):
    policy, preprocess, postprocess = make_policy(
        normalization_mapping={"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    )
    actions = policy.predict_action_chunk(preprocess(batch))
    assert postprocess(actions).isfinite().all()
    with pytest.raises(
        ValueError, match=r"action\[0, 0\] is nan in observation 0 of the batch: .*statistics"
    ):
        postprocess(actions * np.nan)


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


def test_the_one_task_of_the_training_data_is_the_default_text(make_policy, batch, caplog):
    _, preprocess, _ = make_policy()
    step = next(step for step in preprocess.steps if isinstance(step, PromptStep))
    observation = {key: value for key, value in batch.items() if key.startswith("observation.")}
    preprocess({**batch, "task": ["stack"] * 4})
    assert step.get_config()["default_task"] == "stack"
    expected = preprocess({**observation, "task": ["stack"] * 4})[OBS_LANGUAGE_TOKENS]
    for missing in ({}, {"task": ""}, {"task": [""] * 4}):
        assert preprocess({**observation, **missing})[OBS_LANGUAGE_TOKENS].equal(expected)
    assert caplog.text.count("No task text was given: acting on 'stack'") == 1
    # A frame to learn from needs its own text.
    with pytest.raises(ValueError, match="No task text"):
        preprocess({**batch, "task": [""] * 4})


def test_of_two_tasks_none_is_the_default(make_policy, batch):
    _, preprocess, _ = make_policy()
    for task in ("stack", "pour", "stack"):
        preprocess({**batch, "task": [task] * 4})
    observation = {key: value for key, value in batch.items() if key.startswith("observation.")}
    with pytest.raises(ValueError, match="No task text"):
        preprocess(observation)


def test_data_with_another_task_replaces_the_default(make_policy, batch):
    _, preprocess, _ = make_policy()
    step = next(step for step in preprocess.steps if isinstance(step, PromptStep))
    step.default_task = "pour"  # as a checkpoint says that is trained further
    preprocess({**batch, "task": ["stack"] * 4})
    assert step.default_task == "stack"
