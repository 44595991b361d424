"""What training needs of each GPU's memory.

Weights, gradients and the optimiser's state are those of real modules on the meta device: frozen and stored as the policy
does, with the state that one step of the real optimiser makes. Activations of one sample are counted by saved-tensor hooks on
all of 2b's layers, as fake tensors, which have shapes and types and no values: nothing is computed.

    python benchmarks/memory.py > results/memory/memory.md
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import init_empty_weights
from peft import LoraConfig, inject_adapter_in_model
from prompts import random_prompts  # beside this file
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import Qwen3VLConfig

from lerobot_gem.models.action_expert import ActionExpert
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.models.presets import Preset, get_preset
from lerobot_gem.policies.base_configuration import OPTIMIZERS
from lerobot_gem.training.lora import NEW_PARTS, lora_targets
from lerobot_gem.training.stages import STAGES
from lerobot_gem.training.trainable import freeze_all_but
from lerobot_gem.training.weights import store_weights

GB = 1e9
ACTION_DIM, STATE_DIM, CHUNK = 7, 8, 32  # LIBERO
CAMERAS, TEXT_TOKENS, DEPTH_SIDE = 2, 24, 256
IMAGE_SIDES = (256, 544)  # LIBERO; about as many pixels as 640 x 480
LORA_RANK = 16
BACKBONE = frozenset({"vision_tower", "merger", "language_model"})
LOW = "--policy.weights=bfloat16 --policy.optimizer_name=adamw_8bit"


@dataclass(frozen=True)
class Goal:
    """One way of training, and what it may take.

    Attributes:
        name: What is trained.
        command: That trains it, without the dataset.
        limit: Most GB of weights, gradients and optimiser for each GPU.
        preset: Sizes.
        depth: With the depth loss.
        frozen: Parts that the options freeze.
        weights: `--policy.weights`.
        optimizer: `--policy.optimizer_name`.
        lora: With adapters on the trainable parts of the backbone, which stay as they are.
        shards: GPUs that share them (FSDP, which stores all in float32).
    """

    name: str
    command: str
    limit: float
    preset: str = "2b"
    depth: bool = False
    frozen: frozenset[str] = frozenset()
    weights: str = "bfloat16"
    optimizer: str = "adamw_8bit"
    lora: bool = False
    shards: int = 1


CONFIG = "lerobot-train --config_path=configs/policy/gem_vla_{}.yaml"
SHARDED = "accelerate launch --config_file configs/accelerate/fsdp_8x80gb.yaml $(which lerobot-train)"
FREEZE = "--policy.backbone.freeze_vision_tower=true --policy.backbone.freeze_language_model=true"
GOALS = (
    Goal("2b, expert alone", f"{CONFIG.format('2b')} {FREEZE} {LOW}", 8, frozen=BACKBONE),
    Goal(
        "2b, LoRA",
        f"{CONFIG.format('2b')} {LOW} --peft.method_type=LORA --peft.r={LORA_RANK} --policy.optimizer_lr=1e-4",
        10,
        lora=True,
    ),
    Goal(
        "2b, LoRA, in float32",
        f"{CONFIG.format('2b')} --peft.method_type=LORA --peft.r={LORA_RANK} --policy.optimizer_lr=1e-4",
        16,
        weights="float32",
        optimizer="adamw",
        lora=True,
    ),
    Goal(
        "2b, LoRA, with depth",
        f"{CONFIG.format('2b_depth')} {LOW} --peft.method_type=LORA --peft.r={LORA_RANK} --policy.optimizer_lr=1e-4",
        16,
        depth=True,
        lora=True,
    ),
    Goal("2b, in full", f"{CONFIG.format('2b')} {LOW}", 13),
    Goal("2b, in full, with depth", f"{CONFIG.format('2b_depth')} {LOW}", 30, depth=True),
    Goal(
        "2b, in full, with depth, sharded over 8",
        f"{SHARDED} --config_path=configs/policy/gem_vla_2b_depth.yaml",
        40,
        depth=True,
        weights="float32",
        optimizer="adamw",
        shards=8,
    ),
    Goal(
        "8b, in full, with depth, sharded over 8",
        f"{SHARDED} --config_path=configs/policy/gem_vla_8b_depth.yaml",
        40,
        preset="8b",
        depth=True,
        weights="float32",
        optimizer="adamw",
        shards=8,
    ),
)


class Parts(nn.Module):
    """The parts of a policy under its names.

    Args:
        preset: Sizes.
        depth: With the generator and all decoder layers.
        language_head: With a language head of its own, where the preset does not tie it to the embeddings.
    """

    def __init__(self, preset: Preset, *, depth: bool, language_head: bool = False) -> None:
        super().__init__()
        expert = preset.expert
        self.backbone = GemBackbone(
            Qwen3VLConfig(**preset.backbone),
            num_layers=None if depth else expert.depth - 1,
            language_head=language_head,
        )
        width = self.backbone.hidden_size
        self.expert = ActionExpert(
            expert, conditioning_dim=width, action_dim=ACTION_DIM, state_dim=STATE_DIM, chunk_size=CHUNK
        )
        self.generator = DepthGenerator(preset.depth, width) if depth else None


@dataclass
class Kept:
    """Parameters, and the bytes that are in memory between steps."""

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    gathered: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered


def count(goal: Goal) -> Kept:
    with torch.device("meta"):
        parts = Parts(get_preset(goal.preset), depth=goal.depth)
    trainable = set(STAGES["action"].trainable) - goal.frozen
    adapted = lora_targets(parts, trainable, random={"expert"}) if goal.lora else None
    freeze_all_but(parts, trainable if adapted is None else NEW_PARTS)
    if adapted is not None:
        with torch.device("meta"):
            inject_adapter_in_model(LoraConfig(r=LORA_RANK, target_modules=adapted["target_modules"]), parts)
        for name in adapted["modules_to_save"]:
            parts.get_submodule(name).requires_grad_(True)
    if goal.shards == 1:  # accelerate makes all weights float32 when it shards them in mixed precision
        store_weights(parts, trainable=getattr(torch, goal.weights), frozen=torch.bfloat16)
    weights = list(parts.parameters())
    learned = [weight for weight in weights if weight.requires_grad]
    for weight in learned:
        weight.grad = torch.empty_like(weight)
    optimizer = OPTIMIZERS[goal.optimizer](lr=1e-5, grad_clip_norm=1.0, weight_decay=0.0).build(learned)
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()
    numbers = [sum(weight.numel() for weight in some) for some in (weights, learned)]
    sizes = (size(weights), size(weight.grad for weight in learned), size(tensors_in(optimizer.state_dict())))
    if goal.shards == 1:
        return Kept(*numbers, *sizes)
    return Kept(*numbers, *(total // goal.shards for total in sizes), gathered=largest_unit(parts))


def largest_unit(parts: Parts) -> int:
    """What FSDP gathers at a time, in bfloat16: two blocks, or all that is in none, as weights and as gradients."""
    blocks = [
        block
        for module in parts.modules()
        if isinstance(module, nn.ModuleList)
        for block in module
        if sum(weight.numel() for weight in block.parameters()) > 1e6
    ]
    in_blocks = {id(weight) for block in blocks for weight in block.parameters()}
    rest = sum(weight.numel() for weight in parts.parameters() if id(weight) not in in_blocks)
    block = max(sum(weight.numel() for weight in block.parameters()) for block in blocks)
    return 2 * 2 * (rest + 2 * block)


def size(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def tensors_in(values) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors_in(value)


# Activations


@contextmanager
def saved(module: nn.Module) -> Iterator[dict[int, int]]:
    """Storages that are kept for the backward pass, weights apart: address -> bytes."""
    weights = {weight.untyped_storage()._cdata for weight in module.state_dict().values()}
    kept: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def activations(image_side: int, *, depth: bool, checkpointing: bool) -> int:
    """Bytes that one sample keeps for the backward pass of all of 2b."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    preset = get_preset("2b")
    with init_empty_weights(include_buffers=False):
        parts = Parts(preset, depth=depth).train()
    freeze_all_but(parts, STAGES["action"].trainable)
    store_weights(parts, trainable=torch.bfloat16, frozen=torch.bfloat16)
    for module in parts.modules():
        for name, weight in module.named_parameters(recurse=False):
            with fake:
                made = nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype), weight.requires_grad)
            setattr(module, name, made)
    backbone, expert, generator = parts.backbone, parts.expert, parts.generator
    if checkpointing:
        backbone.gradient_checkpointing_enable()
        if generator is not None:
            generator.gradient_checkpointing_enable()
    prompt = random_prompts(backbone.config, image_side=image_side, cameras=CAMERAS, text_tokens=TEXT_TOKENS)
    ids, mask, grid = prompt["input_ids"], prompt["attention_mask"], prompt["image_grid_thw"]
    pixels = fake.from_tensor(prompt["pixel_values"])
    # It compares numbers of image tokens and features, which fake tensors can't be asked.
    backbone.model.get_placeholder_mask = lambda tokens, embeddings, image_features: (
        (tokens == backbone.image_token_id)[..., None].expand_as(embeddings),
        None,
    )
    layers = range(preset.expert.depth)
    with saved(parts) as kept, torch.autocast("cpu", dtype=torch.bfloat16):
        if depth:
            states, final = backbone.forward_with_final(ids, mask, pixels, grid, layers=layers)
        else:
            states, final = backbone(ids, mask, pixels, grid, layers=layers), None
        losses = expert.loss(
            torch.randn(1, CHUNK, ACTION_DIM),
            None,
            expert.encode_conditioning(states, mask),
            torch.randn(1, STATE_DIM),
        )
        if generator is not None:
            tokens = int((ids == backbone.image_token_id).sum()) // CAMERAS
            pictures = fake.from_tensor(torch.zeros(1, 3, DEPTH_SIDE, DEPTH_SIDE))
            span = final[:, 1 : 1 + tokens]
            losses = losses + generator.loss(span, torch.ones(1, tokens, dtype=torch.bool), pictures)
    return sum(kept.values())


def print_between_steps() -> None:
    print("Millions of parameters; GB (10^9 bytes) for each GPU\n")
    print("| training | parameters | trained | weights | gradients | optimiser | gathered | sum | goal |")
    print("|---|---|---|---|---|---|---|---|---|")
    for goal in GOALS:
        kept = count(goal)
        millions = " | ".join(f"{number / 1e6:,.0f}" for number in (kept.parameters, kept.trained))
        sizes = (kept.weights, kept.gradients, kept.optimizer, kept.gathered, kept.total)
        columns = " | ".join(f"{bytes_ / GB:.1f}" for bytes_ in sizes)
        print(f"| {goal.name} | {millions} | {columns} | {goal.limit:g} |", flush=True)
    print("\nThe commands, with --dataset.repo_id=<yours> behind each:\n")
    for goal in GOALS:
        print(f"{goal.name}: {goal.command}")


def print_activations() -> None:
    print(f"\nActivations of one sample: {CAMERAS} images, depth of one, 2b\n")
    print("| training | side of the images, px | without checkpointing, MB | with, MB |")
    print("|---|---|---|---|")
    for side in IMAGE_SIDES:
        for depth in (False, True):
            kept = [activations(side, depth=depth, checkpointing=it) for it in (False, True)]
            name = "2b, in full, with depth" if depth else "2b, in full"
            print(f"| {name} | {side} | {' | '.join(f'{number / 1e6:.0f}' for number in kept)} |", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--no-activations", action="store_true")
    with_activations = not arguments.parse_args().no_activations
    print_between_steps()
    if with_activations:
        print_activations()


if __name__ == "__main__":
    main()
