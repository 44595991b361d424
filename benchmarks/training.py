"""A training step against a plain implementation, at a reduced 2b.

Both train the same random weights on the same batch, with autocast and AdamW: the plain one as a straightforward port of the release
does, transformers' whole model and its hidden states, ours with the decoder layers that the expert reads. The losses are
compared, and each way with the plain one: as it is, and with the same checkpointing. CPU-seconds of steps that take turns in one
process; the peak of resident memory of each, less what the imported libraries take, in a process of its own.

    python benchmarks/training.py --repeats=5 --threads=1 | tee results/training/training.md
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from prompts import random_prompts  # beside this file
from resident_memory import resident_bytes
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from lerobot_gem.models.action_expert import ActionExpert
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.presets import ExpertArchitecture, get_preset

# GEM-2B's proportions (half of the decoder is read) at less than a tenth of its size.
DECODER_LAYERS, EXPERT_BLOCKS, WIDTH, VOCABULARY = 28, 14, 512, 32_000
BATCH, CAMERAS, IMAGE_SIDE, TEXT_TOKENS = 4, 2, 256, 24
CHUNK, ACTION_DIM, STATE_DIM = 32, 7, 8
CHECKPOINTING = ", checkpointing"
WAYS = ("plain", "ours", f"plain{CHECKPOINTING}", f"ours{CHECKPOINTING}")


def config() -> Qwen3VLConfig:
    tiny = get_preset("tiny").backbone
    values = get_preset("2b").backbone | {name: tiny[name] for name in tiny if name.endswith("_token_id")}
    values["text_config"] = values["text_config"] | {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": DECODER_LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "rope_parameters": values["text_config"]["rope_parameters"] | {"mrope_section": [12, 10, 10]},
    }
    values["vision_config"] = values["vision_config"] | {
        "depth": 6,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_heads": 8,
        "out_hidden_size": WIDTH,
        "deepstack_visual_indexes": [1, 3, 5],
    }
    return Qwen3VLConfig(**values)


def make_expert() -> ActionExpert:
    architecture = ExpertArchitecture(hidden_size=256, depth=EXPERT_BLOCKS, num_heads=4, num_kv_heads=2)
    expert = ActionExpert(
        architecture,
        conditioning_dim=WIDTH,
        action_dim=ACTION_DIM,
        state_dim=STATE_DIM,
        chunk_size=CHUNK,
    )
    nn.init.normal_(expert.output.velocity.weight, std=0.05)
    return expert


def make(implementation: str) -> Callable[[bool], float]:
    """One step of training, with or without checkpointing, which returns its loss."""
    torch.manual_seed(0)
    whole = Qwen3VLForConditionalGeneration(config())
    expert = make_expert()
    observation = random_prompts(
        whole.config, image_side=IMAGE_SIDE, cameras=CAMERAS, text_tokens=TEXT_TOKENS, rows=BATCH
    )
    actions, noise = torch.randn(2, BATCH, CHUNK, ACTION_DIM).unbind()
    state, share = torch.randn(BATCH, STATE_DIM), torch.rand(BATCH)
    if implementation == "plain":
        model: nn.Module = whole

        def states() -> Tensor:
            types = (observation["input_ids"] == whole.config.image_token_id).int()
            output = whole.model(
                **observation, mm_token_type_ids=types, output_hidden_states=True, use_cache=False
            )
            return torch.stack(output.hidden_states[:EXPERT_BLOCKS], dim=1)

    else:
        backbone = GemBackbone(whole.config, num_layers=EXPERT_BLOCKS - 1)
        kept = backbone.state_dict().keys()
        backbone.load_state_dict(
            {name: weight for name, weight in whole.state_dict().items() if name in kept}
        )
        model = backbone
        del whole

        def states() -> Tensor:
            return backbone(**observation, layers=range(EXPERT_BLOCKS), convention="hidden_states")

    model.train()
    optimizer = torch.optim.AdamW([*model.parameters(), *expert.parameters()], lr=1e-4)

    towers = whole if implementation == "plain" else model.model

    def step(checkpointing: bool) -> float:
        if checkpointing:
            towers.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            towers.gradient_checkpointing_disable()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            conditioning = expert.encode_conditioning(states(), observation["attention_mask"])
            loss = expert.loss(actions, None, conditioning, state, noise=noise, time=share).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def split(way: str) -> tuple[str, bool]:
    """Implementation, and whether it recomputes activations."""
    return way.removesuffix(CHECKPOINTING), way.endswith(CHECKPOINTING)


def peak(way: str) -> float:
    """MB that building a way and two of its steps add to the imported libraries, in a process of its own."""
    command = [sys.executable, __file__, "--peak", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", choices=WAYS, help="print the peak of one way alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        before = resident_bytes(peak=True)
        implementation, checkpointing = split(arguments.peak)
        step = make(implementation)
        step(checkpointing)
        step(checkpointing)
        print((resident_bytes(peak=True) - before) / 2**20)
        return
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    steps = {implementation: make(implementation) for implementation in ("plain", "ours")}
    losses = {implementation: step(False) for implementation, step in steps.items()}
    for _ in range(arguments.repeats):
        for way in WAYS:
            implementation, checkpointing = split(way)
            start = time.process_time()
            steps[implementation](checkpointing)
            times[way].append(time.process_time() - start)
    del steps
    print(
        f"{arguments.repeats} steps each, {arguments.threads} thread(s), batch {BATCH}, torch {torch.__version__}"
    )
    print(f"loss of the first step: plain {losses['plain']:.6f}, ours {losses['ours']:.6f}\n")
    print(
        "| way | CPU-s a step (median) | of plain | of plain alike | peak, MB | of plain | of plain alike |"
    )
    print("|---|---|---|---|---|---|---|")
    seconds = {way: statistics.median(times[way]) for way in WAYS}
    peaks = {way: peak(way) for way in WAYS}
    for way in WAYS:
        alike = way.replace("ours", "plain")
        print(
            f"| {way} | {seconds[way]:.2f} | {seconds[way] / seconds['plain']:.2f} | {seconds[way] / seconds[alike]:.2f} | "
            f"{peaks[way]:.0f} | {peaks[way] / peaks['plain']:.2f} | {peaks[way] / peaks[alike]:.2f} |"
        )


if __name__ == "__main__":
    main()
