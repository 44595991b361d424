"""Files for --config_path (that LeRobot parses them: tests/policies)."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "configs" / "policy"


@pytest.mark.parametrize("large", sorted(FOLDER.glob("*8b*.yaml")), ids=lambda file: file.stem)
def test_the_8b_files_differ_from_the_2b_files_in_the_model_alone(large: Path):
    """LeRobot does not compose files, so each is complete, and nothing else keeps the copies equal."""
    small = (FOLDER / large.name.replace("8b", "2b")).read_text().replace("2b", "8b").replace("-2B-", "-8B-")
    assert yaml.safe_load(large.read_text()) == yaml.safe_load(small)
