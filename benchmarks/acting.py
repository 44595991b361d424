"""What acting costs: this policy against the release's way, with the same random weights at real sizes.

* release: the whole VLM, the language head over all tokens, the expert's keys, values and modulations computed anew at each
  denoising step, all weights in bfloat16;
* ours: decoder layers up to the last one the expert reads, keys, values and modulations once per observation, what depends on
  the prompt once per episode; weights that autocast casts stored in bfloat16;
* compiled: ours, compiled, which takes minutes on a CPU;
* key_values: ours, with an expert that reads the backbone's keys and values, and has as many heads for them;
* tokens: the whole decoder once, then `--tokens` action tokens one by one, with kept keys and values and a head of their rows.

Each way is a process of its own, so that its peak memory is its own; they take turns, so that disturbances meet both. On a CPU, times
are CPU seconds, since wall seconds of a shared machine say little. Before them, a process holds our weights in float32, as training does:
`ours` must give its chunk bit by bit. Each process keeps its weights, at 2b 4 to 6 GB, to the end.

    python benchmarks/acting.py --preset=2b --repeats=5
    python benchmarks/acting.py --preset=2b --device=cuda --ways release ours compiled --output=acting.json
    python benchmarks/acting.py --preset=2b --startup
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from options import at_least_one  # beside this file
from prompts import random_prompts
from torch import Tensor, nn

ACTIONS, ACTION_DIM, STATE_DIM, STEPS = 32, 7, 8, 5
TEXT_TOKENS = 24
ACTION_TOKENS = 256
NOISE = 1 << 20  # numbers of which random weights are made


def build_empty(build: Callable[[], nn.Module]) -> nn.Module:
    from accelerate import init_empty_weights
    from transformers.initialization import no_init_weights

    with no_init_weights(), init_empty_weights():
        return build().eval()


@cache
def noise() -> Tensor:
    """Twice the same, so that a piece of `NOISE` numbers can begin anywhere."""
    return (0.02 * torch.randn(NOISE, generator=torch.Generator().manual_seed(0))).repeat(2)


def random_weight(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Random numbers that depend on the name alone, made fast: a block of noise, repeated from a place of its own.

    Like a weight that is read from a map of its file, it is in memory once.
    """
    start = zlib.crc32(name.encode()) % NOISE
    block = noise()[start : start + NOISE]
    if "norm" in name and name.endswith("weight"):
        block = block + 1
    if "embed_tokens" in name:  # a released table of embeddings is bfloat16's
        block = block.bfloat16()
    weight = torch.empty(shape, dtype=dtype)
    for part in weight.view(-1).split(NOISE):
        part.copy_(block[: len(part)])
    return weight


def fill(module: nn.Module, prefix: str, device: str, dtype_of: Callable[[str], torch.dtype]) -> None:
    from transformers import PreTrainedModel

    weights = {
        name: random_weight(f"{prefix}{name}", weight.shape, dtype_of(name))
        for name, weight in module.state_dict(keep_vars=True).items()
        if weight.is_meta
    }
    module.load_state_dict(weights, strict=False, assign=True)
    if isinstance(module, PreTrainedModel):
        module.tie_weights()
    # As nothing is trained, autocast keeps no second copy of what it casts.
    module.to(device).requires_grad_(False)


def observe(config: Any, cameras: int, side: int, device: str) -> dict[str, Tensor]:
    """A random observation, tokenised; patches are other ones each time."""
    torch.manual_seed(1)
    prompt = random_prompts(config, image_side=side, cameras=cameras, text_tokens=TEXT_TOKENS)
    given = prompt | {
        "state": torch.randn(1, STATE_DIM),
        "noise": torch.randn(1, ACTIONS, ACTION_DIM),
    }
    return {name: value.to(device) for name, value in given.items()}


class Clock:
    """CPU seconds, or seconds on a GPU, by part."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.parts: dict[str, float] = {}
        self.imports = 0  # bytes in use before there is a weight

    def now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + self.now() - start

    def watch(self, module: nn.Module, name: str) -> None:
        """Count a module's forward as a part."""
        starts: list[float] = []
        module.register_forward_pre_hook(lambda *_: starts.append(self.now()))
        module.register_forward_hook(
            lambda *_: self.parts.update({name: self.parts.get(name, 0.0) + self.now() - starts.pop()})
        )


def make_expert(preset: Any, *, key_values: bool = False) -> nn.Module:
    from lerobot_gem.models.action_expert import ActionExpert

    text = preset.backbone["text_config"]
    architecture, width = preset.expert, text["hidden_size"]
    if key_values:
        heads = text["num_key_value_heads"]
        architecture, width = replace(architecture, num_kv_heads=heads), 2 * heads * text["head_dim"]
    return ActionExpert(
        architecture,
        conditioning_dim=width,
        conditioning="key_values" if key_values else "states",
        action_dim=ACTION_DIM,
        state_dim=STATE_DIM,
        chunk_size=ACTIONS,
    )


def the_releases_way(options: argparse.Namespace, clock: Clock) -> Callable[[], Tensor]:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from lerobot_gem.models.conditioning import Conditioning
    from lerobot_gem.models.presets import get_preset

    preset = get_preset(options.preset)
    config = Qwen3VLConfig(**preset.backbone)
    clock.imports = peak_bytes(options.device)
    whole: Any = build_empty(lambda: Qwen3VLForConditionalGeneration(config))
    expert: Any = build_empty(lambda: make_expert(preset))
    fill(whole, "", options.device, lambda _: torch.bfloat16)
    fill(expert, "expert.", options.device, lambda _: torch.bfloat16)
    given = observe(config, options.cameras, options.image_size, options.device)
    state, noise = (given.pop(name).bfloat16() for name in ("state", "noise"))
    clock.watch(whole.model.visual, "vision")
    clock.watch(whole.model.language_model, "decoder")
    clock.watch(whole.lm_head, "language head")
    types = (given["input_ids"] == config.image_token_id).int()

    def act() -> Tensor:
        output = whole(**given, mm_token_type_ids=types, output_hidden_states=True, use_cache=False)
        with clock.part("expert"):
            states = torch.stack(output.hidden_states[: preset.expert.depth], dim=1)
            adapted = expert.conditioning_adaptor(states).unbind(1)
            mask = given["attention_mask"].bool()[:, None, None]
            actions = noise
            for step in range(STEPS):
                projected = tuple(
                    block(conditioning=tokens) for block, tokens in zip(expert.blocks, adapted, strict=True)
                )
                moment = torch.tensor([step / STEPS], device=noise.device, dtype=noise.dtype)
                velocity = expert(actions, moment, Conditioning(projected, mask), state)
                actions = actions + velocity / STEPS
        return actions

    return act


def _stored_as(in_bfloat16: set[str], name: str) -> torch.dtype:
    return torch.bfloat16 if name in in_bfloat16 else torch.float32


def our_way(
    options: argparse.Namespace,
    clock: Clock,
    *,
    in_bfloat16: bool,
    compiled: bool = False,
    key_values: bool = False,
) -> Callable[[], Tensor]:
    from transformers import Qwen3VLConfig

    from lerobot_gem.inference import acting
    from lerobot_gem.inference.compiled import TOLERANCES, CompiledSampler
    from lerobot_gem.models.backbone import GemBackbone
    from lerobot_gem.models.precision import autocast_weights, token_tables
    from lerobot_gem.models.presets import get_preset

    preset = get_preset(options.preset)
    config = Qwen3VLConfig(**preset.backbone)
    layers = tuple(range(preset.expert.depth))
    clock.imports = peak_bytes(options.device)
    backbone: Any = build_empty(lambda: GemBackbone(config, num_layers=layers[-1], key_values=key_values))
    expert: Any = build_empty(lambda: make_expert(preset, key_values=key_values))
    for module, prefix in ((backbone, ""), (expert, "expert.")):
        cast = autocast_weights(module) | token_tables(module)
        fill(module, prefix, options.device, partial(_stored_as, cast if in_bfloat16 else set()))
    given = observe(config, options.cameras, options.image_size, options.device)
    observation = acting.Observation(
        *(given[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "state"))
    )
    prompts = acting.PromptMemory()

    def timed(name: str, stage: Callable[..., Any], *args: Any) -> Any:
        with clock.part(name):
            return stage(*args)

    sample: Any = acting.ChunkSampler(
        backbone, expert, layers, "key_values" if key_values else "hidden_states"
    )
    if compiled:
        sample = CompiledSampler(sample, TOLERANCES["bfloat16"])
    else:
        sample = replace(
            sample,
            see=partial(timed, "vision", acting.see),
            read=partial(timed, "decoder", acting.read),
            denoise=partial(timed, "expert", acting.denoise),
        )

    def act() -> Tensor:
        with torch.autocast(options.device, torch.bfloat16):
            inputs = acting.ChunkInputs(
                prompts.prepare(backbone, observation),
                observation.mask,
                observation.pixel_values,
                observation.state,
                given["noise"],
            )
            return sample(inputs, STEPS)

    return act


def by_tokens(options: argparse.Namespace, clock: Clock) -> Callable[[], Tensor]:
    from transformers import Qwen3VLConfig

    from lerobot_gem.inference.token_acting import ActionTokenWriter
    from lerobot_gem.models.backbone import GemBackbone
    from lerobot_gem.models.precision import autocast_weights, token_tables
    from lerobot_gem.models.presets import get_preset

    config = Qwen3VLConfig(**get_preset(options.preset).backbone)
    clock.imports = peak_bytes(options.device)
    backbone: Any = build_empty(lambda: GemBackbone(config, language_head=True))
    cast = autocast_weights(backbone) | token_tables(backbone)
    fill(backbone, "", options.device, partial(_stored_as, cast))
    given = observe(config, options.cameras, options.image_size, options.device)
    inputs = [given[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")]
    clock.watch(backbone.model.visual, "vision")
    clock.watch(backbone.model.language_model, "tokens behind the first")
    # One coefficient each, so that the tokens are as many as are asked for.
    first_row = config.text_config.vocab_size - ACTION_TOKENS
    writer = ActionTokenWriter(backbone, [first_row - 1], first_row, [1] * ACTION_TOKENS)

    def act() -> Tensor:
        with torch.autocast(options.device, torch.bfloat16):
            return torch.tensor(writer.write(*inputs, coefficients=options.tokens))

    return act


WAYS: dict[str, Callable[..., Callable[[], Tensor]]] = {
    "release": the_releases_way,
    "training": partial(our_way, in_bfloat16=False),
    "ours": partial(our_way, in_bfloat16=True),
    "compiled": partial(our_way, in_bfloat16=True, compiled=True),
    "key_values": partial(our_way, in_bfloat16=True, key_values=True),
    "tokens": by_tokens,
}


def peak_bytes(device: str) -> int:
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.cuda.max_memory_allocated()


def serve(way: str, options: argparse.Namespace, connection: Any) -> None:
    """A process that acts one way each time it is asked."""
    torch.set_num_threads(options.threads)
    clock = Clock(options.device)
    with torch.no_grad():
        act = WAYS[way](options, clock)
        while connection.recv():
            clock.parts = {}
            start = clock.now()
            chunk = act()
            total = clock.now() - start
            connection.send(
                {
                    "chunk": chunk.float().cpu().tolist(),
                    "total": total,
                    "parts": clock.parts,
                    "peak": peak_bytes(options.device),
                    "imports": clock.imports,
                }
            )


class Worker:
    """A way of acting, in a process."""

    def __init__(self, way: str, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(way, options, other), daemon=True)
        self._process.start()
        self.chunks: list[dict[str, Any]] = []

    def act(self) -> Tensor:
        self._connection.send(True)
        self.chunks.append(self._connection.recv())
        return torch.tensor(self.chunks[-1]["chunk"])

    def stop(self) -> None:
        self._connection.send(False)
        self._process.join()

    def report(self) -> dict[str, Any]:
        """Medians of all chunks but the first, which warms up."""
        after = self.chunks[1:]
        parts = {name: median(chunk["parts"][name] for chunk in after) for name in after[0]["parts"]}
        if parts:
            parts["rest"] = median(chunk["total"] - sum(chunk["parts"].values()) for chunk in after)
            if "language head" in parts:  # inside of nothing else that is counted
                parts["rest"] = max(parts["rest"], 0.0)
        seconds = [chunk["total"] for chunk in after]
        return {
            "first_s": self.chunks[0]["total"],
            "median_s": median(seconds),
            "min_s": min(seconds),
            "max_s": max(seconds),
            "n": len(seconds),
            "parts_s": parts,
            "peak_gb": max(chunk["peak"] for chunk in self.chunks) / 1e9,
            "imports_gb": self.chunks[0]["imports"] / 1e9,
        }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    training = Worker("training", options)
    expected = training.act()
    training.stop()
    workers = {way: Worker(way, options) for way in options.ways}
    chunks = {}
    for _ in range(options.repeats + 1):
        for way, worker in workers.items():
            chunks[way] = worker.act()
    for worker in workers.values():
        worker.stop()
    report: dict[str, Any] = {way: worker.report() for way, worker in workers.items()}
    report["training"] = {
        "peak_gb": training.chunks[0]["peak"] / 1e9,
        "imports_gb": training.chunks[0]["imports"] / 1e9,
    }
    if {"release", "ours"} <= report.keys():
        release, ours = report["release"], report["ours"]
        report |= {
            "times_faster": release["median_s"] / ours["median_s"],
            "share_of_memory": ours["peak_gb"] / release["peak_gb"],
            "share_of_memory_without_imports": (ours["peak_gb"] - ours["imports_gb"])
            / (release["peak_gb"] - release["imports_gb"]),
        }
    # The others compute something else.
    alike = [way for way in ("release", "ours", "compiled") if way in chunks]
    report["difference_to_training_precision"] = {
        way: (chunks[way] - expected).abs().max().item() for way in alike
    }
    return report


START = """
import sys, torch
torch.set_num_threads({threads})
import lerobot_policy_gem
from lerobot.configs import PreTrainedConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
checkpoint, way, batch, chunk = sys.argv[1:]
config = PreTrainedConfig.from_pretrained(checkpoint)
if way == "plain":
    from safetensors.torch import load_file
    config.backbone.pretrained = None
    policy = GemVLAPolicy(config)
    policy.load_state_dict(load_file(checkpoint + "/model.safetensors"))
    policy.eval()
else:
    policy = GemVLAPolicy.from_pretrained(checkpoint, config=config)
torch.manual_seed(0)
torch.save(policy.predict_action_chunk(torch.load(batch)), chunk)
"""


def write_checkpoint(folder: Path, options: argparse.Namespace) -> None:
    """A policy checkpoint of random weights, the acting checkpoint that is made of it, and an observation."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE

    import lerobot_policy_gem  # noqa: F401
    from lerobot_gem.checkpoints.acting import write_acting
    from lerobot_gem.checkpoints.formats import open_checkpoint
    from lerobot_gem.policies.base_options import BackboneConfig
    from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
    from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
    from lerobot_gem.processing.steps import OBS_GRID_THW, OBS_PIXEL_VALUES

    side = options.image_size
    config = GemVLAConfig(
        preset=options.preset,
        backbone=BackboneConfig(pretrained="none"),
        device=options.device,
        input_features={
            **{
                f"observation.images.{camera}": PolicyFeature(FeatureType.VISUAL, (3, side, side))
                for camera in range(options.cameras)
            },
            OBS_STATE: PolicyFeature(FeatureType.STATE, (STATE_DIM,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
    )
    policy = GemVLAPolicy(config, weights_follow=True)
    fill(policy, "", "cpu", lambda _: torch.float32)
    policy.save_pretrained(folder / "trained")
    write_acting(open_checkpoint(str(folder / "trained")), folder / "acting")
    given = observe(policy.backbone.config, options.cameras, side, options.device)
    batch = {
        OBS_LANGUAGE_TOKENS: given["input_ids"],
        OBS_LANGUAGE_ATTENTION_MASK: given["attention_mask"].bool(),
        OBS_PIXEL_VALUES: given["pixel_values"],
        OBS_GRID_THW: given["image_grid_thw"],
        OBS_STATE: given["state"],
    }
    torch.save(batch, folder / "batch.pt")


def startup(options: argparse.Namespace) -> dict[str, Any]:
    """From process start to first chunk: loading as we do, a trained and an acting checkpoint, and initialising, reading the whole file, copying.

    What Python and its imports take of it, alike in all, is measured on its own.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = multiprocessing.get_context("spawn").Process(target=write_checkpoint, args=(folder, options))
        writer.start()
        writer.join()
        if writer.exitcode:
            raise RuntimeError(f"The checkpoints were not written: exit code {writer.exitcode}")
        start = START.format(threads=options.threads)
        files = {way: folder / f"{way}.pt" for way in ("ours", "acting", "plain")}
        commands = {
            way: [
                start,
                str(folder / ("acting" if way == "acting" else "trained")),
                way,
                str(folder / "batch.pt"),
                str(file),
            ]
            for way, file in files.items()
        }
        commands["imports"] = [start.split("checkpoint, way")[0]]
        found: dict[str, dict[str, list[float]]] = {}
        for _ in range(options.repeats):
            for way, command in commands.items():
                begin = time.perf_counter()
                process = subprocess.Popen([sys.executable, "-c", *command])
                _, status, usage = os.wait4(process.pid, 0)
                if status:
                    raise RuntimeError(f"{way} failed with status {status}")
                seconds = found.setdefault(way, {"cpu_s": [], "wall_s": [], "peak_gb": []})
                seconds["cpu_s"].append(usage.ru_utime + usage.ru_stime)
                seconds["wall_s"].append(time.perf_counter() - begin)
                seconds["peak_gb"].append(usage.ru_maxrss * 1024 / 1e9)
        chunks = {way: torch.load(file) for way, file in files.items()}
    report: dict[str, Any] = {
        way: {name: median(values) for name, values in of_way.items()} for way, of_way in found.items()
    }
    plain, imports = report["plain"]["cpu_s"], report["imports"]["cpu_s"]
    for way in ("ours", "acting"):
        report[way] |= {
            "share_of_plain": report[way]["cpu_s"] / plain,
            "share_of_plain_without_imports": (report[way]["cpu_s"] - imports) / (plain - imports),
            "difference": (chunks[way] - chunks["plain"]).abs().max().item(),
        }
    return {**report, "n": options.repeats}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="2b", choices=["tiny", "2b", "8b"])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--cameras", type=at_least_one, default=2)
    parser.add_argument("--image_size", type=at_least_one, default=256, help="side of each image in pixels")
    parser.add_argument("--repeats", type=at_least_one, default=5, help="chunks of each way after the first")
    parser.add_argument("--threads", type=at_least_one, default=1)
    parser.add_argument(
        "--ways",
        choices=[way for way in WAYS if way != "training"],
        nargs="+",
        default=["release", "ours"],
        help="what to measure",
    )
    parser.add_argument(
        "--tokens", type=at_least_one, default=23, help="action tokens of a chunk of `tokens`"
    )
    parser.add_argument(
        "--startup", action="store_true", help="measure from process start to first chunk instead"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    settings = {
        name: getattr(options, name)
        for name in ("preset", "device", "cameras", "image_size", "repeats", "threads", "tokens")
    }
    settings |= {"steps": STEPS, "torch": torch.__version__}
    report = {"settings": settings, **(startup(options) if options.startup else compare(options))}
    text = json.dumps(report, indent=2)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
