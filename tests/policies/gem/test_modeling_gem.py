"""GEM through LeRobot's own factory and processors: who learns from what, and what it can do."""

import shutil
from copy import deepcopy
from pathlib import Path

import pandas as pd
import pytest
import torch
from lerobot.configs import PreTrainedConfig

from lerobot_gem.models.precision import autocast_weights
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.processing.steps import IGNORED, OBS_LABELS, OBS_ROW_SAMPLES, OBS_SHOWN, PromptStep
from lerobot_gem.training.stages import PARTS, STAGES, part_of
from tests.conftest import CAMERAS, build_policy, read_batch, write_dataset

# The table of the paper's stages, to hold stages.py against.
LEARNS = {
    "connector": {"connector"},
    "generator": {"connector", "transformer"},
    "joint": {"language_model", "merger", "connector", "transformer"},
    "action": {"vision_tower", "merger", "language_model", "expert", "connector", "transformer"},
}


def warm(policy):
    """Leave the zero-initialised outputs, so that every part can matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy


def save(folder: Path, policy, *processors) -> str:
    for part in (policy, *processors):
        part.save_pretrained(folder)
    return str(folder)


def prompt_step(preprocess) -> PromptStep:
    [step] = [step for step in preprocess.steps if isinstance(step, PromptStep)]
    return step


@pytest.fixture
def gem_checkpoint(make_gem, tmp_path: Path) -> str:
    policy, *processors = make_gem(stage="joint")
    return save(tmp_path / "gem", warm(policy), *processors)


@pytest.mark.parametrize("stage", STAGES)
def test_who_learns_and_who_is_frozen(
    stage, make_gem, make_policy, gem_checkpoint, depth_dataset_root, depth_batch
):
    if stage == "action":
        policy, preprocess, _ = make_policy(
            depth_dataset_root,
            backbone=BackboneConfig(pretrained=gem_checkpoint),
            depth=DepthConfig(loss_weight=0.1),
        )
    else:
        policy, preprocess, _ = make_gem(stage=stage)
    warm(policy).train()
    policy(preprocess(depth_batch))[0].backward()
    with_gradient, without = set(), set()
    for name, parameter in policy.named_parameters():
        moved = parameter.grad is not None and parameter.grad.abs().sum() > 0
        (with_gradient if moved else without).add((part_of(name), name))
    assert {part for part, _ in with_gradient} == LEARNS[stage]
    assert not [name for part, name in without if part in LEARNS[stage]]
    optimised = {id(parameter) for group in policy.get_optim_params() for parameter in group["params"]}
    assert optimised == {id(p) for n, p in policy.named_parameters() if part_of(n) in LEARNS[stage]}
    assert {part_of(name) for name, _ in policy.named_parameters()} == PARTS.keys() - (
        {"expert"} if stage != "action" else set()
    )


def test_the_stage_table_is_that_of_the_paper():
    assert {stage: set(values.trainable) for stage, values in STAGES.items()} == LEARNS


def test_the_loss_is_the_weighted_sum_of_the_logged_losses(make_gem, depth_batch):
    policy, preprocess, _ = make_gem(stage="joint", depth=DepthConfig(loss_weight=0.25))
    inputs = preprocess(depth_batch)
    policy.eval()
    torch.manual_seed(2)
    loss, logs = policy(inputs)
    torch.manual_seed(2)
    shares, _ = policy(inputs, reduction="none")
    assert loss.item() == pytest.approx(logs["language_loss"] + 0.25 * logs["depth_loss"])
    torch.testing.assert_close(shares.mean(), loss)
    assert shares.shape == (3,)
    assert logs["frames_with_language"] == logs["frames_with_depth"] == 1
    assert logs["images_without_depth"] == 0
    assert 0 <= logs["token_accuracy"] <= 1
    assert all(isinstance(value, float) for value in logs.values())


def test_language_loss_is_that_of_transformers_on_the_answers(make_gem, depth_batch):
    policy, preprocess, _ = make_gem(stage="joint")
    inputs = preprocess(depth_batch)
    _, logs = policy.eval()(inputs)
    patches = policy.config.images.patches(inputs, inputs[OBS_SHOWN].tolist())
    tokens = inputs["observation.language.tokens"]
    output = policy.backbone.for_generation()(
        input_ids=tokens,
        attention_mask=inputs["observation.language.attention_mask"].int(),
        mm_token_type_ids=(tokens == policy.backbone.image_token_id).int(),
        pixel_values=patches[0],
        image_grid_thw=patches[1],
        labels=inputs[OBS_LABELS],
    )
    assert logs["language_loss"] == pytest.approx(output.loss.item(), rel=1e-4)


def test_labels_are_the_answers_and_images_are_grounded(make_gem, depth_batch):
    policy, preprocess, _ = make_gem(stage="joint")
    inputs = preprocess(depth_batch)
    tokenizer = prompt_step(preprocess).tokenizer
    labels, tokens = inputs[OBS_LABELS], inputs["observation.language.tokens"]
    learned = labels != IGNORED
    assert labels[learned].equal(tokens[learned])
    answers = [tokenizer.decode(prompt[mask]) for prompt, mask in zip(tokens, learned, strict=True)]
    task = "Pick up the milk and place it in the basket."
    # Frame 0: two questions, one per camera. Frame 3: one about the wrist; the other camera has no row of its own.
    assert inputs[OBS_ROW_SAMPLES].tolist() == [0, 0, 1, 1, 2]
    assert answers == ["There.<|im_end|>\n"] * 2 + ["", "There.<|im_end|>\n", f"{task}<|im_end|>\n"]
    assert inputs[OBS_SHOWN].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]


def frames_with_task(root: Path, copy: Path, task: str) -> tuple[Path, dict]:
    """A copy of the dataset with another first task, and three of its frames that have no language rows."""
    shutil.copytree(root, copy)
    tasks = pd.read_parquet(copy / "meta" / "tasks.parquet")
    tasks.rename(index={tasks.index[0]: task}).to_parquet(copy / "meta" / "tasks.parquet")
    raw = read_batch(copy, (4, 5, 6))
    assert raw["task"] == [task] * 3
    return copy, raw


def test_a_stage_without_language_loss_runs_no_text(make_gem, depth_dataset_root, tmp_path):
    losses, lengths = {}, {}
    for text in ("lift", "a much longer task that says a lot more"):
        root, raw = frames_with_task(depth_dataset_root, tmp_path / text, text)
        policy, preprocess, _ = make_gem(stage="generator", root=root)
        seen = []
        policy.backbone.language_model.layers[0].register_forward_hook(
            lambda _, args, __, seen=seen: seen.append(args[0])
        )
        inputs = preprocess(raw)
        torch.manual_seed(2)
        losses[text] = policy.eval()(inputs)[0].item()
        lengths[text] = seen[0].shape[1]
        assert not seen[0].requires_grad
    assert len(set(lengths.values())) == len(set(losses.values())) == 1


def test_depth_moves_the_backbone_through_its_own_vision_tokens_only(make_gem, depth_batch):
    """The depth loss of a sample depends on that sample's images, in batches of different prompts."""
    policy, preprocess, _ = make_gem(stage="generator")
    warm(policy).eval()

    def losses(**changes):
        torch.manual_seed(3)
        return policy(preprocess({**depth_batch, **changes}), reduction="none")[0]

    before = losses()
    images = depth_batch[CAMERAS[1]].clone()
    images[1] = images[1].flip(-1)
    after = losses(**{CAMERAS[1]: images})
    assert after[[0, 2]].allclose(before[[0, 2]])
    assert not after[1].allclose(before[1])


def test_maps_without_a_valid_pixel_are_skipped_and_counted(make_gem, depth_batch):
    policy, preprocess, _ = make_gem(stage="connector")
    holes = {f"{camera}_depth": depth_batch[f"{camera}_depth"].clone() for camera in CAMERAS}
    holes[f"{CAMERAS[0]}_depth"][1] = 0
    _, logs = policy(preprocess({**depth_batch, **holes}))
    assert (logs["images_without_depth"], logs["frames_with_depth"]) == (1, 1)

    for value in holes.values():
        value.zero_()
    loss, logs = policy(preprocess({**depth_batch, **holes}))
    loss.backward()
    assert (loss.item(), logs["images_without_depth"], logs["frames_with_depth"]) == (0, 6, 0)


@pytest.mark.parametrize("messages", [True, False])
def test_data_without_actions_and_state_trains(make_gem, tmp_path, messages):
    text = '[{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]'
    root = write_dataset(
        tmp_path / "data", depth=True, state_dim=0, action_dim=0, messages=text if messages else None
    )
    policy, preprocess, _ = make_gem(root, stage="joint")
    inputs = preprocess(read_batch(root, (0, 11)))
    loss, logs = policy(inputs)
    loss.backward()
    assert logs["frames_with_language"] == 1
    learned = inputs[OBS_LABELS][inputs[OBS_LABELS] != IGNORED]
    assert ("Here." in prompt_step(preprocess).tokenizer.decode(learned)) == messages


def test_a_frame_without_any_text_still_gives_depth_loss(make_gem, depth_dataset_root, tmp_path):
    root, raw = frames_with_task(depth_dataset_root, tmp_path / "silent", "")
    policy, preprocess, _ = make_gem(stage="joint", root=root)
    loss, logs = policy(preprocess(raw))
    loss.backward()
    assert (logs["frames_with_language"], logs["language_loss"]) == (0, 0)
    assert logs["depth_loss"] > 0


def test_generated_depth_has_a_picture_for_each_camera(make_gem, depth_batch):
    policy, preprocess, _ = make_gem()
    raw = {key: value for key, value in depth_batch.items() if not key.endswith("_depth")}
    depth = policy.generate_depth(preprocess(raw), generator=torch.Generator().manual_seed(0))
    assert list(depth) == list(CAMERAS)
    for picture in depth.values():
        assert picture.shape[:2] == (3, 3)
        assert 0 <= picture.min() <= picture.max() <= 1


def test_bfloat16_is_close_to_float32_within_accelerates_autocast_and_without(make_gem, depth_batch):
    policy, preprocess, _ = make_gem(stage="joint")
    warm(policy)
    inputs = preprocess(depth_batch)

    def results(dtype: str, outer: bool = False) -> dict[str, torch.Tensor]:
        policy.config.dtype = dtype
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
            torch.manual_seed(2)
            losses = policy.eval()(inputs, reduction="none")[0]
            depth = policy.generate_depth(inputs, generator=torch.Generator().manual_seed(0))
        return {"losses": losses.detach(), **depth}

    exact, rounded, within = results("float32"), results("bfloat16"), results("bfloat16", outer=True)
    for name, values in exact.items():
        assert rounded[name].dtype == values.dtype == torch.float32
        assert not rounded[name].equal(values), name
        assert rounded[name].equal(within[name]), name
        # One rounding is 0.4 %.
        assert (rounded[name] - values).abs().mean() < 0.02 * values.abs().mean(), name
    assert results("float32", outer=True)["losses"].equal(exact["losses"])


def test_acting_says_how_to_go_on(make_gem, depth_batch):
    policy, preprocess, _ = make_gem()
    for act in (policy.select_action, policy.predict_action_chunk):
        with pytest.raises(
            RuntimeError, match=r"policy.type=gem_vla .*backbone.pretrained=<this checkpoint>"
        ):
            act(preprocess(depth_batch))


def test_the_next_stage_goes_on_from_the_checkpoint(make_gem, depth_dataset_root, depth_batch, tmp_path):
    policy, *processors = make_gem(stage="connector")
    folder = save(tmp_path / "stage1", warm(policy), *processors)
    overrides = ["--stage=generator", "--allow_untrained=false"]
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=overrides)
    config.pretrained_path = folder
    following, preprocess, _ = build_policy(config, depth_dataset_root)
    assert config.built.stages_done == ["connector", "generator"]
    for name, weight in policy.state_dict().items():
        assert following.state_dict()[name].equal(weight), name
    following(preprocess(depth_batch))[0].backward()
    assert {part_of(n) for n, p in following.named_parameters() if p.grad is not None} == LEARNS["generator"]


def test_an_action_policy_takes_backbone_and_generator_from_a_gem_checkpoint(
    make_policy, gem_checkpoint, depth_dataset_root, depth_batch, tmp_path
):
    source = GemPolicy.from_pretrained(gem_checkpoint).state_dict()
    with_depth = {
        "backbone": BackboneConfig(pretrained=gem_checkpoint),
        "depth": DepthConfig(loss_weight=0.1),
    }
    policy, *processors = make_policy(depth_dataset_root, **with_depth)
    own = policy.state_dict()
    for name, weight in source.items():
        assert own[name].equal(weight), name
    _, logs = policy(processors[0](depth_batch))
    assert logs.keys() == {"action_loss", "depth_loss", "frames_with_depth", "images_without_depth"}

    # Acting: without generator and late layers, and the same actions.
    policy.eval()
    inputs = processors[0](depth_batch)
    noise = torch.randn(3, 4, policy.expert.action_dim)
    folder = save(tmp_path / "vla", policy, *processors)
    acting = GemVLAPolicy.from_pretrained(folder)
    assert acting.generator is None
    assert acting.backbone.num_layers < policy.backbone.num_layers
    assert acting.predict_action_chunk(inputs, noise=noise).equal(
        policy.predict_action_chunk(inputs, noise=noise)
    )


def test_without_depth_loss_no_generator_is_built(make_policy, gem_checkpoint, depth_dataset_root):
    policy, *_ = make_policy(depth_dataset_root, backbone=BackboneConfig(pretrained=gem_checkpoint))
    assert policy.generator is None
    assert not policy.config.built.generator


def test_a_checkpoint_is_complete(gem_checkpoint, depth_batch, make_gem):
    policy, preprocess, _ = make_gem(stage="joint")
    warm(policy).eval()
    loaded = GemPolicy.from_pretrained(gem_checkpoint)
    for name, weight in policy.state_dict().items():
        assert loaded.state_dict()[name].equal(weight), name
    expected = deepcopy(policy.config)
    expected.pretrained_path = None
    assert loaded.config == expected


def test_what_is_loaded_to_look_is_stored_as_it_computes(
    make_gem, depth_dataset_root, depth_batch, tmp_path, caplog
):
    policy, *processors = make_gem(stage="joint", dtype="bfloat16")
    folder = save(tmp_path / "gem", warm(policy).eval(), *processors)
    inputs, looks = processors[0](depth_batch), GemPolicy.from_pretrained(folder)
    del inputs["index"]  # so that both draw by torch's generator
    cast = autocast_weights(looks)
    for name, weight in looks.named_parameters():
        assert weight.dtype == (torch.bfloat16 if name in cast else torch.float32), name

    def results(of: GemPolicy) -> dict[str, torch.Tensor]:
        torch.manual_seed(2)
        losses, _ = of(inputs, reduction="none")
        return {"losses": losses, **of.generate_depth(inputs, torch.Generator().manual_seed(0))}

    expected = results(policy)
    assert all(values.equal(expected[name]) for name, values in results(looks).items())
    with pytest.raises(
        ValueError, match="was loaded to look and to answer: its weights are bfloat16. To train"
    ):
        looks.get_optim_params()
    looks.save_pretrained(tmp_path / "coarse")
    assert "its weights are saved in bfloat16" in caplog.text

    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    trained, *_ = build_policy(config, depth_dataset_root)
    assert {w.dtype for w in trained.parameters() if w.requires_grad} == {torch.float32}
    assert trained.get_optim_params()
