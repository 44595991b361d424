"""Acting: prompts are prepared once, nothing is read back from the device, and what is stored in bfloat16 changes nothing."""

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from torch.utils._python_dispatch import TorchDispatchMode

from lerobot_gem.models.precision import autocast_weights
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import ACTION_DIM, CAMERAS, build_policy
from tests.policies.gem.test_modeling_gem import warm

NOISE = torch.linspace(-1, 1, 4 * ACTION_DIM).reshape(1, 4, ACTION_DIM)


def observe(task: str = "pick up the milk", seed: int = 0) -> dict:
    """A raw observation."""
    generator = torch.Generator().manual_seed(seed)
    frames = {camera: torch.rand(1, 3, 80, 64, generator=generator) for camera in CAMERAS}
    return {**frames, "observation.state": torch.linspace(-1, 1, 8)[None], "task": [task]}


class Reads(TorchDispatchMode):
    """Lists the operations after which the host waits for a GPU."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        booleans = [a for a in args if isinstance(a, (list, tuple))] if name == "index" else []
        if name in self.WAITING or any(t is not None and t.dtype == torch.bool for b in booleans for t in b):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_a_prompt_is_prepared_once_in_an_episode(make_policy, monkeypatch):
    policy, preprocess, _ = make_policy()
    prepared = []
    prepare = policy.backbone.prepare
    monkeypatch.setattr(policy.backbone, "prepare", lambda *args: prepared.append(1) or prepare(*args))
    for seed, task in enumerate(["pick up the milk"] * 3 + ["stack the red cube"] * 2 + ["pick up the milk"]):
        batch = preprocess(observe(task, seed))
        chunk = policy.predict_action_chunk(batch, noise=NOISE)
        # Tensors of other origin are as good.
        copied = {key: value.clone() if torch.is_tensor(value) else value for key, value in batch.items()}
        assert policy.predict_action_chunk(copied, noise=NOISE).equal(chunk)
    assert len(prepared) == 3


def test_weights_that_change_prepare_it_anew(make_policy):
    policy, preprocess, _ = make_policy()
    warm(policy)
    batch = preprocess(observe())
    before = policy.predict_action_chunk(batch, noise=NOISE)
    with torch.no_grad():
        policy.backbone.model.get_input_embeddings().weight.add_(0.5)
    after = policy.predict_action_chunk(batch, noise=NOISE)
    assert not after.equal(before)
    policy._prompts.__init__()
    assert policy.predict_action_chunk(batch, noise=NOISE).equal(after)


def test_no_chunk_but_the_first_waits_for_the_device(make_policy):
    policy, preprocess, _ = make_policy(dtype="bfloat16")
    policy.predict_action_chunk(preprocess(observe()), noise=NOISE)
    batch = preprocess(observe(seed=1))
    with Reads() as reads:
        policy.predict_action_chunk(batch, noise=NOISE)
    # The one look at the finished chunk, which whoever asked for it waits for.
    assert reads.found == ["_local_scalar_dense"]


def test_the_last_chunk_does_not_depend_on_what_was_asked_before(make_policy):
    policy, preprocess, _ = make_policy()
    warm(policy)
    asked = [
        preprocess(observe(task)) for task in ("pick up the milk", "stack the red cube", "stack the red cube")
    ]
    chunks = [policy.predict_action_chunk(batch, noise=NOISE) for batch in asked]
    assert chunks[1].equal(chunks[2])
    assert not chunks[0].equal(chunks[1])
    assert policy.predict_action_chunk(asked[0], noise=NOISE).equal(chunks[0])


@pytest.fixture
def saved(make_policy, tmp_path):
    """A bfloat16 policy with trained-like weights, its preprocessor, and the folder it was saved to."""
    policy, preprocess, postprocess = make_policy(dtype="bfloat16")
    warm(policy).save_pretrained(tmp_path)
    preprocess.save_pretrained(tmp_path)
    postprocess.save_pretrained(tmp_path)
    return policy, preprocess, tmp_path


def test_a_policy_loaded_to_act_gives_the_chunk_of_training_precision_bit_by_bit(saved):
    policy, preprocess, folder = saved
    acting = GemVLAPolicy.from_pretrained(folder)
    types = {name: weight.dtype for name, weight in acting.named_parameters()}
    cast = autocast_weights(acting)
    assert {types[name] for name in cast} == {torch.bfloat16}
    assert {dtype for name, dtype in types.items() if name not in cast} == {torch.float32}
    for seed in range(2):
        batch = preprocess(observe(seed=seed))
        expected = policy.predict_action_chunk(batch, noise=NOISE)
        assert acting.predict_action_chunk(batch, noise=NOISE).equal(expected)


def test_weights_that_were_trained_in_bfloat16_act_in_float32(make_policy, tmp_path):
    options = {"dtype": "bfloat16", "weights": "bfloat16", "optimizer_name": "adamw_8bit"}
    policy, preprocess, _ = make_policy(**options)
    warm(policy).save_pretrained(tmp_path)
    config = PreTrainedConfig.from_pretrained(tmp_path)
    config.dtype = "float32"
    acting = GemVLAPolicy.from_pretrained(tmp_path, config=config)
    assert {weight.dtype for weight in acting.parameters()} == {torch.float32}
    batch = preprocess(observe())
    near = GemVLAPolicy.from_pretrained(tmp_path).predict_action_chunk(batch, noise=NOISE)
    assert (acting.predict_action_chunk(batch, noise=NOISE) - near).norm() < 0.05 * near.norm()


def test_embeddings_that_are_bfloat16_numbers_are_stored_so(saved):
    policy, preprocess, folder = saved
    table = policy.backbone.model.get_input_embeddings().weight
    with torch.no_grad():
        table.copy_(table.bfloat16())
    policy.save_pretrained(folder)
    acting = GemVLAPolicy.from_pretrained(folder)
    assert acting.backbone.model.get_input_embeddings().weight.dtype == torch.bfloat16
    batch = preprocess(observe())
    expected = policy.predict_action_chunk(batch, noise=NOISE)
    assert acting.predict_action_chunk(batch, noise=NOISE).equal(expected)


def test_what_was_loaded_to_act_refuses_an_optimiser(saved):
    _, _, folder = saved
    with pytest.raises(ValueError, match="loaded to act: its weights are bfloat16"):
        GemVLAPolicy.from_pretrained(folder).get_optim_params()


def test_what_is_trained_keeps_float32(saved, dataset_root):
    _, _, folder = saved
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    policy, *_ = build_policy(config, dataset_root)
    assert {weight.dtype for weight in policy.parameters()} == {torch.float32}
    assert policy.get_optim_params()


def test_the_file_may_be_written_anew_while_the_policy_acts(saved):
    policy, preprocess, folder = saved
    acting = GemVLAPolicy.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    batch = preprocess(observe())
    expected = policy.predict_action_chunk(batch, noise=NOISE)
    assert acting.predict_action_chunk(batch, noise=NOISE).equal(expected)
