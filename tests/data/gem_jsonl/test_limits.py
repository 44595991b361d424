"""Where a file is, and how deep a value goes."""

from pathlib import Path

import pytest

from lerobot_gem.data.gem_jsonl.limits import DEEPEST_NESTING, is_too_deep, is_within


def test_a_path_is_where_it_leads(tmp_path: Path) -> None:
    folder, outside = tmp_path / "gem", tmp_path / "gem-private"
    for made in (folder, outside):
        made.mkdir()
        (made / "a.png").touch()
    (folder / "link.png").symlink_to(outside / "a.png")
    (folder / "back").symlink_to(folder)
    (tmp_path / "renamed").symlink_to(folder)
    for inside in (
        folder / "a.png",
        folder / "../gem/a.png",
        folder / "back/a.png",
        tmp_path / "renamed/a.png",
    ):
        assert is_within(inside, folder) and is_within(inside, tmp_path / "renamed")
    for elsewhere in (folder / "../gem-private/a.png", outside / "a.png", folder / "link.png"):
        assert not is_within(elsewhere, folder)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"key": "a", "deep": value}])
def test_nesting(wrap) -> None:
    value = 1
    for _ in range(DEEPEST_NESTING):
        value = wrap(value)
    assert not is_too_deep(value) and is_too_deep(wrap(value))
