"""GEM-VLA whose expert reads the backbone's own keys and values: trained, frozen, insulated, saved, converted, acting."""

import copy
import json

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from safetensors import safe_open

from lerobot_gem.checkpoints.convert import ConvertConfig, SourceCheckpoint, convert
from lerobot_gem.models.conditioning import KeyValue
from lerobot_gem.policies.base_options import BackboneConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.policies.token_options import ActionTokensConfig
from lerobot_gem.validation import ConfigurationError
from tests.conftest import ACTION_DIM, build_policy
from tests.inference.test_acting import NOISE, observe
from tests.models.test_backbone import count_calls
from tests.policies.gem.test_modeling_gem import gem_checkpoint, save, warm  # noqa: F401 (the first is a fixture)
from tests.policies.gem_vla.test_action_tokens import MASK, TOKENS, no_flow
from tests.policies.gem_vla.test_modeling_gem_vla import assert_frozen_alone, grads
from tests.policies.test_adapters import LORA, save_adapter

CUT = "backbone.model.language_model.layers.2."
PROJECTIONS = {
    f"{CUT}{name}.weight"
    for name in ("input_layernorm", "self_attn.k_proj", "self_attn.v_proj", "self_attn.k_norm")
}


def expert(**options) -> ExpertConfig:
    return ExpertConfig(conditioning="key_values", **options)


def tokens(**options) -> ActionTokensConfig:
    return ActionTokensConfig(**{"loss_weight": 1.0, "vocabulary": 64} | options)


def test_it_learns_with_all_that_it_has(make_policy, batch):
    policy, preprocess, _ = make_policy(expert=expert())
    warm(policy)
    policy(preprocess(batch))[0].backward()
    assert not {name for name, _ in policy.named_parameters()} - grads(policy).keys()
    assert {name for name in grads(policy) if name.startswith(CUT)} == PROJECTIONS
    assert policy.backbone.num_layers == 2
    assert all(grads(policy)[name].abs().max() > 0 for name in PROJECTIONS)


@pytest.mark.parametrize("frozen", ["vision_tower", "language_model", "expert"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_does(make_policy, batch, frozen, tmp_path):
    pretrained = save(tmp_path, *make_policy(expert=expert()))  # one of random weights can't be frozen
    policy, preprocess, _ = make_policy(
        backbone=BackboneConfig(
            freeze_vision_tower=frozen == "vision_tower", freeze_language_model=frozen == "language_model"
        ),
        expert=expert(pretrained=pretrained, freeze=frozen == "expert"),
    )
    policy(preprocess(batch))[0].backward()
    assert_frozen_alone(policy, frozen)


def test_insulation_keeps_the_flow_out_of_the_backbone_and_the_tokens_in(make_policy, batch):
    policy, preprocess, _ = make_policy(expert=expert(), action_tokens=tokens(insulate=True))
    warm(policy)
    inputs = preprocess(batch)

    def gradients(weight: float, insulate: bool = True) -> dict[str, torch.Tensor]:
        policy.zero_grad()
        policy.config.action_tokens.loss_weight = weight
        policy.config.action_tokens.insulate = insulate
        policy(inputs, **no_flow())[0].backward()
        return grads(policy)

    flow = gradients(0)
    assert flow and all(name.startswith("expert.") for name in flow)  # exactly zero: there is none
    both = gradients(1)
    assert not {name for name, _ in policy.named_parameters()} - both.keys()
    for name, gradient in flow.items():
        torch.testing.assert_close(both[name], gradient)
    learned = {name for name in gradients(0, insulate=False) if name.startswith(CUT)}
    assert learned == PROJECTIONS  # not the rest of the last layer, although it is there


def test_tokens_behind_the_prompt_do_not_reach_what_is_read(make_policy, batch):
    policy, preprocess, _ = make_policy(expert=expert(), action_tokens=tokens())
    warm(policy).double().eval()
    inputs = preprocess({**batch, "task": ["go", "a longer task that pads the others", "pick", "stack"]})
    turns = policy.action_turn.append(inputs[TOKENS], inputs[MASK], inputs["action"])
    images = inputs["observation.pixel_values"].double(), inputs["observation.grid_thw"]
    asked = {"layers": [0, 1, 2], "convention": "key_values"}
    without = policy.backbone(inputs[TOKENS], inputs[MASK], *images, **asked)
    with_tokens = policy.backbone(turns.tokens, turns.mask, *images, **asked)[:, :, : without.shape[2]]
    assert ((with_tokens - without) * inputs[MASK][:, None, :, None]).abs().max() < 1e-12


def test_micro_batches_and_checkpointed_layers_learn_the_same(make_policy, batch):
    results, calls = [], []
    for size, recompute in ((None, False), (2, False), (None, True)):
        policy, preprocess, _ = make_policy(
            expert=expert(),
            micro_batch_size=size,
            backbone=BackboneConfig(gradient_checkpointing=recompute),
        )
        warm(policy).train()
        calls.append(count_calls([policy.backbone.model.language_model.layers[0].self_attn]))
        policy(preprocess(batch), **no_flow())[0].backward()
        results.append(grads(policy))
    assert calls == [[1], [4], [2]]  # each part is computed again, too
    for other in results[1:]:
        for name, gradient in results[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_a_checkpoint_acts_as_it_was_and_holds_no_more_than_is_read(make_policy, batch, tmp_path):
    policy, preprocess, _ = make_policy(expert=expert(), dtype="bfloat16")
    inputs, noise = preprocess(batch), torch.randn(4, 4, ACTION_DIM)
    chunk = warm(policy).predict_action_chunk(inputs, noise=noise)
    policy.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {name for name in file.keys() if name.startswith(CUT)} == PROJECTIONS  # noqa: SIM118
    loaded = GemVLAPolicy.from_pretrained(tmp_path)
    assert torch.bfloat16 in {weight.dtype for weight in loaded.parameters()}
    assert loaded.predict_action_chunk(inputs, noise=noise).equal(chunk)
    states, *_ = make_policy()
    assert len(loaded.expert.state_dict()) < len(states.expert.state_dict())


def test_what_acts_is_converted_and_the_releases_format_refused(make_policy, batch, tmp_path):
    policy, *processors = make_policy(expert=expert(), action_tokens=tokens())
    inputs, noise = processors[0](batch), torch.randn(4, 4, ACTION_DIM)
    chunk = warm(policy).predict_action_chunk(inputs, noise=noise)
    source = SourceCheckpoint(save(tmp_path / "policy", policy, *processors))
    convert(ConvertConfig(source, tmp_path / "acting", format="acting"))
    acting = GemVLAPolicy.from_pretrained(tmp_path / "acting")
    assert {name for name in acting.state_dict() if name.startswith(CUT)} == PROJECTIONS
    assert acting.predict_action_chunk(inputs, noise=noise).equal(chunk)
    with pytest.raises(ValueError, match="reads keys and values .*no weights that project states"):
        convert(ConvertConfig(source, tmp_path / "rdt", format="rdt"))
    assert not (tmp_path / "rdt").exists()
    # Its backbone serves a new policy of either kind.
    for conditioning in ("states", "key_values"):
        backbone = BackboneConfig(pretrained=str(tmp_path / "acting"))
        new, *_ = make_policy(backbone=backbone, expert=ExpertConfig(conditioning=conditioning))
        assert new.backbone.state_dict().keys() <= acting.backbone.state_dict().keys()


def test_it_acts_by_tokens_too(make_policy, batch):
    chunks = []
    for conditioning in ("states", "key_values"):
        policy, preprocess, _ = make_policy(
            expert=ExpertConfig(conditioning=conditioning), action_tokens=tokens(act="tokens")
        )
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in policy.backbone.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        chunks.append(policy.predict_action_chunk(preprocess(batch)))
    assert chunks[0].equal(chunks[1])


def test_an_adapter_on_projections_alone_loads_as_it_was(
    make_policy,
    batch,
    gem_checkpoint,  # noqa: F811
    dataset_root,
    tmp_path,
):
    policy, preprocess, postprocess = make_policy(
        expert=expert(), backbone=BackboneConfig(pretrained=gem_checkpoint)
    )
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    inputs, noise = preprocess(batch), torch.randn(4, 4, ACTION_DIM)
    adapted.forward(inputs)[0].backward()
    of_cut = {name.split("layers.2.")[1].split(".lora")[0] for name in grads(adapted) if "layers.2." in name}
    assert of_cut == {"self_attn.k_proj", "self_attn.v_proj"}
    folder = save_adapter(tmp_path / "adapter", adapted, preprocess, postprocess)
    chunk = adapted.predict_action_chunk(inputs, noise=noise)
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    loaded, *_ = build_policy(config, dataset_root)
    assert loaded.predict_action_chunk(inputs, noise=noise).equal(chunk)
    convert(ConvertConfig(SourceCheckpoint(folder), tmp_path / "whole", format="policy"))
    whole = GemVLAPolicy.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(whole.predict_action_chunk(inputs, noise=noise), chunk, rtol=1e-4, atol=1e-5)


def test_compiled_and_in_8_bits_it_acts_as_before(make_policy, tmp_path, monkeypatch):
    monkeypatch.setattr("lerobot_gem.inference.compiled.CompiledSampler.__init__.__defaults__", ("eager",))
    policy, preprocess, _ = make_policy(expert=expert(), dtype="bfloat16")
    warm(policy).save_pretrained(tmp_path)
    batch = preprocess(observe())
    prepared = []
    prepare = policy.backbone.prepare
    monkeypatch.setattr(policy.backbone, "prepare", lambda *args: prepared.append(1) or prepare(*args))
    chunk = policy.predict_action_chunk(batch, noise=NOISE)
    policy.config.compile_model = True
    assert policy.predict_action_chunk(batch, noise=NOISE).equal(chunk)
    assert policy._compiled.is_compiled and len(prepared) == 1  # the prompt is remembered
    torch._dynamo.reset()
    config = PreTrainedConfig.from_pretrained(tmp_path)
    config.quantization = "int8"
    loaded = GemVLAPolicy.from_pretrained(tmp_path, config=config)
    rounded = loaded.predict_action_chunk(batch, noise=NOISE)
    assert 0 < (rounded - chunk).abs().max() < 0.1


def test_the_expert_attends_to_what_the_backbone_attends_to(make_policy, batch):
    policy, preprocess, _ = make_policy(expert=expert())
    inputs = preprocess(batch)
    conditioning = policy._conditioning(inputs, policy._observe(inputs, None)[0])
    images = inputs["observation.pixel_values"], inputs["observation.grid_thw"]
    read = policy.backbone(inputs[TOKENS], inputs[MASK], *images, layers=[1], convention="key_values")
    given, block = KeyValue.from_side_by_side(read[:, 0], 32), conditioning.blocks[1]
    for head in range(4):  # two heads of the backbone, each for two of the expert
        assert block.key[:, head].equal(given.key[:, head // 2])
        assert block.value[:, head].equal(given.value[:, head // 2])


@pytest.mark.parametrize(
    ("architecture", "found", "fix"),
    [
        ({"num_kv_heads": 1}, "1 key and value heads of 32", {"num_kv_heads": 2}),
        ({"num_heads": 8}, "2 key and value heads of 16", {"num_heads": 4}),
        (
            {"hidden_size": 96, "num_heads": 2},
            "2 key and value heads of 48",
            {"hidden_size": 128, "num_heads": 4},
        ),
    ],
)
def test_heads_that_do_not_fit_are_one_error_with_those_that_do(make_policy, architecture, found, fix):
    message = f"an expert of {found}: the backbone has 2 of 32, .*architecture='{json.dumps(fix)}'"
    with pytest.raises(ValueError, match=message):
        make_policy(expert=expert(architecture=copy.copy(architecture)))
    make_policy(expert=expert(architecture=architecture | fix))


def test_what_makes_no_sense_is_one_error(make_policy, tmp_path):
    with pytest.raises(ConfigurationError, match="expert.conditioning='tokens' is unknown: expected one of"):
        ExpertConfig(conditioning="tokens")
    with pytest.raises(ConfigurationError, match="backbone.conditioning='hidden_states' with expert"):
        make_policy(expert=expert(), backbone=BackboneConfig(conditioning="hidden_states"))
    for options in ({}, {"action_tokens": tokens()}):
        with pytest.raises(
            ValueError, match=r"conditioning_layers=\[0, 1, 4\] with expert.* the backbone, 0 to 3"
        ):
            make_policy(expert=expert(conditioning_layers=[0, 1, 4]), **options)
    for name, trained, asked in (("states", "states", "key_values"), ("keys", "key_values", "states")):
        make_policy(expert=ExpertConfig(conditioning=trained))[0].save_pretrained(tmp_path / name)
        config = PreTrainedConfig.from_pretrained(tmp_path / name)
        config.expert.conditioning = asked
        with pytest.raises(
            ValueError, match=f"expert.conditioning='{asked}', but the policy was trained with '{trained}'"
        ):
            GemVLAPolicy.from_pretrained(tmp_path / name, config=config)
        with pytest.raises(
            ValueError, match=f"is an expert that reads '{trained}': expected --policy.expert"
        ):
            make_policy(expert=ExpertConfig(conditioning=asked, pretrained=str(tmp_path / name)))
