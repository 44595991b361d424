"""One real LIBERO scene for all tests here: building it takes ten seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lerobot_gem.simulation.libero_setup import setup_libero
from lerobot_gem.simulation.scene import LiberoScene


@pytest.fixture(scope="session")
def libero(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """LIBERO made ready in a folder of its own; the user's configuration plays no part."""
    folder = tmp_path_factory.mktemp("libero")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIBERO_CONFIG_PATH", str(folder))
        report = setup_libero()
        assert report.ready, report.problems
        yield folder


@pytest.fixture(scope="session")
def scene(libero: Path) -> Iterator[LiberoScene]:
    """libero_object task 0 at 5 Hz and 128 px."""
    scene = LiberoScene("libero_object", 0, control_freq=5)
    yield scene
    scene.close()
