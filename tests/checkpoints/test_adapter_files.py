"""An adapter that could load what it names, or allocate without end, is refused before PEFT sees it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lerobot_gem.checkpoints.adapter_files import check_adapter_files


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    save_file({"q_proj.lora_A.weight": torch.zeros(2, 16)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {}})
    )
    return tmp_path


def test_an_ordinary_adapter_passes(adapter: Path) -> None:
    check_adapter_files(adapter)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"megatron_config": {}, "megatron_core": "antigravity"}, "sets megatron_config"),
        ({"rank_pattern": "q_proj"}, "adapter_config.json describes nothing that can be built"),
        ({"corda_config": {"cache_file": "/etc/passwd"}}, "sets corda_config"),
        ({"r": 2_000_000_000}, "asks for rank 2000000000, but no side of its weights is longer than 16"),
        ({"rank_pattern": {"q_proj": 2_000_000_000}}, "asks for rank 2000000000"),
        ({"r": "2"}, "asks for rank"),
        ({"r": 0}, r"adapter_config.json asks for rank 0 \(r\): expected a whole number, at least 1"),
        ({"lora_alpha": None}, "adapter_config.json has lora_alpha=None: expected a number"),
        ({"peft_type": "XLORA", "adapters": {"0": "/etc"}}, "peft_type 'XLORA'"),
        ({"peft_type": "SHADOW", "shadow_model": "/etc"}, "peft_type 'SHADOW': expected 'LORA'"),
        ({"peft_type": "UNILORA", "theta_d_length": 2_000_000_000}, "peft_type 'UNILORA'"),
        ({"peft_type": None}, "peft_type 'None'"),
        ({"init_lora_weights": "pissa_niter_1000000000"}, "init_lora_weights='pissa_niter_1000000000'"),
        ({"target_modules": "(([a-z_.0-9]+)+)+!"}, "in target_modules, which may take hours"),
        ({"modules_to_save": ["(a|a)" * 40]}, "in modules_to_save, which may take hours"),
        ({"rank_pattern": {".*.*.*.*.*!": 1}}, "in rank_pattern, which may take hours"),
    ],
)
def test_a_harmful_one_is_refused(adapter: Path, values: dict, message: str) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    with pytest.raises(ValueError, match=message):
        check_adapter_files(adapter)


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": r"(.*\.layers\..*\.self_attn\.(q|v)_proj|model\.(state|action)_proj)"},
        {"target_modules": ["a.q_proj"], "init_lora_weights": "pissa_niter_4", "modules_to_save": None},
    ],
)
def test_what_lerobot_and_peft_write_passes(adapter: Path, values: dict) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    check_adapter_files(adapter)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(adapter: Path, name: str) -> None:
    (adapter / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}: expected an adapter"):
        check_adapter_files(adapter)
