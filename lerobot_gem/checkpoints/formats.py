"""What a checkpoint is, and its weights under our names.

| format | known by | holds |
|---|---|---|
| `policy` | config.json of a `gem` or `gem_vla` policy | what the policy holds, under our names; an adapter's are merged |
| `gem-2b` | config.json of Qwen3-VL, weights named `sana.*`, `vae.*`, `diffusion_connector.*` | backbone, generator |
| `qwen3-vl` | config.json of Qwen3-VL | backbone |
| `sana` | transformer/config.json and vae/config.json (diffusers) | generator without connector |
| `rdt` | a file, or a folder without config.json: the release's action expert | expert |

A checkpoint is opened once, with `open_checkpoint`, and handed down.
A weight that its format does not know is an error. The parts are those of our policies: `backbone`, `generator`
(connector, SANA transformer, DC-AE) and `expert`.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from draccus.utils import ParsingError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError

from lerobot_gem.checkpoints import adapters
from lerobot_gem.checkpoints.adapters import is_adapter
from lerobot_gem.checkpoints.files import StoredTensor, abbreviated, check_no_run, stored_weights
from lerobot_gem.checkpoints.release_expert import expert_from_release
from lerobot_gem.models.presets import DepthArchitecture, ExpertConditioning, get_preset

# What constructors raise for values that they do not take.
_UNFIT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    json.JSONDecodeError,
    LookupError,
    RecursionError,
    StrictDataclassError,
    TypeError,
)

CheckpointFormat = Literal["policy", "gem-2b", "qwen3-vl", "sana", "rdt"]
Part = Literal["backbone", "generator", "expert"]

# Prefixes of GEM-2B and ours; Qwen3-VL's are the first two. See docs/how_to/convert_checkpoints.md.
GEM_2B_PREFIXES = {
    "model.": "backbone.model.",
    "lm_head.": "backbone.lm_head.",
    "sana.": "generator.transformer.",
    "vae.": "generator.autoencoder.",
    "diffusion_connector.": "generator.connector.",
}
# Qwen3-VL saved without its language head.
_HEADLESS_PREFIXES = {
    "visual.": "backbone.model.visual.",
    "language_model.": "backbone.model.language_model.",
}
# Folder of a SANA pipeline -> where its weights go, and the class that its config.json names.
SANA_FOLDERS = {
    "transformer": ("generator.transformer.", "SanaTransformer2DModel"),
    "vae": ("generator.autoencoder.", "AutoencoderDC"),
}
_POLICIES = ("gem", "gem_vla")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of any format; no weight is in memory.

    Args:
        path: A folder, or the file of an expert.
        format: See the module's docstring.
        config: The content of config.json; empty for `sana` and `rdt`.
        weights: Under our names, each beginning with its part.
    """

    path: Path
    format: CheckpointFormat
    config: dict[str, Any]
    weights: dict[str, StoredTensor]

    @property
    def parts(self) -> set[str]:
        """Those of "backbone", "generator" and "expert" that it has weights of."""
        return {name.split(".")[0] for name in self.weights}

    def part(self, part: Part) -> dict[str, StoredTensor]:
        """The weights of a part, named as in `part.state_dict()`.

        Raises:
            ValueError: The checkpoint has no such part.
        """
        weights = {
            name.removeprefix(f"{part}."): stored
            for name, stored in self.weights.items()
            if name.startswith(f"{part}.")
        }
        if not weights:
            raise ValueError(
                f"{self.path} has no {part}: as a {self.format!r} checkpoint it holds {', '.join(sorted(self.parts))}. "
                f"Name a checkpoint that has one."
            )
        return weights

    @property
    def backbone_config(self) -> dict[str, Any]:
        """Keyword arguments of `transformers.Qwen3VLConfig`.

        Raises:
            ValueError: The checkpoint has no backbone.
        """
        if self.format != "policy":
            self.part("backbone")
        config = self._built["backbone"] if self.format == "policy" else self.config
        check_no_kernels(config, self.path / "config.json")
        return config

    @property
    def expert_conditioning(self) -> ExpertConditioning:
        """What its action expert reads of a backbone.

        Raises:
            ValueError: The checkpoint has no expert.
        """
        adapts = any(name.startswith("conditioning_adaptor.") for name in self.part("expert"))
        return "states" if adapts else "key_values"

    def check_expert(self) -> None:
        """Raise a ValueError if its action expert was never trained."""
        if self.format == "policy" and self._built.get("random_expert"):
            raise ValueError(
                f"{self.path} was trained by tokens alone, and its expert has the random weights that it was frozen with: expected a checkpoint "
                "whose expert was trained."
            )

    @property
    def stages_done(self) -> list[str] | None:
        """Stages that trained one of our policies, in order; none trained other weights. None where it does not say, as GEM-2B."""
        if self.format == "policy":
            return self._built["stages_done"]
        return None if self.format == "gem-2b" else []

    @property
    def _built(self) -> dict[str, Any]:
        """What one of our policies was built with; version 0.1 wrote it here and there."""
        if "built" in self.config:
            return self.config["built"]
        return {
            "backbone": self.config["backbone"]["architecture"],
            "generator": self.config["depth"]["architecture"],
            "stages_done": self.config.get("stages_done"),
        }

    @property
    def depth_architecture(self) -> DepthArchitecture:
        """Sizes of its depth generator.

        A released GEM-2B does not say them: they are SANA 1.5 1.6B's unless the folder holds the configurations of a
        SANA pipeline beside the weights, as those that `lerobot-gem-convert` writes do.

        Raises:
            ValueError: The checkpoint has no depth generator.
        """
        self.part("generator")
        if self.format == "policy":
            return DepthArchitecture(**self._built["generator"])
        if is_sana_pipeline(self.path):
            return read_sana_architecture(self.path)
        return get_preset("2b").depth


def open_checkpoint(pretrained: str | Path, **hub_kwargs: Any) -> Checkpoint:
    """Find out what a checkpoint is and what it holds.

    Args:
        pretrained: Hub id, folder, or the file of an expert.
        **hub_kwargs: `revision`, `cache_dir`, `local_files_only` and the like.

    Raises:
        FileNotFoundError: Neither there nor on a Hub that can be reached, or without weights, or with shards missing. Or the folder
            of a training run.
        ValueError: Of another model, cut short, with pickled objects, or with weights that its format does not know. Or an adapter
            whose base has other weights now.
    """
    path = _local(pretrained, **hub_kwargs)
    check_no_run(path)
    if not (path / "config.json").is_file():
        if is_sana_pipeline(path):
            return Checkpoint(path, "sana", {}, _sana_weights(path))
        weights = stored_weights(path)
        try:
            expert = expert_from_release(weights)
        except ValueError as error:
            raise ValueError(
                f"{path} was taken for a released action expert, having no config.json. {error}"
            ) from error
        return Checkpoint(path, "rdt", {}, _prefixed(expert, "expert."))
    config = read_json(path / "config.json")
    if config.get("type") in _POLICIES:
        if is_adapter(path):
            return _merged(Checkpoint(path, "policy", config, {}))
        return Checkpoint(path, "policy", config, stored_weights(path))
    if config.get("model_type") != "qwen3_vl":
        raise ValueError(
            f"{path} is a {config.get('model_type') or config.get('type')!r} checkpoint; the backbone needs 'qwen3_vl', "
            f"or a policy of ours ({', '.join(map(repr, _POLICIES))})."
        )
    weights = _renamed(stored_weights(path), path)
    format: CheckpointFormat = (
        "gem-2b" if any(name.startswith("generator.") for name in weights) else "qwen3-vl"
    )
    return Checkpoint(path, format, config, weights)


def _merged(policy: Checkpoint) -> Checkpoint:
    """A policy that was trained with LoRA, with the weights of its adapter and its base."""
    path, config = policy.path, policy.config
    adapter = read_json(path / adapters.CONFIG_FILE)
    adapters.check_plain(path, adapter)
    named = adapter["base_model_name_or_path"]
    with adapters.needing_base(path, named):
        base = open_checkpoint(named, revision=adapter.get("revision"))
    weights = dict(base.weights)
    is_of_new = named == config["backbone"]["pretrained"]  # the adapter was trained on a policy that was new
    if is_of_new:
        others = config["depth"]["pretrained"], config.get("expert", {}).get("pretrained")
        generator, expert = (None if other is None else open_checkpoint(other) for other in others)
        weights = starting_weights(base, generator, expert)
    built = policy._built
    adapters.check_base(path, built.get("base_fingerprint", ""), named, weights)
    if is_of_new:
        autoencoder = config["depth"]["autoencoder"]
        if autoencoder is None and not any(name.startswith("generator.") for name in weights):
            autoencoder = get_preset(config["preset"]).autoencoder
        if autoencoder is not None:
            stored = stored_weights(autoencoder, stem="diffusion_pytorch_model")
            weights |= _prefixed(stored, "generator.autoencoder.")
    if not built["generator"]:  # the policy was built without
        weights = {name: stored for name, stored in weights.items() if not name.startswith("generator.")}
    if "base_fingerprint" in built:
        config = config | {"built": built | {"base_fingerprint": ""}}
    return replace(policy, config=config, weights=adapters.merged(path, adapter, weights))


def starting_weights(
    backbone: Checkpoint, generator: Checkpoint | None, expert: Checkpoint | None
) -> dict[str, StoredTensor]:
    """The weights that a new policy starts from, under our names.

    Args:
        backbone: All that it has is taken, but for parts that come from the others.
        generator: Where the depth generator is from; None for `backbone`, if that has one.
        expert: Likewise.
    """
    weights = dict(backbone.weights)
    parts: tuple[tuple[Part, Checkpoint | None], ...] = (("generator", generator), ("expert", expert))
    for part, source in parts:
        if source is not None:
            kept = {name: stored for name, stored in weights.items() if not name.startswith(f"{part}.")}
            weights = kept | _prefixed(source.part(part), f"{part}.")
    return weights


def is_sana_pipeline(path: Path) -> bool:
    """Whether a folder has the configurations of a SANA pipeline; weights are not looked for."""
    return all((path / folder / "config.json").is_file() for folder in SANA_FOLDERS)


def read_sana_architecture(pretrained: str | Path) -> DepthArchitecture:
    """Sizes of the depth generator from the configurations of a SANA pipeline.

    Args:
        pretrained: Hub id, or a folder with `transformer/config.json`, `vae/config.json` and, if it says anything,
            `scheduler/scheduler_config.json`. No weights are fetched.

    Raises:
        FileNotFoundError: Not there, or without these files.
        ValueError: Of another pipeline, or a file is cut short.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    path = _local(pretrained, with_weights=False)
    if not is_sana_pipeline(path):
        raise FileNotFoundError(
            f"{path} is no SANA pipeline: expected transformer/config.json and vae/config.json in it."
        )
    scheduler = path / "scheduler" / "scheduler_config.json"
    # SANA's repositories keep the settings of another scheduler; the release takes from them what this one knows.
    values = read_json(scheduler) if scheduler.is_file() else {}
    settings, _, _ = FlowMatchEulerDiscreteScheduler.extract_init_dict(values)
    transformer, autoencoder = (
        read_diffusers_config(path / folder, class_name) for folder, (_, class_name) in SANA_FOLDERS.items()
    )
    return DepthArchitecture(transformer=transformer, autoencoder=autoencoder, scheduler=settings)


def read_diffusers_config(folder: Path, class_name: str) -> dict[str, Any]:
    """Keyword arguments of a model that diffusers saved.

    Args:
        folder: With its config.json.
        class_name: Of the model.

    Raises:
        ValueError: It is another model, or the file is cut short.
    """
    values = read_json(folder / "config.json")
    if values.get("_class_name") != class_name:
        raise ValueError(
            f"{folder} is a {values.get('_class_name')!r}: expected the {class_name!r} of a SANA pipeline."
        )
    return {name: value for name, value in values.items() if not name.startswith("_")}


def check_no_kernels(values: Any, origin: str | Path) -> None:
    """Raise a ValueError if a backbone's configuration names a kernel of the Hub, whose compiled code transformers would run.

    Args:
        values: Keyword arguments of `transformers.Qwen3VLConfig`, or a part of them.
        origin: Where they are from.
    """
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            check_no_kernels(value, origin)
        if "_implementation" in str(name) and any(mark in repr(value) for mark in "/:@"):
            raise ValueError(
                f"{origin} asks for the kernel {name}={value!r}, code that transformers would fetch and run: expected 'sdpa', "
                "'eager' or nothing. Do not load this checkpoint, or remove the field."
            )


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint.

    Raises:
        ValueError: The file is cut short, or holds no object; the message names it.
    """
    try:
        content = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} can't be read ({error}): it was cut short. Copy or download it again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{file} holds {str(content)[:80]!r}: expected a JSON object. Copy or download it again."
        )
    return content


@contextmanager
def built_from(file: str | Path) -> Iterator[None]:
    """Name the file of a checkpoint where what it describes can't be built.

    Raises:
        ValueError: Something in it has another type or range than its reader takes, or is missing, or does not fit the rest.
    """
    try:
        yield
    except _UNFIT as error:
        raise ValueError(
            f"{file} describes nothing that can be built ({type(error).__name__}: {str(error)[:300]}): it was damaged, or another version wrote "
            "it. Copy or download it again."
        ) from error
    except (ValueError, ParsingError) as error:
        if str(Path(file).parent) in str(error):
            raise
        raise ValueError(f"{file}: {error}") from error


def _sana_weights(path: Path) -> dict[str, StoredTensor]:
    return {
        name: stored
        for folder, (prefix, _) in SANA_FOLDERS.items()
        for name, stored in _prefixed(
            stored_weights(path / folder, stem="diffusion_pytorch_model"), prefix
        ).items()
    }


def _prefixed(weights: Mapping[str, StoredTensor], prefix: str) -> dict[str, StoredTensor]:
    return {f"{prefix}{name}": stored for name, stored in weights.items()}


def _renamed(weights: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    renamed: dict[str, StoredTensor] = {}
    unknown: list[str] = []
    for name, stored in weights.items():
        for theirs, ours in (GEM_2B_PREFIXES | _HEADLESS_PREFIXES).items():
            if name.startswith(theirs):
                renamed[ours + name.removeprefix(theirs)] = stored
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"The weights in {path} are neither Qwen3-VL's nor GEM-2B's: unexpected: {', '.join(abbreviated(unknown))}."
        )
    return renamed


def _local(pretrained: str | Path, *, with_weights: bool = True, **hub_kwargs: Any) -> Path:
    if Path(pretrained).exists():
        return Path(pretrained)
    with looked_for(pretrained):
        if not with_weights:
            return _download(pretrained, **hub_kwargs)
        folder = _download(pretrained, "*.safetensors", **hub_kwargs)
        if not any(folder.rglob("*.safetensors")):
            # Repositories often have their weights in both formats: PyTorch's only where it is the only one.
            folder = _download(pretrained, "*.bin", "*.pt", **hub_kwargs)
        return folder


@contextmanager
def looked_for(pretrained: str | Path) -> Iterator[None]:
    """Say what was looked for on the Hub, and how it can be had, where it is not there.

    Args:
        pretrained: Neither a folder nor a file here.

    Raises:
        FileNotFoundError: It is not on the Hub, or can't be downloaded.
        OSError: The disk is full, or a folder can't be written to.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:  # the system's, not the Hub's
            raise
        raise FileNotFoundError(
            f"No checkpoint at {str(pretrained)!r}: it is neither a folder or file, nor a Hub repository that is in "
            "the local cache or can be downloaded now. Give an existing folder, or a Hub id while online (unset "
            f"HF_HUB_OFFLINE; private repositories need a login), or fetch it first with `hf download`. The Hub's client says: {error}"
        ) from error


def _download(repo_id: str | Path, *weights: str, **hub_kwargs: Any) -> Path:
    """The folder of a Hub repository's small files and of those that match `weights`."""
    return Path(
        snapshot_download(
            str(repo_id),
            allow_patterns=["*.json", "*.jinja", "*.txt", *weights],
            # A SANA pipeline: its text encoder is larger than the rest, and variants repeat the weights.
            ignore_patterns=["text_encoder/*", "tokenizer/*", "*.bf16.*", "*.fp16.*"],
            **hub_kwargs,
        )
    )
