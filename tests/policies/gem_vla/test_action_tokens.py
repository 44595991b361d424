"""GEM-VLA learns its actions in tokens, and acts by them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.rollout.inference.rtc import supports_rtc_inference
from scipy.fft import dct

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.policies.base_options import BackboneConfig, CamerasConfig
from lerobot_gem.policies.expert_options import DistillationConfig, ExpertConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.policies.token_options import ActionTokensConfig
from lerobot_gem.processing.action_turn import ActionTurn
from lerobot_gem.validation import ConfigurationError
from tests.conftest import ACTION_DIM, build_policy, write_dataset
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save, warm  # noqa: F401 (the first is a fixture)
from tests.policies.gem_vla.test_modeling_gem_vla import grads
from tests.policies.test_adapters import LORA, save_adapter

TOKENS = "observation.language.tokens"
MASK = "observation.language.attention_mask"


def options(**changes) -> ActionTokensConfig:
    return ActionTokensConfig(**{"loss_weight": 1.0, "vocabulary": 64} | changes)


def no_flow() -> dict[str, torch.Tensor]:
    return {"noise": torch.zeros(4, 4, ACTION_DIM), "time": torch.full((4,), 0.5)}


def test_tokens_are_learned_beside_the_flow(make_policy, batch):
    plain, preprocess, _ = make_policy()
    policy, *_ = make_policy(action_tokens=options(loss_weight=0.5))
    assert plain.action_turn is None and plain.backbone.num_layers == 2
    assert policy.backbone.is_complete
    inputs = preprocess(batch)
    loss, logs = policy(inputs, **no_flow(), reduction="none")
    assert loss.shape == (4,)
    assert logs["token_loss"] == pytest.approx(np.log(1024), rel=0.2)  # nothing is known yet
    assert 0 <= logs["action_token_accuracy"] <= 1
    assert loss.mean().item() == pytest.approx(logs["action_loss"] + 0.5 * logs["token_loss"], rel=1e-5)
    policy(inputs, **no_flow())[0].backward()
    assert not {name for name, _ in policy.named_parameters()} - grads(policy).keys()


def test_each_chunk_counts_alike(make_policy, batch):
    policy, preprocess, _ = make_policy(action_tokens=options())
    warm(policy)
    inputs = preprocess(batch)
    turns = policy.action_turn.append(inputs[TOKENS], inputs[MASK], inputs["action"])
    images = inputs["observation.pixel_values"], inputs["observation.grid_thw"]
    logits = policy.backbone.logits(policy.backbone.final_states(turns.tokens, turns.mask, *images))
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), turns.labels[:, 1:], reduction="none"
    )
    expected = losses.sum(dim=1) / (turns.labels != -100).sum(dim=1)
    both, _ = policy(inputs, **no_flow(), reduction="none")
    policy.config.action_tokens.loss_weight = 0
    flow, _ = policy(inputs, **no_flow(), reduction="none")
    torch.testing.assert_close(both - flow, expected, rtol=1e-4, atol=1e-4)


def test_what_the_expert_reads_is_the_same_with_and_without_tokens_behind(make_policy, batch):
    policy, preprocess, _ = make_policy(action_tokens=options())
    warm(policy).double().eval()
    inputs = preprocess({**batch, "task": ["go", "a longer task that pads the others", "pick", "stack"]})
    inputs = {
        key: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in inputs.items()
    }
    turns = policy.action_turn.append(inputs[TOKENS], inputs[MASK], inputs["action"])
    images = inputs["observation.pixel_values"], inputs["observation.grid_thw"]
    length = inputs[TOKENS].shape[1]
    layers = range(policy.backbone.num_layers + 1)
    with_tokens = policy.backbone(turns.tokens, turns.mask, *images, layers=layers)[:, :, :length]
    without = policy.backbone(inputs[TOKENS], inputs[MASK], *images, layers=layers)
    real = inputs[MASK][:, None, :, None]
    difference = ((with_tokens - without) * real).abs().max().item()
    assert difference < 1e-12  # float64: nothing but the order of sums


def test_insulation_keeps_the_flow_out_of_the_backbone_and_the_tokens_in(make_policy, batch):
    policy, preprocess, _ = make_policy(action_tokens=options(insulate=True))
    warm(policy)
    inputs = preprocess(batch)

    def gradients(weight: float) -> dict[str, torch.Tensor]:
        policy.zero_grad()
        policy.config.action_tokens.loss_weight = weight
        policy(inputs, **no_flow())[0].backward()
        return grads(policy)

    flow = gradients(0)
    assert flow and all(name.startswith("expert.") for name in flow)  # exactly zero: there is none
    both = gradients(1)
    backbone = {name for name, _ in policy.named_parameters() if name.startswith("backbone.")}
    assert backbone <= both.keys()
    for layer in ("embed_tokens", "q_proj"):
        sizes = [both[name].abs().max() for name in backbone if layer in name]
        assert sizes and min(sizes) > 0
    for name, gradient in flow.items():
        torch.testing.assert_close(both[name], gradient)

    policy.config.action_tokens.insulate = False
    assert any(name.startswith("backbone.") for name in gradients(0))


def test_tokens_alone_teach_the_backbone_where_the_expert_is_frozen_and_insulated(make_policy, batch):
    policy, preprocess, _ = make_policy(
        action_tokens=options(insulate=True, act="tokens"), expert=ExpertConfig(freeze=True)
    )
    loss, logs = policy(preprocess(batch))
    assert loss.item() == pytest.approx(logs["token_loss"]) and "action_loss" not in logs
    loss.backward()
    assert grads(policy) and all(name.startswith("backbone.") for name in grads(policy))


@pytest.fixture
def tokens_alone(make_policy, tmp_path):
    """A saved policy that was built to learn by tokens alone, and how to load it with other options."""
    policy, *processors = make_policy(
        expert=ExpertConfig(freeze=True), action_tokens=options(insulate=True, act="tokens")
    )
    folder, meta = save(tmp_path / "alone", policy, *processors), policy.config._runtime_dataset_meta

    def load(*, learns: bool = True, freeze: bool = True, use_peft: bool = False, **changes) -> GemVLAPolicy:
        config = GemVLAPolicy.config_class.from_pretrained(folder)
        config.expert.freeze, config.use_peft = freeze, use_peft
        for name, value in changes.items():
            setattr(config.action_tokens, name, value)
        # What LeRobot's parser does, which builds the configuration of file and command line.
        config.__post_init__()
        return GemVLAPolicy.from_pretrained(folder, config=config, dataset_meta=meta if learns else None)

    load.folder, load.meta = folder, meta
    return load


def test_a_frozen_expert_of_random_weights_is_no_policy(make_policy):
    for tokens in (options(), options(act="tokens"), ActionTokensConfig()):
        with pytest.raises(
            ValueError,
            match="expert has random weights: .*tokens alone: --policy.expert.freeze=true --policy",
        ):
            make_policy(expert=ExpertConfig(freeze=True), action_tokens=tokens)
    with pytest.raises(ConfigurationError, match="act='flow' with expert.freeze=true and action_tokens.ins"):
        make_policy(expert=ExpertConfig(freeze=True), action_tokens=options(insulate=True))


def test_tokens_alone_act_by_tokens_until_the_expert_learns(tokens_alone, batch, monkeypatch):
    tokens_alone(learns=False)
    tokens_alone()
    with pytest.raises(ConfigurationError, match="act='flow' with expert.freeze=true"):
        tokens_alone(learns=False, act="flow")
    for changes in ({"act": "flow"}, {"act": "flow", "insulate": False}):
        with pytest.raises(ValueError, match="trained by tokens alone: its expert has the random weights"):
            tokens_alone(learns=False, freeze=False, **changes)
    acts = tokens_alone(learns=False)
    acts.config.action_tokens.act = "flow"
    with pytest.raises(ValueError, match="trained by tokens alone"):
        acts.check_acting(None)
    monkeypatch.setattr("sys.argv", ["lerobot-eval", "--policy.action_tokens.temperature=0.5"])
    with pytest.raises(ConfigurationError, match="does nothing without --policy.action_tokens.act: expected"):
        acts.check_acting(None)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="expert.freeze=true, and the expert has random weights"):
        tokens_alone(insulate=False)
    learns = tokens_alone(freeze=False, act="flow")
    assert learns.random_parts == {"expert"} and not learns.config.built.random_expert


def test_an_expert_that_was_never_trained_is_no_source(tokens_alone, make_policy, tmp_path):
    message = "was trained by tokens alone, and its expert"
    with pytest.raises(ValueError, match=message):
        make_policy(expert=ExpertConfig(pretrained=tokens_alone.folder, freeze=True))
    with pytest.raises(ValueError, match=message):
        convert(ConvertConfig(SourceCheckpoint(tokens_alone.folder), tmp_path / "rdt", "rdt"))
    assert not (tmp_path / "rdt").exists()
    with pytest.raises(ValueError, match=f"distillation.teacher='{tokens_alone.folder}' {message}"):
        make_policy(distillation=DistillationConfig(tokens_alone.folder))


def test_an_adapter_of_tokens_alone_saves_the_expert_that_learns(tokens_alone):
    policy = tokens_alone(freeze=False, act="flow")
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
    learns = [p.requires_grad for name, p in adapted.named_parameters() if "state_adaptor" in name]
    assert learns and all(learns)
    policy = tokens_alone(freeze=False, act="flow")
    wanted = {"method_type": "LORA", "r": 2, "full_training_modules": ["embed_tokens"]}
    with pytest.raises(ValueError, match="leaves out expert, whose weights are random"):
        policy.wrap_with_peft(peft_cli_overrides=wanted)
    policy = tokens_alone()
    wanted["full_training_modules"] = ["expert", "embed_tokens"]
    with pytest.raises(ValueError, match="would train expert, which the policy's options freeze"):
        policy.wrap_with_peft(peft_cli_overrides=wanted)


def test_options_do_not_make_an_adapter_train_an_expert(tokens_alone, tmp_path):
    policy = tokens_alone()
    policy.config.pretrained_path = tokens_alone.folder
    adapter = save_adapter(tmp_path / "adapter", policy.wrap_with_peft(peft_cli_overrides=LORA))
    config = GemVLAPolicy.config_class.from_pretrained(adapter)
    assert config.built.random_expert and config.use_peft
    config.pretrained_path, config.expert.freeze, config.action_tokens.act = adapter, False, "flow"
    with pytest.raises(ValueError, match="which the adapter does not train. Expected a whole policy"):
        GemVLAPolicy.from_pretrained(tokens_alone.folder, config=config, dataset_meta=tokens_alone.meta)


def test_micro_batches_learn_the_same(make_policy, batch):
    results = []
    for size in (None, 2):
        policy, preprocess, _ = make_policy(action_tokens=options(), micro_batch_size=size)
        warm(policy).train()
        inputs = preprocess(batch)
        loss, logs = policy(inputs, **no_flow())
        loss.backward()
        results.append((logs, grads(policy)))
    (logs, whole), (part_logs, parts) = results
    assert part_logs == pytest.approx(logs, rel=1e-4)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_the_release_inferencers_prompt_goes_on_in_its_own_turn(make_policy, batch):
    policy, preprocess, _ = make_policy(action_tokens=options(), cameras=CamerasConfig(layout="concat"))
    assert len(policy.action_turn.prefix) == 1
    inputs = preprocess(batch)
    assert policy(inputs)[0].isfinite()
    policy.config.action_tokens.act = "tokens"
    assert policy.predict_action_chunk(inputs).shape == (4, 4, ACTION_DIM)


def test_one_batch_is_learned_to_the_error_of_rounding(make_policy, batch):
    policy, preprocess, _ = make_policy(action_tokens=options(vocabulary=128))
    policy.train()
    two = {
        key: value[:2] if isinstance(value, torch.Tensor | list) else value for key, value in batch.items()
    }
    inputs = preprocess(two)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    for _ in range(60):
        loss, logs = policy(inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if logs["token_loss"] < 0.05:
            break
    policy.config.action_tokens.act = "tokens"
    chunk = policy.predict_action_chunk(inputs)
    tokens = policy.action_turn.tokens
    coded = tokens.encode_all(inputs["action"].double().numpy())
    rounded = [tokens.decode(ids, 4, ACTION_DIM).clip(-1, 1) for ids in coded]
    assert logs["token_loss"] < 0.2
    np.testing.assert_allclose(chunk.numpy(), np.stack(rounded), atol=1e-6)
    assert (chunk - inputs["action"]).abs().mean() < 0.05


def test_a_checkpoint_carries_its_tokens_and_acts_either_way(make_policy, batch, tmp_path):
    policy, preprocess, _ = make_policy(action_tokens=options())
    warm(policy)
    inputs = preprocess(batch)
    noise = torch.randn(4, 4, ACTION_DIM)
    flow = policy.predict_action_chunk(inputs, noise=noise)
    policy.config.action_tokens.act = "tokens"
    written = policy.predict_action_chunk(inputs)
    assert written.shape == flow.shape and written.abs().max() <= 1
    policy.config.action_tokens.act = "flow"
    policy.save_pretrained(tmp_path / "saved")

    by_flow = GemVLAPolicy.from_pretrained(tmp_path / "saved")
    assert by_flow.backbone.num_layers == 2  # nothing beyond what the expert reads
    torch.testing.assert_close(by_flow.predict_action_chunk(inputs, noise=noise), flow)
    with pytest.raises(ValueError, match="action_tokens.loss_weight=1.0, but this policy was loaded to act"):
        by_flow(inputs)

    config = type(policy.config).from_pretrained(tmp_path / "saved")
    config.action_tokens.act = "tokens"
    by_tokens = GemVLAPolicy.from_pretrained(tmp_path / "saved", config=config)
    assert by_tokens.action_turn == policy.action_turn
    assert by_tokens.predict_action_chunk(inputs).equal(written)
    assert by_tokens.select_action(inputs).equal(written[:, 0])


def test_a_prefix_of_a_chunk_and_draws_at_a_temperature(make_policy, batch):
    policy, preprocess, _ = make_policy(action_tokens=options(act="tokens", temperature=2.0))
    warm(policy)
    inputs = preprocess(batch)

    def drawn(seed: int) -> torch.Tensor:
        return policy.predict_action_chunk(inputs, generator=torch.Generator().manual_seed(seed))

    assert drawn(0).equal(drawn(0)) and not drawn(0).equal(drawn(1))
    # Noise has all frequencies alike, so that a prefix says too little.
    policy.config.action_tokens.max_coefficients = 2 * ACTION_DIM
    with pytest.raises(ValueError, match=r"max_coefficients=14: .*Take at least \d+ of the 28 coefficients"):
        drawn(0)
    policy.action_turn = dataclasses.replace(policy.action_turn, errors=(0.05,) * 4)
    chunk = drawn(0).numpy()
    inside = np.abs(chunk).max(axis=1) < 1  # not clamped
    high = np.abs(dct(chunk, axis=1, norm="ortho")[:, 2:]).max(axis=1)
    assert inside.any() and high[inside].max() < 1e-5


def test_what_makes_no_sense_is_one_error(make_policy, batch, dataset_root, tmp_path):
    with pytest.raises(ConfigurationError, match="insulate=true with action_tokens.loss_weight=0"):
        ActionTokensConfig(insulate=True)
    with pytest.raises(ConfigurationError, match="loss_weight=1.0 with backbone.freeze_language_model=true"):
        make_policy(action_tokens=options(), backbone=BackboneConfig(freeze_language_model=True))
    with pytest.raises(ValueError, match="normalised: action tokens expect"):
        make_policy(
            action_tokens=options(), normalization_mapping={"ACTION": "MEAN_STD", "STATE": "MEAN_STD"}
        )
    with pytest.raises(
        ValueError, match=r"vocabulary=64 with action_tokens.scale=50 .*expected at least 201"
    ):
        make_policy(action_tokens=options(scale=50.0))
    with pytest.raises(ValueError, match=r"scale=0\.5: .*mean error of 0\.\d+, expected at most 0\.1"):
        make_policy(action_tokens=options(scale=0.5))
    with pytest.raises(ValueError, match="need 485 rows .*of its 1024 rows the tokenizer takes 541"):
        make_policy(action_tokens=options(vocabulary=484, scale=120.0))
    with pytest.raises(
        ValueError, match="act='tokens' with .*what is trained without tokens can't write them"
    ):
        make_policy(action_tokens=ActionTokensConfig(act="tokens"))
    with pytest.raises(ValueError, match="rtc_config.enabled=true with action_tokens.act='tokens'"):
        make_policy(action_tokens=options(act="tokens"), rtc_config=RTCConfig(enabled=True))
    policy, *_ = make_policy(action_tokens=options(act="tokens"))
    policy.config.rtc_config = RTCConfig(enabled=True)
    assert supports_rtc_inference(
        policy
    )  # else lerobot-rollout ends with a sentence of its own, which does not say what to do
    with pytest.raises(ValueError, match="rtc_config.enabled=true with action_tokens.act='tokens'"):
        policy.init_rtc_processor()  # as lerobot-rollout does next
    with pytest.raises(ValueError, match="compile_model=true with action_tokens.act='tokens': what writes"):
        make_policy(action_tokens=options(act="tokens"), compile_model=True)


def test_an_adapter_without_the_rows_of_new_tokens_is_one_error(make_policy):
    policy, *_ = make_policy(action_tokens=options())
    policy.random_parts = frozenset({"expert"})  # as with a pretrained backbone
    wanted = {"method_type": "LORA", "r": 2, "full_training_modules": ["expert"]}
    with pytest.raises(ValueError, match=r"leaves out backbone\.model\.language_model\.embed_tokens, whose"):
        policy.wrap_with_peft(peft_cli_overrides=wanted)


def test_a_checkpoint_without_tokens_or_with_others_is_one_error(make_policy, batch, tmp_path):
    make_policy()[0].save_pretrained(tmp_path / "flow")
    make_policy(action_tokens=options())[0].save_pretrained(tmp_path / "tokens")

    def load(name: str, **changes):
        config = GemVLAPolicy.config_class.from_pretrained(tmp_path / name)
        for field, value in changes.items():
            owner = config.action_tokens if hasattr(config.action_tokens, field) else config
            setattr(owner, field, value)
        return GemVLAPolicy.from_pretrained(tmp_path / name, config=config)

    for changes in ({"act": "tokens"}, {"loss_weight": 1.0}):
        with pytest.raises(
            ValueError,
            match="learned no action tokens. Expected a checkpoint that",
        ):
            load("flow", **changes)
    with pytest.raises(
        ValueError, match="chunk_size=8, but the checkpoint's action tokens were fitted with 4"
    ):
        load("tokens", chunk_size=8)
    with pytest.raises(ValueError, match="action_tokens.scale=20, but .* fitted with 10"):
        load("tokens", scale=20.0)
    with pytest.raises(ValueError, match="vocabulary=32, but the checkpoint's action tokens are 64"):
        load("tokens", vocabulary=32)
    with pytest.raises(ValueError, match="Actions have 7 numbers here .*, but the policy was trained with 6"):
        config = GemVLAPolicy.config_class.from_pretrained(tmp_path / "tokens")
        config.built.action_dim = 6
        GemVLAPolicy(config, weights_follow=True)
    assert isinstance(load("tokens").action_turn, ActionTurn)
    acts = load("tokens")
    acts.config.action_tokens.act = "tokens"  # its last layers were not loaded
    with pytest.raises(ValueError, match="loaded to act by flow, without what writes tokens"):
        acts.predict_action_chunk(make_policy(action_tokens=options())[1](batch))


def test_a_dataset_of_another_action_space_is_one_error(make_policy, dataset_root, tmp_path):
    save(tmp_path / "tokens", *make_policy(action_tokens=options()))

    def go_on(root):
        config = GemVLAPolicy.config_class.from_pretrained(tmp_path / "tokens")
        config.pretrained_path = tmp_path / "tokens"
        return build_policy(config, root)[0]

    assert go_on(dataset_root).action_turn is not None
    six = write_dataset(tmp_path / "six", action_dim=6)
    with pytest.raises(ValueError, match="Actions have 6 numbers here .*, but the policy was trained with 7"):
        go_on(six)
    # Statistics of a narrower action space: normalised by them, the actions are beyond it.
    narrow = shutil.copytree(dataset_root, tmp_path / "narrow")
    stats = json.loads((narrow / "meta" / "stats.json").read_text())
    for end in ("min", "max"):
        stats["action"][end] = [value / 2 for value in stats["action"][end]]
    (narrow / "meta" / "stats.json").write_text(json.dumps(stats))
    with pytest.raises(ValueError, match=r"once it is normalised: action tokens expect \[-1, 1\]"):
        go_on(narrow)


def test_lora_trains_the_rows_of_action_tokens(make_policy, batch, gem_checkpoint, dataset_root, tmp_path):  # noqa: F811
    policy, preprocess, postprocess = make_policy(
        action_tokens=options(), backbone=BackboneConfig(pretrained=gem_checkpoint)
    )
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    inputs = preprocess(batch)
    adapted.forward(inputs)[0].backward()
    [rows] = [gradient for name, gradient in grads(adapted).items() if "embed_tokens" in name]
    start = policy.action_turn.first_row
    assert (rows[start : start + 4].abs().amax(dim=1) > 0).all()
    folder = save_adapter(tmp_path / "adapter", adapted, preprocess, postprocess)
    adapted.config.action_tokens.act = "tokens"
    chunk = adapted.predict_action_chunk(inputs)
    config = GemVLAPolicy.config_class.from_pretrained(folder)
    config.pretrained_path = folder
    config.action_tokens.act = "tokens"
    loaded, *_ = build_policy(config, dataset_root)
    assert loaded.predict_action_chunk(inputs).equal(chunk)


def test_what_is_stored_in_bfloat16_to_act_writes_the_same(make_policy, batch, tmp_path):
    policy, preprocess, _ = make_policy(action_tokens=options(act="tokens"), dtype="bfloat16")
    inputs = preprocess(batch)
    chunk = warm(policy).predict_action_chunk(inputs)
    policy.save_pretrained(tmp_path)
    loaded = GemVLAPolicy.from_pretrained(tmp_path)
    assert torch.bfloat16 in {weight.dtype for weight in loaded.parameters()}
    assert loaded.predict_action_chunk(inputs).equal(chunk)
    config = GemVLAPolicy.config_class.from_pretrained(tmp_path)
    config.quantization = "int8"
    rounded = GemVLAPolicy.from_pretrained(tmp_path, config=config).predict_action_chunk(inputs)
    assert rounded.shape == chunk.shape and rounded.isfinite().all()
