"""The pictures of a card are made from what lies in the training run's folder."""

from pathlib import Path

import pytest
from PIL import Image

from lerobot_gem.policies.card_pictures import write_card_pictures
from tests.conftest import write_video


def test_a_run_without_pictures_has_none(tmp_path: Path) -> None:
    assert write_card_pictures(tmp_path / "run", tmp_path / "pushed") == []
    assert not (tmp_path / "pushed").exists()


def test_a_rollout_and_generated_depth_are_shown(tmp_path: Path) -> None:
    run, pushed = tmp_path / "run", tmp_path / "pushed"
    write_video(run / "eval" / "videos" / "libero_object_0" / "eval_episode_0.mp4", size=(96, 48))
    (run / "depth" / "frames").mkdir(parents=True)
    Image.new("RGB", (30, 10), "red").save(run / "depth" / "frames" / "frame-000003.png")
    assert write_card_pictures(run, pushed) == ["assets/rollout.png", "assets/depth.png"]
    rollout, depth = (Image.open(pushed / "assets" / f"{name}.png") for name in ("rollout", "depth"))
    assert rollout.size == (6 * 320, 160) and depth.size == (30, 10)
    first, last = (rollout.getpixel((left, 80))[0] for left in (10, 5 * 320 + 10))
    assert last > first + 15  # write_video's frames become brighter


def test_what_cannot_be_read_is_warned_of_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("videos/a.mp4", "frames/frame-0.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"cut short")
    assert write_card_pictures(tmp_path, tmp_path / "pushed") == []
    assert caplog.text.count("can't be read") == 2
