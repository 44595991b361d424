"""The tables of docs/reference/configuration.md are those of the code."""

from tools.configuration_tables import PAGE, markdown, shown, tables, updated


def test_the_page_is_current():
    page = PAGE.read_text()
    assert updated(page) == page, "run: python tools/configuration_tables.py"


def test_each_field_is_in_one_table_or_means_something_else_to_each_policy():
    rows = {part: [line.split("|")[1] for line in table.splitlines()[2:]] for part, table in tables().items()}
    assert not set(rows["both"]) & {*rows["gem"], *rows["gem_vla"]}
    assert " `depth.loss_weight` " in rows["both"] and " `chunk_size` " in rows["gem_vla"]


def test_a_docstring_as_markdown():
    text = 'Go on with --policy.path=<its checkpoint> --policy.stage=joint. See docs/reference/memory.md: "muon", not `a --b "c"`.'
    assert markdown(text) == (
        "Go on with `--policy.path=<its checkpoint>` `--policy.stage=joint`. See [memory.md](../reference/memory.md): `muon`, not "
        '`a --b "c"`.'
    )


def test_values_as_on_the_command_line():
    assert [shown(value) for value in (None, True, 1.0, 0, "muon", (0.9, 0.999))] == [
        "`null`",
        "`true`",
        "`1.0`",
        "`0`",
        "`muon`",
        "`[0.9, 0.999]`",
    ]
