import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lerobot_gem.checkpoints.files import (
    fingerprint,
    load_policy_weights,
    load_weights,
    stored_weights,
    write_weights,
)
from tests.checkpoints.conftest import contents


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(6, 4),
        "a.half": torch.randn(3, 5).bfloat16(),
        "a.count": torch.tensor(7),
        "a.mask": torch.tensor([True, False, True]),
        "a.bytes": torch.arange(5, dtype=torch.uint8),
        "ü": torch.randn(2, 0),
    }


def shards_of(weights: dict[str, Tensor], folder: Path) -> Path:
    """Three shards with an index, as transformers writes them."""
    places = {name: f"model-{i % 3 + 1:05d}-of-00003.safetensors" for i, name in enumerate(weights)}
    for file in set(places.values()):
        save_file({name: weights[name] for name in weights if places[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("format", ["folder", "file", "shards", "bin folder", "pt", "deepspeed"])
def test_every_format_of_file_is_read(tmp_path, weights, format):
    path = tmp_path
    if format == "shards":
        shards_of(weights, tmp_path)
    elif format in ("folder", "file"):
        save_file(weights, tmp_path / "model.safetensors")
        path = tmp_path if format == "folder" else tmp_path / "model.safetensors"
    elif format == "bin folder":
        torch.save(weights, tmp_path / "pytorch_model.bin")
    else:
        path = tmp_path / "weights.pt"
        torch.save({"module": weights} if format == "deepspeed" else weights, path)
    stored = stored_weights(path)
    assert contents(stored) == contents(weights)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in stored.items()} == {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()
    }


def test_rows_are_taken_when_read(tmp_path, weights):
    save_file(weights, tmp_path / "model.safetensors")
    odd = stored_weights(tmp_path)["a.weight"][1::2]
    assert odd.shape == (3, 4)
    assert odd.num_bytes == 3 * 4 * 4
    assert odd.read().equal(weights["a.weight"][1::2])


def test_a_fingerprint_tells_weights_from_others_and_not_how_they_are_stored(tmp_path, weights):
    def of(weights: dict[str, Tensor]) -> str:
        save_file(weights, tmp_path / "model.safetensors")
        return fingerprint(stored_weights(tmp_path))

    found = of(weights)
    (tmp_path / "shards").mkdir()
    torch.save(weights, tmp_path / "weights.pt")
    for path in (shards_of(weights, tmp_path / "shards"), tmp_path / "weights.pt"):
        assert fingerprint(stored_weights(path)) == found
    moved = weights["a.half"].clone()
    moved[0, 1] += 1
    for other in (
        {"a.half": moved},
        {"a.half": weights["a.half"].float()},
        {"a.weight": weights["a.weight"].reshape(4, 6)},
        {"a.count": torch.tensor(8)},
        {"a.new": torch.ones(1)},
    ):
        assert of(weights | other) != found
    assert of(weights) == found


def test_one_file_is_what_safetensors_writes(tmp_path, weights):
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "ours").mkdir()
    write_weights(tmp_path / "ours", stored_weights(tmp_path), max_shard_bytes=10_000)
    ours, theirs = ((folder / "model.safetensors").read_bytes() for folder in (tmp_path / "ours", tmp_path))
    assert ours == theirs


def test_shards_are_no_larger_than_asked_and_indexed(tmp_path, weights):
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "out").mkdir()
    write_weights(tmp_path / "out", stored_weights(tmp_path), max_shard_bytes=100)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)
    ]
    assert len(files) > 1
    for file in files:
        shard = load_file(file)
        assert len(shard) == 1 or sum(tensor.nbytes for tensor in shard.values()) <= 100
        assert {name for name, place in index["weight_map"].items() if place == file.name} == shard.keys()
    assert contents(stored_weights(tmp_path / "out")) == contents(weights)


def test_tied_and_transposed_tensors_of_pytorch_files_are_written(tmp_path):
    tied = torch.arange(6.0).reshape(2, 3)
    weights = {"a": tied, "b": tied, "c": tied.T}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "out").mkdir()
    write_weights(tmp_path / "out", stored_weights(tmp_path), max_shard_bytes=10_000)
    assert contents(stored_weights(tmp_path / "out")) == contents(weights)


# --- loading into a module --------------------------------------------------------------------------------------


def save_linear(folder: Path, **changes: Tensor | None) -> Path:
    weights = {"weight": torch.ones(2, 3), "bias": torch.ones(2)} | changes
    save_file({name: w for name, w in weights.items() if w is not None}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_weights_take_the_modules_type(tmp_path):
    module = nn.Linear(3, 2).bfloat16()
    load_weights(module, stored_weights(save_linear(tmp_path)), fault="unused")
    assert module.weight.dtype == torch.bfloat16
    assert module.weight.requires_grad
    assert module.weight.eq(1).all() and module.bias.eq(1).all()


def test_nothing_is_read_for_a_module_without_values(tmp_path, monkeypatch):
    module, weights = nn.Linear(3, 2, device="meta"), stored_weights(save_linear(tmp_path))
    monkeypatch.setattr(type(weights["bias"]), "read", None)
    load_weights(module, weights, fault="unused")
    with pytest.raises(ValueError, match="missing: bias"):
        load_weights(module, {"weight": weights["weight"]}, fault="It does not fit")


def test_faults_are_listed_in_one_error_and_nothing_is_loaded(tmp_path):
    file = save_linear(tmp_path, bias=None, stranger=torch.ones(1), weight=torch.ones(3, 2))
    module = nn.Linear(3, 2)
    before = contents(module.state_dict())
    with pytest.raises(ValueError, match="^It does not fit:") as error:
        load_weights(module, stored_weights(file), fault="It does not fit", remedy="Do this.")
    assert str(error.value).splitlines()[1:] == [
        "  missing: bias",
        "  unexpected: stranger",
        "  shape of weight: (3, 2) in the file, (2, 3) expected",
        "Do this.",
    ]
    assert contents(module.state_dict()) == before


def test_many_faults_are_counted(tmp_path):
    save_file({f"stranger{i}": torch.ones(1) for i in range(50)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="and 40 more") as error:
        load_policy_weights(nn.Linear(3, 2), tmp_path / "model.safetensors")
    assert "does not fit its configuration" in str(error.value)


# --- faulty files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_file_cut_short(tmp_path, weights, name):
    path = tmp_path / name
    if path.suffix == ".bin":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{name} can't be read as weights .* cut short"):
        stored_weights(tmp_path)


def test_missing_shards_are_named(tmp_path, weights):
    shards_of(weights, tmp_path)
    for number in (1, 3):
        (tmp_path / f"model-{number:05d}-of-00003.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match="2 of the 3 shards .* model-00001-of-00003.safetensors, model-00003"
    ):
        stored_weights(tmp_path)


def test_weight_that_its_shard_lacks_is_named(tmp_path, weights):
    shards_of(weights, tmp_path)
    save_file({"a.weight": weights["a.weight"]}, tmp_path / "model-00001-of-00003.safetensors")
    with pytest.raises(ValueError, match="lack weights that .*index.json places in them: a.mask"):
        stored_weights(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_broken_index(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="can't be read as an index of weights"):
        stored_weights(tmp_path)


def test_pickled_code_is_not_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"weights": Malicious()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pickled objects other than tensors"):
        stored_weights(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3}, {"module": None}])
def test_pickle_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds no weights by name"):
        stored_weights(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors, .*pytorch_model\.bin.* exists"):
        stored_weights(tmp_path)


def test_quantised_weights_are_named(tmp_path):
    save_file({"weight": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="weights of type F8_E4M3: expected I64"):
        stored_weights(tmp_path)


@pytest.mark.parametrize("shard", ["../private.safetensors", 5])
def test_shards_outside_the_folder_are_refused(tmp_path: Path, shard: object) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "private.safetensors")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ValueError, match="expected names of files beside it"):
        stored_weights(folder)
