"""What fits a GPU and how fast it is: one step of each stage and way of training, and chunks of each way of acting, random weights.

Needs neither network nor data. A row that fails (out of memory, say) says so, and the others go on; what the budget of minutes leaves no
time for is listed as not run.

    make gpu-check                                                  # 2b on the first CUDA device, results/gpu/<its name>_2b_<sizes>.json, .md
    python benchmarks/gpu_check.py --batch_size=4 --depth_batch_size=8 --rows "action, 8-bit" "plain" "compiled"
    python benchmarks/gpu_check.py --preset=tiny --device=cpu --batch_size=2 --depth_batch_size=2 --image_size=64 --repeats=1
"""

import argparse
import gc
import json
import platform
import re
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from options import at_least_one  # beside this file
from prompts import random_prompts
from torch import Tensor, nn

import lerobot_policy_gem  # noqa: F401, registers the policies
from lerobot_gem.inference.quantization import quantize
from lerobot_gem.models.precision import autocast_weights, token_tables
from lerobot_gem.models.presets import PRESETS, get_preset
from lerobot_gem.policies.base_options import BackboneConfig, DepthConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from lerobot_gem.processing.steps import IGNORED, OBS_GRID_THW, OBS_LABELS, OBS_PIXEL_VALUES, OBS_ROW_SAMPLES
from lerobot_gem.training.stages import PRETRAINING

ROOT = Path(__file__).parents[1]
ACTION_DIM, STATE_DIM = 7, 8  # LIBERO
TEXT_TOKENS, ANSWER_TOKENS = 24, 6
DEPTH_SIDE = 256  # of gem_vla_2b_depth.yaml
LOW = {"weights": "bfloat16", "optimizer_name": "adamw_8bit"}
CHECKPOINTING = {"gradient_checkpointing": True}

# What is aimed at for 2b at the default sizes on an H100: row -> (what is measured, largest value).
GOALS = {"compiled": ("chunk_ms", 15.0), "action, 8-bit, with depth": ("peak_gb", 48.0)}


@dataclass(frozen=True)
class Training:
    """A way of training.

    Attributes:
        stage: Of `training/stages.py`.
        options: Fields of the policy's configuration.
        backbone: Fields of `backbone`.
        depth: Fields of `depth`; None for no depth loss.
        adapted: With LoRA.
        compared: Gradients are compared with those of the whole batch at once.
    """

    stage: str
    options: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    depth: dict[str, Any] | None = None
    adapted: bool = False
    compared: bool = False


FROZEN = {"freeze_vision_tower": True, "freeze_language_model": True}
TRAINING = {
    "connector": Training("connector", depth={}),
    "generator": Training("generator", depth={}),
    "joint, 8-bit": Training("joint", LOW, CHECKPOINTING, {}),
    "action, float32": Training("action", backbone=CHECKPOINTING),
    "action, 8-bit": Training("action", LOW),
    "action, 8-bit, checkpointing": Training("action", LOW, CHECKPOINTING),
    "action, 8-bit, micro-batches": Training("action", {**LOW, "micro_batch_size": 1}, compared=True),
    "action, 8-bit, expert alone": Training("action", LOW, FROZEN),
    "action, LoRA": Training("action", LOW, adapted=True),
    "action, 8-bit, with depth": Training("action", LOW, CHECKPOINTING, {}),
    "action, 8-bit, depth on a quarter": Training("action", LOW, CHECKPOINTING, {"share": 0.25}),
}


@dataclass(frozen=True)
class Acting:
    """A way of acting; what it gives is compared with another one's from the same noise.

    Attributes:
        stored: Type of the weights that autocast casts.
        compiled: With compile_model.
        steps: Euler steps; one is what a distilled policy takes.
        quantized: In 8 bits, on a CPU.
        like: Row that it is compared with.
    """

    stored: torch.dtype = torch.bfloat16
    compiled: bool = False
    steps: int = 5
    quantized: bool = False
    like: str | None = None


ACTING = {
    "weights in float32": Acting(torch.float32),
    "plain": Acting(like="weights in float32"),
    "compiled": Acting(compiled=True, like="plain"),
    "one step": Acting(steps=1),
    "one step, compiled": Acting(steps=1, compiled=True, like="one step"),
    "int8": Acting(quantized=True, like="plain"),
}


class Machine:
    """Where it runs, and its clock and memory."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.is_cuda = self.device.type == "cuda"
        if self.is_cuda and not torch.cuda.is_available():
            sys.exit(
                f"--device={device}: torch finds no CUDA device. Expected one, or --device=cpu --preset=tiny."
            )
        self.name = torch.cuda.get_device_name(self.device) if self.is_cuda else platform.machine()

    def forget(self) -> None:
        """Free what the last row left, and count memory anew."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def now(self) -> float:
        """Seconds; of a CPU those that the process computed, since others may share it."""
        if not self.is_cuda:
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def peak_gb(self) -> float | None:
        """None on a CPU, where a process has one peak for all rows."""
        return torch.cuda.max_memory_allocated(self.device) / 1e9 if self.is_cuda else None


def fill(policy: nn.Module, device: torch.device, dtype_of: Callable[[str, Tensor], torch.dtype]) -> None:
    """Random weights that depend on their names, where a policy has none; numbers of bfloat16, so that either type can store them."""
    for prefix, module in policy.named_modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if not weight.is_meta:
                continue
            path = f"{prefix}.{name}"
            if weight.ndim < 2:  # of norms, and biases
                made = torch.full(weight.shape, float(name == "weight"), device=device)
            else:
                generator = torch.Generator(device).manual_seed(zlib.crc32(path.encode()))
                made = torch.randn(weight.shape, device=device, generator=generator) * 0.02
            made = made.bfloat16().to(dtype_of(path, weight))
            setattr(module, name, nn.Parameter(made, requires_grad=weight.requires_grad))
    policy.to(device)


def cameras(options: argparse.Namespace) -> list[str]:
    return [f"observation.images.camera{number}" for number in range(options.cameras)]


def configure(options: argparse.Namespace, way: Training, **more: Any) -> GemConfig | GemVLAConfig:
    preset, side = get_preset(options.preset), options.image_size
    depth = DepthConfig(
        loss_weight=0.0 if way.depth is None else 0.1,
        colormap="inferno",
        max_side=min(DEPTH_SIDE, preset.max_depth_side),
        **(way.depth or {}),
    )
    common = {
        "preset": options.preset,
        # Not read: no weights are loaded.
        "backbone": BackboneConfig(pretrained="none", **way.backbone),
        "depth": depth,
        "device": options.device,
        "input_features": {
            **{camera: PolicyFeature(FeatureType.VISUAL, (3, side, side)) for camera in cameras(options)},
            OBS_STATE: PolicyFeature(FeatureType.STATE, (STATE_DIM,)),
        },
        **way.options,
        **more,
    }
    if way.stage in PRETRAINING:
        config: GemConfig | GemVLAConfig = GemConfig(stage=way.stage, allow_untrained=True, **common)
    else:
        actions = {ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))}
        config = GemVLAConfig(output_features=actions, **common)
        config.check_dataset = lambda meta: None  # type: ignore[method-assign]  # there is no dataset
    config.built.backbone = preset.backbone
    if way.depth is not None:
        config.built.generator = asdict(preset.depth)
        first = cameras(options)[0]
        config.built.depth_cameras = {first: f"{first}_depth"}
    return config


def observe(
    policy: Any, options: argparse.Namespace, batch_size: int, *, with_answers: bool
) -> dict[str, Any]:
    """A preprocessed batch of random pictures."""
    config, device = policy.backbone.config, torch.device(options.device)
    names, side = cameras(options), options.image_size
    torch.manual_seed(1)
    prompts = random_prompts(
        config,
        image_side=side,
        cameras=options.cameras,
        text_tokens=TEXT_TOKENS,
        rows=batch_size,
    )
    ids = prompts["input_ids"]
    batch = {
        OBS_LANGUAGE_TOKENS: ids,
        OBS_LANGUAGE_ATTENTION_MASK: prompts["attention_mask"].bool(),
        OBS_PIXEL_VALUES: prompts["pixel_values"],
        OBS_GRID_THW: prompts["image_grid_thw"],
        OBS_STATE: torch.randn(batch_size, STATE_DIM),
        ACTION: torch.rand(batch_size, getattr(policy.config, "chunk_size", 1), ACTION_DIM) * 2 - 1,
        **{camera: torch.rand(batch_size, 3, side, side) for camera in names},
        f"{names[0]}_depth": torch.rand(batch_size, 1, side, side) * 2000 + 500,  # mm
    }
    if with_answers:
        labels = ids.clone()
        labels[:, :-ANSWER_TOKENS] = IGNORED
        batch |= {OBS_LABELS: labels, OBS_ROW_SAMPLES: torch.arange(batch_size)}
    return {name: value.to(device) for name, value in batch.items()}


def build(options: argparse.Namespace, way: Training, machine: Machine) -> Any:
    """A policy that is trained, with random weights, frozen and stored as its configuration says."""
    config = configure(options, way)
    policy: Any
    if isinstance(config, GemConfig):
        policy = GemPolicy(config, weights_follow=True)
    else:
        meta = SimpleNamespace(fps=10, features={}, stats={}, repo_id="none")
        policy = GemVLAPolicy(config, dataset_meta=meta, weights_follow=True)
    fill(policy, machine.device, lambda _, weight: weight.dtype)
    if way.adapted:
        policy.config.backbone.pretrained = None  # whose weights the adapter would take the fingerprint of
        policy = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 16})
    return policy.train()


def train(way: Training, options: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """A row of training: seconds of a step after the first, and the peak of memory."""
    batch_size = options.batch_size if way.depth is None else options.depth_batch_size
    policy = build(options, way, machine)
    config = policy.config if not way.adapted else policy.get_base_model().config
    batch = observe(policy, options, batch_size, with_answers=way.stage in PRETRAINING)
    row: dict[str, Any] = {"batch_size": batch_size}
    if way.compared:
        row["difference"] = gradient_difference(policy, batch)
        machine.forget()
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    seconds = []
    for _ in range(options.repeats + 1):
        start = machine.now()
        loss, _ = policy(batch)
        loss.backward()
        weights = [weight for weight in policy.parameters() if weight.grad is not None]
        torch.nn.utils.clip_grad_norm_(weights, config.optimizer_grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(machine.now() - start)
    return row | {"first_s": seconds[0], "step_s": median(seconds[1:]), "loss": loss.item()}


def gradient_difference(policy: Any, batch: dict[str, Any]) -> float:
    """Norm of the difference of the gradients in parts to those of the whole batch, as a share of the latter's."""
    draws = {
        "noise": torch.randn_like(batch[ACTION]),
        "time": torch.rand(len(batch[ACTION]), device=batch[ACTION].device),
    }
    size, found = policy.config.micro_batch_size, []
    for micro_batch_size in (None, size):
        policy.config.micro_batch_size = micro_batch_size
        policy(batch, **draws)[0].backward()
        found.append([weight.grad for weight in policy.parameters() if weight.grad is not None])
        policy.zero_grad()
    whole, parts = found
    squares = [
        ((part - one).float().square().sum(), one.float().square().sum())
        for part, one in zip(parts, whole, strict=True)
    ]
    differences, norms = (torch.stack(values).sum() for values in zip(*squares, strict=True))
    return (differences / norms).sqrt().item()


def act(
    way: Acting, options: argparse.Namespace, machine: Machine, chunks: dict[str, Tensor], name: str
) -> dict[str, Any]:
    """A row of acting: milliseconds of a chunk after the first, the peak of memory, the difference to another row's chunk."""
    config = configure(options, Training("action"), compile_model=way.compiled)
    config.expert.num_inference_steps = way.steps  # type: ignore[union-attr]
    policy = GemVLAPolicy(config, weights_follow=True)
    cast = autocast_weights(policy) | token_tables(policy)
    fill(policy, machine.device, lambda path, _: way.stored if path in cast else torch.float32)
    if way.quantized:
        quantize((policy.backbone.vision_tower, policy.backbone.language_model))
    batch = observe(policy.eval(), options, 1, with_answers=False)
    noise = torch.randn(1, config.chunk_size, ACTION_DIM, generator=torch.Generator().manual_seed(2))  # type: ignore[union-attr]
    noise = noise.to(machine.device)
    milliseconds = []
    for _ in range(options.chunks + 1):
        start = machine.now()
        chunk = policy.predict_action_chunk(batch, noise=noise)
        milliseconds.append((machine.now() - start) * 1000)
    chunks[name] = chunk.float().cpu()
    row = {"batch_size": 1, "first_ms": milliseconds[0], "chunk_ms": median(milliseconds[1:])}
    if way.compiled:
        row["is_compiled"] = policy._compiled is not None and policy._compiled.is_compiled
    if way.like in chunks:
        row |= {"like": way.like, "difference": (chunks[name] - chunks[way.like]).abs().max().item()}
    return row


def check(options: argparse.Namespace, machine: Machine) -> dict[str, dict[str, Any]]:
    """All rows; what can't be done is said in its row."""
    start, chunks = time.monotonic(), dict[str, Tensor]()
    rows: dict[str, dict[str, Any]] = {}
    for name in (*ACTING, *TRAINING):
        if options.rows and name not in options.rows:
            continue
        if name in ACTING and ACTING[name].quantized and machine.is_cuda:
            continue  # for CPUs alone
        if time.monotonic() - start > options.minutes * 60:
            rows[name] = {"not_run": f"the {options.minutes:g} minutes were over"}
            continue
        machine.forget()
        began = time.monotonic()
        try:
            if name in ACTING:
                row = act(ACTING[name], options, machine, chunks, name)
            else:
                row = train(TRAINING[name], options, machine)
        except Exception as error:  # a row that fails is a finding
            row = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
        rows[name] = row | {"peak_gb": machine.peak_gb(), "all_s": time.monotonic() - began}
        print(f"{name}: {rows[name]}", flush=True)
    return rows


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    settings, rows = report["settings"], report["rows"]
    about = ", ".join(f"{name}={value}" for name, value in settings.items() if name != "rows")
    seconds = "seconds" if report["is_cuda"] else "CPU seconds"
    lines = [
        f"# {report['machine']}",
        "",
        f"`benchmarks/gpu_check.py`, {report['date']}, {seconds}: {about}",
        "",
    ]

    def number(row: dict[str, Any], name: str, form: str) -> str:
        return "–" if row.get(name) is None else format(row[name], form)

    def state(name: str, row: dict[str, Any]) -> str:
        if said := row.get("failed") or row.get("not_run"):
            return said.replace("|", "/")
        found, limit = GOALS.get(name, ("", 0.0))
        if settings["preset"] != "2b" or row.get(found) is None:
            return ""
        return f"{'reached' if row[found] <= limit else 'missed'}: at most {limit:g}"

    if any(name in rows for name in ACTING):
        lines += [
            "| acting | peak, GB | first chunk, ms | chunk, ms | difference | to | goal |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {number(row, 'peak_gb', '.1f')} | {number(row, 'first_ms', '.0f')} | {number(row, 'chunk_ms', '.1f')} | "
            f"{number(row, 'difference', '.2g')} | {row.get('like', '')} | {state(name, row)} |"
            for name, row in rows.items()
            if name in ACTING
        ]
        lines.append("")
    if any(name in rows for name in TRAINING):
        lines += [
            "| training | batch | peak, GB | first step, s | step, s | gradients differ by | goal |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {row.get('batch_size', '–')} | {number(row, 'peak_gb', '.1f')} | {number(row, 'first_s', '.1f')} | "
            f"{number(row, 'step_s', '.2f')} | {number(row, 'difference', '.2g')} | {state(name, row)} |"
            for name, row in rows.items()
            if name in TRAINING
        ]
    return "\n".join(lines).rstrip() + "\n"


def file_name(options: argparse.Namespace, machine: str) -> str:
    """Of the report: device, preset and sizes, so that no other preset or size writes over it."""
    batches = f"batch{options.batch_size}_depth{options.depth_batch_size}"
    pictures = f"{options.cameras}x{options.image_size}px"
    return re.sub(r"\W+", "_", f"{machine}_{options.preset}_{batches}_{pictures}").strip("_").lower()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="2b", choices=list(PRESETS))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--batch_size", type=at_least_one, default=8, help="of training without depth")
    parser.add_argument("--depth_batch_size", type=at_least_one, default=32, help="of training with depth")
    parser.add_argument("--cameras", type=at_least_one, default=2)
    parser.add_argument("--image_size", type=at_least_one, default=256, help="side of each image in pixels")
    parser.add_argument("--repeats", type=at_least_one, default=3, help="steps of training after the first")
    parser.add_argument("--chunks", type=at_least_one, default=20, help="chunks of acting after the first")
    parser.add_argument("--minutes", type=float, default=8, help="no row begins after so many")
    parser.add_argument("--rows", nargs="+", choices=[*ACTING, *TRAINING], metavar="ROW", help="these alone")
    parser.add_argument("--name", help="of the files; without it, device, preset and sizes")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "results" / "gpu")
    options = parser.parse_args()
    machine = Machine(options.device)
    settings = {name: value for name, value in vars(options).items() if name not in ("name", "output_dir")}
    report = {
        "machine": machine.name,
        "is_cuda": machine.is_cuda,
        "date": time.strftime("%Y-%m-%d"),
        "settings": settings | {"torch": torch.__version__},
        "rows": check(options, machine),
    }
    name = options.name or file_name(options, machine.name)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    (options.output_dir / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.output_dir / f"{name}.md").write_text(table(report))
    print(table(report))
    if any("failed" in row for row in report["rows"].values()):
        sys.exit("Some rows failed.")


if __name__ == "__main__":
    main()
