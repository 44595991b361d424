"""The tables of docs/reference/ are those of the code."""

import re
import tomllib

import pytest

from tools.reference_tables import COMMANDS, OTHERS, PAGES, ROOT, markdown, shown, tables, updated

TABLES = tables()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_current(page):
    text = page.read_text()
    assert updated(text, TABLES) == text, "run: python tools/reference_tables.py"


def test_each_table_has_its_place():
    text = "".join(page.read_text() for page in PAGES)
    assert re.findall(r"<!-- ([\w-]+): made by", text) == list(TABLES)


def test_each_command_is_told():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {f"lerobot-gem-{name}" for name in COMMANDS.keys() | OTHERS} == set(scripts)
    page = PAGES[1].read_text()
    assert all(f"## `{script}`" in page for script in scripts)


def test_each_option_has_a_meaning():
    for name, table in TABLES.items():
        for row in table.splitlines()[2:]:
            assert row.split(" | ")[2].strip(" |"), f"{name}: {row}"


def test_each_field_is_in_one_table_or_means_something_else_to_each_policy():
    rows = {part: [line.split("|")[1] for line in table.splitlines()[2:]] for part, table in TABLES.items()}
    assert not set(rows["both"]) & {*rows["gem"], *rows["gem_vla"]}
    assert " `depth.loss_weight` " in rows["both"] and " `chunk_size` " in rows["gem_vla"]


def test_a_docstring_as_markdown():
    text = 'Go on with --policy.path=<its checkpoint> --policy.stage=joint. See docs/reference/memory.md: "muon", not `a --b "c"`.'
    assert markdown(text) == (
        "Go on with `--policy.path=<its checkpoint>` `--policy.stage=joint`. See [memory.md](../reference/memory.md): `muon`, not "
        '`a --b "c"`.'
    )


def test_values_as_on_the_command_line():
    values = (None, True, 1.0, 0, "muon", (0.9, 0.999))
    assert [shown(value) for value in values] == [
        "`null`",
        "`true`",
        "`1.0`",
        "`0`",
        "`muon`",
        "`[0.9, 0.999]`",
    ]
