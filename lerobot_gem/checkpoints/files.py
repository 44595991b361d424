"""Weights on disk, read one tensor at a time.

A checkpoint may be as large as the memory that is to hold it, so nothing here holds it twice: names, shapes and types
come from the headers, and a tensor's bytes are read when it is copied into a module, or when its file is written.
"""

import hashlib
import json
import math
import pickle
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

# How many numbers of each tensor a fingerprint is made of.
_FIRST = 64

# Where lerobot-train keeps the last checkpoint of a run, from the run's folder on.
_LAST = ("checkpoints", "last", "pretrained_model")

# safetensors' names of types.
_DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "I32": torch.int32,
    "F32": torch.float32,
    "I16": torch.int16,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file that is not in memory yet.

    Args:
        file: A safetensors or PyTorch file.
        name: The tensor's name in the file.
        shape: The shape of `rows`.
        dtype: As stored.
        rows: Which rows to take.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    rows: slice = slice(None)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "StoredTensor":
        """Some of its rows, which are not read either."""
        return replace(self, rows=rows, shape=(len(range(*rows.indices(len(self)))), *self.shape[1:]))

    @property
    def files(self) -> frozenset[Path]:
        """What is read for it."""
        return frozenset({self.file})

    @property
    def num_bytes(self) -> int:
        """Size in memory and in a safetensors file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor, on the CPU.

        The file is opened anew: a file that stays open keeps every page that was ever read from it in memory.
        """
        with _reading(self.file):
            if self.file.suffix == ".safetensors":
                with safe_open(self.file, framework="pt") as opened:
                    tensor = opened.get_tensor(self.name)
            else:
                tensor = _load_pickle(self.file)[self.name]
        return (tensor if self.rows == slice(None) else tensor[self.rows]).contiguous()


def stored_weights(path: str | Path, *, stem: str = "model") -> dict[str, StoredTensor]:
    """Find the weights in a file or folder, by name; none is read.

    Args:
        path: A `.safetensors` file, a PyTorch file (`.bin`, `.pt`; a DeepSpeed file keeps the weights under `module`),
            or a folder with one of them or with shards and their index.
        stem: Of the safetensors files in a folder; "diffusion_pytorch_model" for diffusers' models.

    Raises:
        FileNotFoundError: There are no weights, or shards that the index names are missing; the message names them.
        ValueError: A file is cut short, is not a weights file, or holds pickled objects other than weights.
    """
    path = Path(path)
    candidates = [path]
    if path.is_dir():
        names = (f"{stem}.safetensors", "pytorch_model.bin")
        candidates = [path / f"{name}{suffix}" for name in names for suffix in ("", ".index.json")]
    for file in candidates:
        if file.is_file():
            return _indexed_weights(file) if file.suffix == ".json" else _weights_of_file(file)
    raise FileNotFoundError(f"No weights: none of {', '.join(map(str, candidates))} exists.")


def check_no_run(path: str | Path) -> None:
    """Refuse the folder of a training run, or one within it, in place of a checkpoint.

    Args:
        path: A folder; anything else passes.

    Raises:
        FileNotFoundError: It is one; the message names the checkpoint in it.
    """
    if (Path(path) / "config.json").is_file():
        return
    for first in range(len(_LAST)):
        checkpoint = Path(path, *_LAST[first:])
        if (checkpoint / "config.json").is_file():
            raise FileNotFoundError(
                f"{path} is a folder of a training run: expected a checkpoint, which is within it. Give {checkpoint}."
            )


def load_weights(
    module: nn.Module,
    weights: Mapping[str, StoredTensor],
    *,
    fault: str,
    remedy: str = "",
    dtypes: Mapping[str, torch.dtype] | None = None,
    if_exact: Collection[str] = (),
) -> None:
    """Copy stored weights into a module, one at a time; all names and shapes are checked before the first is read.

    Args:
        module: Keeps its own types and device. Where it is on the meta device, and `dtypes` is given, its weights are made of
            what is read, on the CPU.
        weights: Exactly those of `module.state_dict()`.
        dtypes: Of weights that get another type than the module's, by name. None leaves a module on the meta device there.
        if_exact: Names of those that get it only if no number changes by it, and else keep the type that they are stored in.
        fault: First line of the error if they don't fit, such as "The weights in X do not fit its configuration".
        remedy: Last line of it.

    Raises:
        ValueError: Weights are missing, unexpected or of another shape; the message names them. Or a file can't be
            read.
    """
    own = module.state_dict()
    check_weights(weights, {name: tensor.shape for name, tensor in own.items()}, fault=fault, remedy=remedy)
    made: dict[str, Tensor] = {}
    # Largest first: while a tensor is copied it is in memory twice, which costs nothing before the rest is there.
    for name in sorted(weights, key=lambda name: weights[name].num_bytes, reverse=True):
        if not own[name].is_meta:
            own[name].copy_(weights[name].read())
        elif dtypes is not None:
            # A copy: what is read is a map of the file, which may be written anew while the module is in use.
            made[name] = _made(weights[name].read(), own[name].dtype, dtypes.get(name), name in if_exact)
    if made:
        module.load_state_dict(made, strict=False, assign=True)


def _made(read: Tensor, dtype: torch.dtype, wanted: torch.dtype | None, if_exact: bool) -> Tensor:
    if if_exact and wanted is not None and not is_exact(read, wanted):
        return read.clone()
    return read.to(wanted or dtype, copy=True)


def is_exact(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether no number of a weight changes by another type."""
    return torch.equal(weight.to(dtype).to(weight.dtype), weight)


def check_weights(
    weights: Mapping[str, StoredTensor],
    expected: Mapping[str, Sequence[int]],
    *,
    fault: str,
    remedy: str = "",
) -> None:
    """Compare names and shapes of stored weights with those expected; arguments and errors are `load_weights`'."""
    problems = (
        [f"missing: {name}" for name in expected.keys() - weights.keys()],
        [f"unexpected: {name}" for name in weights.keys() - expected.keys()],
        [
            f"shape of {name}: {weights[name].shape} in the file, {tuple(expected[name])} expected"
            for name in expected.keys() & weights.keys()
            if weights[name].shape != tuple(expected[name])
        ],
    )
    if any(problems):
        lines = [f"  {line}" for lines_of_one in problems for line in abbreviated(lines_of_one)]
        raise ValueError("\n".join([f"{fault}:", *lines, *([remedy] if remedy else [])]))


def load_policy_weights(
    policy: nn.Module,
    file: str | Path,
    *,
    leave_out: Callable[[str], bool] | None = None,
    dtypes: Mapping[str, torch.dtype] | None = None,
    if_exact: Collection[str] = (),
) -> None:
    """Load the `model.safetensors` of one of our policy checkpoints into the policy built from its configuration.

    Args:
        policy: As built from the configuration beside the file, its weights on the meta device.
        file: Of the checkpoint.
        leave_out: Tells of a weight's name whether the policy does without it on purpose.
        dtypes: Of weights that get another type than the policy's, by name.
        if_exact: Names of those that get it only if no number changes by it, and else keep the type that they are stored in.

    Raises:
        ValueError: The file is missing or cut short, or weights are missing, unexpected or of another shape; the
            message names them.
    """
    weights = stored_policy_weights(file)
    if leave_out is not None:
        weights = {name: stored for name, stored in weights.items() if not leave_out(name)}
    load_weights(
        policy,
        weights,
        fault=f"The checkpoint {file} does not fit its configuration",
        remedy="Use the config.json that was saved with it, and override no size on the command line.",
        dtypes=dtypes or {},
        if_exact=if_exact,
    )


def stored_policy_weights(file: str | Path) -> dict[str, StoredTensor]:
    """The weights in the `model.safetensors` of one of our policy checkpoints, by name; none is read.

    Raises:
        ValueError: The file is missing or cut short.
    """
    try:
        return stored_weights(file)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"The checkpoint {file} can't be read ({error}): it is missing or was cut short. Copy or download it "
            "again, or take the checkpoint before it."
        ) from error


def fingerprint(weights: Mapping[str, StoredTensor]) -> str:
    """A digest of names, types, shapes and first numbers in the files of weights, which tells them from those of another training.

    Little is read, since a stored tensor is a map of its file. Where other numbers alone were changed, the digest stays the same.
    """
    files = {file for stored in weights.values() for file in stored.files}
    return hashlib.sha256(
        b"".join(sorted(line for file in files for line in _first_numbers(file)))
    ).hexdigest()


def _first_numbers(file: Path) -> list[bytes]:
    """Of each tensor in a file."""
    with _reading(file):
        if file.suffix != ".safetensors":
            return [_line(name, tensor) for name, tensor in _load_pickle(file).items()]
        with safe_open(file, framework="pt") as opened:
            return [_line(name, opened.get_tensor(name)) for name in opened.keys()]  # noqa: SIM118, not a mapping


def _line(name: str, tensor: Tensor) -> bytes:
    first = tensor.flatten()[:_FIRST].contiguous().view(torch.uint8).numpy().tobytes()
    return f"{name} {tensor.dtype} {tuple(tensor.shape)} {first.hex()}\n".encode()


def abbreviated(names: Iterable[str]) -> list[str]:
    """The first ten names in order, and how many more there are."""
    names = sorted(names)
    return names[:10] + ([f"and {len(names) - 10} more"] if len(names) > 10 else [])


def write_weights(folder: Path, weights: Mapping[str, StoredTensor], *, max_shard_bytes: int) -> None:
    """Write `model.safetensors`, or shards and their index as transformers names them; one file at a time is in memory.

    Args:
        folder: Exists.
        weights: What to write, by its new name.
        max_shard_bytes: Largest size of the weights in one file; a larger tensor gets a file of its own.
    """
    split = split_state_dict_into_shards_factory(
        dict(weights),
        get_storage_size=lambda stored: stored.num_bytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    for file, names in split.filename_to_tensors.items():
        save_file({name: weights[name].read() for name in names}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=2, sort_keys=True) + "\n"
        )


def write_policy(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, StoredTensor], *, processors: Path
) -> None:
    """Write one of our policies as LeRobot saves policies, its weights in one file.

    Args:
        folder: Need not exist.
        config: Content of config.json.
        weights: Under our names.
        processors: Folder of a policy, whose processors are taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=4) + "\n")
    for file in processors.glob("policy_*processor*"):
        shutil.copyfile(file, folder / file.name)
    size = sum(stored.num_bytes for stored in weights.values())
    write_weights(folder, weights, max_shard_bytes=size)


def _indexed_weights(index: Path) -> dict[str, StoredTensor]:
    try:
        places = dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{index} can't be read as an index of weights ({error!r}); copy it again."
        ) from error
    strange = [shard for shard in places.values() if not isinstance(shard, str) or shard != Path(shard).name]
    if strange:
        raise ValueError(
            f"{index} names the shard {strange[0]!r}: expected names of files beside it. Do not load this checkpoint."
        )
    shards = sorted(set(places.values()))
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(shards)} shards that {index} names are missing: "
            f"{', '.join(abbreviated(missing))}. Copy or download them too."
        )
    weights: dict[str, StoredTensor] = {}
    for shard in shards:
        weights |= _weights_of_file(index.parent / shard)
    if lacking := places.keys() - weights.keys():
        raise ValueError(
            f"The shards lack weights that {index} places in them: {', '.join(abbreviated(lacking))}. Index and shards "
            "are of different checkpoints: copy or download them again."
        )
    return weights


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} can't be read as weights: it holds pickled objects other than tensors, and loading those could "
            f"run any code. Ask its author for a safetensors file. ({error})"
        ) from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} can't be read as weights ({error}): it was cut short or is something else. Copy or download it "
            "again."
        ) from error


def _weights_of_file(file: Path) -> dict[str, StoredTensor]:
    with _reading(file):
        if file.suffix != ".safetensors":
            return {
                name: StoredTensor(file, name, tuple(tensor.shape), tensor.dtype)
                for name, tensor in _load_pickle(file).items()
            }
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118, not a mapping
            types = {name: part.get_dtype() for name, part in slices.items()}
            if unknown := set(types.values()) - _DTYPES.keys():
                raise ValueError(
                    f"{file} has weights of type {', '.join(sorted(unknown))}: expected {', '.join(_DTYPES)}. Take a "
                    "checkpoint that is not quantised."
                )
            return {
                name: StoredTensor(file, name, tuple(part.get_shape()), _DTYPES[types[name]])
                for name, part in slices.items()
            }


def _load_pickle(file: Path) -> dict[str, Tensor]:
    # mmap: only the pages of the tensor that is used are read.
    weights = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(weights, dict):
        weights = weights.get("module", weights)
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ValueError(f"{file} holds no weights by name: expected a state dict, or one under 'module'.")
    return weights
