"""Sharded training (FSDP) through accelerate, as LeRobot runs it: two processes, each with half of every weight.

LeRobot 0.6.1 saves checkpoints of FSDP 1 alone; its later versions shard with FSDP 2.
accelerate shards on accelerators alone. On the CPU its own code runs all the same once the state says FSDP.
"""

import os
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed.fsdp
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from lerobot.common.train_utils import gather_fsdp_state_dicts, load_fsdp_optimizer_state
from lerobot.optim.optimizers import save_optimizer_state
from lerobot.utils.constants import TRAINING_STATE_DIR
from torch import nn
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel

from lerobot_gem.policies import base_policy
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from tests.conftest import read_batch
from tests.policies.gem.test_modeling_gem import gem_checkpoint, warm  # noqa: F401 (fixture)
from tests.processes import run_processes

PROCESSES = 2
CASES = [
    "connector",
    "generator",
    "joint",
    "action",
    "action without depth",
    "action by keys and values",
    "action with LoRA",
]


@pytest.fixture
def make_case(make_gem, make_policy, gem_checkpoint, depth_dataset_root):  # noqa: F811
    """A policy of a stage, with a batch."""

    def build(case: str):
        stage, _, variant = case.partition(" ")
        backbone = BackboneConfig(pretrained=gem_checkpoint, gradient_checkpointing=variant == "")
        if stage == "action":
            depth = DepthConfig(loss_weight=0.1 if variant in ("", "with LoRA") else 0.0)
            by_keys = variant == "by keys and values"
            expert = ExpertConfig(flow_samples=2, conditioning="key_values" if by_keys else "states")
            policy, preprocess, _ = make_policy(
                depth_dataset_root, backbone=backbone, depth=depth, expert=expert
            )
        else:
            policy, preprocess, _ = make_gem(stage=stage, backbone=backbone)
        inputs = preprocess(read_batch(depth_dataset_root, (0, 3, 4), chunk_size=4))
        policy = warm(policy)
        if variant == "with LoRA":
            policy = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
        return policy, inputs

    return build


def loss_and_gradients(
    policy, inputs, backward=torch.Tensor.backward
) -> tuple[float, dict[str, torch.Tensor]]:
    policy.train()
    torch.manual_seed(7)
    loss, _ = policy(inputs)
    backward(loss)
    return loss.item(), {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}


def make_optimizer(policy: nn.Module) -> torch.optim.AdamW:
    """One whose step hardly depends on the last bits of a gradient that is nearly zero."""
    return torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-2, eps=1e-3)


def shard(policy: nn.Module, version: int) -> tuple[Accelerator, nn.Module, torch.optim.Optimizer]:
    """As `lerobot-train` under `accelerate launch` with configs/accelerate."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=version,
        auto_wrap_policy="transformer_based_wrap",
        use_orig_params=True if version == 1 else None,
    )
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin, mixed_precision="no")
    state = accelerator.state
    state._shared_state.update(
        distributed_type=DistributedType.FSDP, fsdp_plugin=plugin, device=torch.device("cpu")
    )
    return accelerator, *accelerator.prepare(policy, make_optimizer(policy))


def meet(rank: int, port: int) -> None:
    """As `accelerate launch` starts this process."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "ACCELERATE_USE_FSDP": "true",
    }
    torch.set_num_threads(1)
    base_policy.process_rank = lambda: 0  # both draw alike


def train_sharded(rank: int, port: int, version: int, policy, inputs, output: Path) -> None:
    meet(rank, port)
    accelerator, sharded, _ = shard(policy, version)
    if version == 1:
        held = sum(p.numel() for p in sharded.parameters())
        loss, _ = loss_and_gradients(sharded, inputs, accelerator.backward)
        with FullyShardedDataParallel.summon_full_params(sharded, with_grads=True):
            gradients = {
                name.replace("_fsdp_wrapped_module.", ""): p.grad.clone()
                for name, p in sharded.named_parameters()
                if p.requires_grad and p.grad is not None
            }
    else:
        held = sum(p.to_local().numel() for p in sharded.parameters())
        loss, gradients = loss_and_gradients(sharded, inputs, accelerator.backward)
        gradients = {name: gradient.full_tensor() for name, gradient in gradients.items()}
    torch.save({"loss": loss, "gradients": gradients, "held": held}, output / f"{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_as_one_with_half_of_the_bytes(case, version, make_case, tmp_path: Path):
    policy, inputs = make_case(case)
    loss, gradients = loss_and_gradients(deepcopy(policy), inputs)
    run_processes(train_sharded, version, policy, inputs, tmp_path, count=PROCESSES)
    size = sum(parameter.numel() for parameter in policy.parameters())
    for rank in range(PROCESSES):
        result = torch.load(tmp_path / f"{rank}.pt")
        assert result["loss"] == pytest.approx(loss, rel=1e-6)
        assert result["gradients"].keys() == gradients.keys()
        for name, gradient in result["gradients"].items():
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-6, atol=1e-6, msg=name)
        assert result["held"] == pytest.approx(size / PROCESSES, rel=0.02)


def save_sharded(rank: int, port: int, policy, inputs, output: Path) -> None:
    """A step, and a checkpoint of it as LeRobot writes it."""
    meet(rank, port)
    accelerator, sharded, optimizer = shard(policy, version=1)
    loss_and_gradients(sharded, inputs, accelerator.backward)
    optimizer.step()
    # LeRobot asks torch to keep what it gathers on the CPU. From a GPU that is a copy; here it would be the very memory that is freed
    # (weights: torch crashes) or written anew (moments) before it is read.
    torch.distributed.fsdp.FullStateDictConfig = lambda **asked: FullStateDictConfig(
        rank0_only=asked["rank0_only"]
    )
    torch.Tensor.cpu = torch.Tensor.clone
    weights, moments = gather_fsdp_state_dicts(sharded, optimizer)
    assert bool(weights) == (rank == 0)  # the other processes hold nothing whole
    if rank == 0:
        accelerator.unwrap_model(sharded).save_pretrained(output / "policy", state_dict=weights)
        (output / TRAINING_STATE_DIR).mkdir()
        save_optimizer_state(optimizer, output / TRAINING_STATE_DIR, optim_state_dict=moments)
        torch.save(moments["state"], output / "moments.pt")
    accelerator.wait_for_everyone()
    for values in optimizer.state.values():
        values["exp_avg"].zero_()
    load_fsdp_optimizer_state(sharded, optimizer, output)
    _, again = gather_fsdp_state_dicts(sharded, optimizer)
    if rank == 0:
        for name, values in moments["state"].items():
            assert again["state"][name]["exp_avg"].equal(values["exp_avg"]), name


@pytest.mark.slow
def test_a_checkpoint_of_sharded_training_is_that_of_one_process(make_case, tmp_path: Path):
    policy, inputs = make_case("action")
    alone = deepcopy(policy)
    loss_and_gradients(alone, inputs)
    optimizer = make_optimizer(alone)
    optimizer.step()
    run_processes(save_sharded, policy, inputs, tmp_path, count=PROCESSES)
    saved = type(policy).from_pretrained(tmp_path / "policy", config=deepcopy(policy.config)).state_dict()
    expected = alone.state_dict()
    assert saved.keys() <= expected.keys()
    for name, weight in saved.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-5, msg=name)
    moments = torch.load(tmp_path / "moments.pt")
    trained = {name: weight for name, weight in alone.named_parameters() if weight.grad is not None}
    assert moments.keys() >= trained.keys()
    for name, weight in trained.items():
        torch.testing.assert_close(
            moments[name]["exp_avg"], optimizer.state[weight]["exp_avg"], rtol=1e-5, atol=1e-6, msg=name
        )


@pytest.mark.parametrize(
    ("case", "blocks"),
    [
        ("joint", {"Qwen3VLTextDecoderLayer", "SanaTransformerBlock"}),
        ("action without depth", {"Qwen3VLTextDecoderLayer", "ExpertBlock"}),
        ("action by keys and values", {"KeyValueLayer", "ExpertBlock"}),
        ("action with LoRA", {"Qwen3VLTextDecoderLayer", "ExpertBlock", "SanaTransformerBlock"}),
    ],
)
def test_every_block_is_declared(case, blocks, make_case):
    policy, _ = make_case(case)
    declared = {"Qwen3VLVisionBlock"} | blocks
    assert set(policy._no_split_modules) == set(policy._fsdp_wrap_modules) == declared
    assert declared <= {type(module).__name__ for module in policy.modules()}
    whole = policy.base_model.model if case == "action with LoRA" else policy
    assert type(whole)._fsdp_wrap_modules == policy._no_split_modules


@pytest.mark.parametrize("size", [24, 80])
def test_the_configurations_are_what_accelerate_reads(size, monkeypatch):
    file = Path(__file__).parents[2] / "configs" / "accelerate" / f"fsdp_8x{size}gb.yaml"
    arguments = launch_command_parser().parse_args(["--config_file", str(file), "lerobot-train"])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    arguments, _, precision_from_file = _validate_launch_command(arguments)
    assert (arguments.use_fsdp, arguments.num_processes, arguments.mixed_precision) == (True, 8, "bf16")
    assert precision_from_file
    known = {name for name in vars(arguments) if name.startswith("fsdp_")}
    assert load_config_from_file(str(file)).fsdp_config.keys() <= known
    environment = prepare_multi_gpu_env(arguments)
    monkeypatch.setattr(os, "environ", environment | {"FSDP_SYNC_MODULE_STATES": "false"})  # needs a GPU
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 1 and plugin.use_orig_params
    assert plugin.sharding_strategy.name == "FULL_SHARD"
    assert plugin.backward_prefetch.name == ("BACKWARD_PRE" if size == 80 else "BACKWARD_POST")
