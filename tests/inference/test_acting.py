"""Acting: prompts are prepared once, nothing is read back from the device, and what is stored in bfloat16 changes nothing."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import ACTION_DIM, CAMERAS
from tests.policies.gem_vla.test_modeling_gem_vla import warm

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
