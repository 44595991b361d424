"""Files for --config_path (that LeRobot parses them: tests/policies)."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "configs" / "policy"
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


@pytest.mark.parametrize("large", sorted(FOLDER.glob("*8b*.yaml")), ids=lambda file: file.stem)
def test_the_8b_files_differ_from_the_2b_files_in_the_model_alone(large: Path):
    """LeRobot does not compose files, so each is complete, and nothing else keeps the copies equal."""
    small = (FOLDER / large.name.replace("8b", "2b")).read_text().replace("2b", "8b").replace("-2B-", "-8B-")
    assert yaml.safe_load(large.read_text()) == yaml.safe_load(small)


@pytest.mark.parametrize("size", ["2b", "8b"])
def test_gem_vla_with_and_without_depth_differ_in_the_depth_loss_alone(size: str):
    """But for the names of what is written, and for the dataset, which needs depth."""
    plain, depth = (
        yaml.safe_load((FOLDER / f"gem_vla_{size}{kind}.yaml").read_text()) for kind in ("", "_depth")
    )
    assert depth["policy"].pop("depth")["loss_weight"] == 0.1
    for config in (plain, depth):
        for name in ("output_dir", "job_name"):
            del config[name]
        del config["dataset"]["repo_id"]
    assert plain == depth


@pytest.mark.parametrize("name", [*SUITES, "libero"])
def test_evaluations_share_a_protocol_and_no_folder(name: str):
    """One policy's results would lie in another's folder; LeRobot makes a new one where none is named."""
    config = yaml.safe_load((FOLDER.parent / "env" / f"{name}.yaml").read_text())
    assert "output_dir" not in config
    task = ",".join(SUITES) if name == "libero" else name
    env = {"type": "libero", "task": task, "observation_height": 256, "observation_width": 256}
    assert config == {"env": env, "eval": {"n_episodes": 50, "batch_size": 10}, "seed": 1000}
