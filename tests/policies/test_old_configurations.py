"""Fields that version 0.1 wrote are read, moved, and never written or offered (whole checkpoints: tests/test_artifacts.py)."""

import json
from pathlib import Path

import draccus
import pytest

from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig


def parse(config_class: type, folder: Path, values: dict):
    file = folder / "config.json"
    file.write_text(json.dumps(values))
    with draccus.config_type("json"):
        return draccus.parse(config_class, file, args=[])


def test_old_fields_are_moved(tmp_path: Path):
    config = parse(
        GemVLAConfig,
        tmp_path,
        {
            "preset": "tiny",
            "depth": {"colouring": "inferno", "pairs": {"a": "a_depth"}, "architecture": {"transformer": {}}},
            "expert": {"hidden_size": 64, "depth": 2, "ffn_dim_multiplier": None, "action_dim": 7},
        },
    )
    assert config.depth.colormap == "inferno"
    assert config.built.depth_cameras == {"a": "a_depth"}
    assert config.built.generator == {"transformer": {}}
    assert config.built.action_dim == 7
    assert config.expert.architecture == {"hidden_size": 64, "depth": 2}
    saved = draccus.encode(config)
    assert not {"colouring", "pairs", "architecture"} & saved["depth"].keys()
    assert not {"hidden_size", "depth", "action_dim"} & saved["expert"].keys()


def test_stages_are_moved(tmp_path: Path):
    config = parse(GemConfig, tmp_path, {"preset": "tiny", "stages_done": ["connector"]})
    assert config.built.stages_done == ["connector"]
    assert "stages_done" not in draccus.encode(config)


def test_new_fields_take_precedence(tmp_path: Path):
    old = {"preset": "tiny", "depth": {"colouring": "inferno"}, "expert": {"depth": 2, "num_heads": 2}}
    new = {"depth": {"colormap": "spectral"}, "expert": {"architecture": {"depth": 4}}}
    merged = {**old, "depth": old["depth"] | new["depth"], "expert": old["expert"] | new["expert"]}
    config = parse(GemVLAConfig, tmp_path, merged)
    assert config.depth.colormap == "spectral"
    assert config.expert.architecture == {"depth": 4, "num_heads": 2}


def test_an_old_colormap_is_checked(tmp_path: Path):
    with pytest.raises(Exception, match="depth.colouring='jet' is unknown"):
        parse(GemVLAConfig, tmp_path, {"preset": "tiny", "depth": {"colouring": "jet"}})


def test_old_fields_are_no_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        draccus.parse(GemVLAConfig, args=["--preset=tiny", "--depth.colouring=inferno"])
    assert "unrecognized arguments: --depth.colouring=inferno" in capsys.readouterr().err
