"""What the documentation names exists: error messages, files, sections, commands and options of policies."""

import ast
import dataclasses
import importlib
import importlib.util
import mmap
import re
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig

ROOT = Path(__file__).parents[1]
FOLDERS = ("lerobot_gem", "docs", "configs", "examples", "benchmarks", "tests", "tools", "results")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(path for folder in ("docs", "lerobot_gem", "results") for path in (ROOT / folder).rglob("*.md")),
]
SOURCES = [path for path in FILES if path.suffix == ".py" and path.is_relative_to(ROOT / "lerobot_gem")]
TESTS = [path for path in FILES if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")]
PYTHON = [path for path in FILES if path.suffix == ".py"]
CONFIGS = [path for path in FILES if path.suffix in (".yaml", ".json") and path.parts[-3] == "configs"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


NAMES = [name(path) for path in FILES]


# -- quoted error messages -----------------------------------------------------------------------------------------------

# Rows about messages of other packages say so behind the message: `stack expects each tensor` (torch).
QUOTED = re.compile(r"(``?)(.+?)\1( \(\w+\))?(?=,|\||$| or | \()")


# Whose messages these are: LeRobot's command line is draccus, and its client of the Hub huggingface_hub.
OWNERS = {
    "LeRobot": ("lerobot", "draccus", "huggingface_hub"),
    "torch": ("torch",),
    "robosuite": ("robosuite",),
    "diffusers": ("diffusers",),
}
QUOTED_OF_OTHERS = re.compile(rf"(?<!`)(``?)(?!`)(.+?)(?<!`)\1(?!`)(?: \(({'|'.join(OWNERS)})\))?")
# What the pages write where those messages have a value that is filled in.
FILLED_IN = re.compile(r"config\.json|gem_vla|rerun-sdk|`policy`: ")


def without_quotes(text: str) -> str:
    """A value that was filled in may or may not have quotation marks."""
    return re.sub(r"(['\"])…\1", "…", text)


def messages(sources: Iterable[Path]) -> list[str]:
    """The strings of Python files, with … where something is filled in."""

    def text(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(map(text, node.values))
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"

    return [
        without_quotes(text(node))
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr | ast.Constant)
    ]


def quoted_messages() -> Iterator[tuple[str, str]]:
    """Page and message of the first cells in tables whose header is "message"."""
    for page in PAGES:
        is_table = False
        for line in page.read_text().splitlines():
            if not line.startswith("|"):
                is_table = False
                continue
            first = line.split("|")[1].strip()
            if first.startswith("message"):
                is_table = True
            elif is_table:
                for _, message, owner in QUOTED.findall(first):
                    if not owner:
                        yield name(page), message.strip()


@pytest.fixture(scope="module")
def known_messages() -> list[str]:
    return messages(SOURCES)


def has(message: str) -> re.Pattern[str]:
    """What finds a quoted message among strings."""
    pieces = [piece for piece in without_quotes(message).split("…") if piece]
    return re.compile(".*".join(map(re.escape, pieces)), re.DOTALL)


@pytest.mark.parametrize(("page", "message"), list(quoted_messages()))
def test_quoted_messages_exist(page, message, known_messages):
    assert any(map(has(message).search, known_messages)), f"{page} quotes {message!r}"


def messages_of_others() -> Iterator[tuple[str, str]]:
    """Owner and message, wherever a page has the one in brackets behind the other."""
    found = (
        (owner, message.strip())
        for page in PAGES
        for line in page.read_text().splitlines()
        for _, message, owner in QUOTED_OF_OTHERS.findall(line)
        if owner
    )
    return iter(dict.fromkeys(found))


def says(package: str, message: str) -> bool:
    """An installed package has the message in its sources, or in its library."""
    if re.fullmatch(rf"{package}\.\w+", message):  # the name of an error
        return hasattr(importlib.import_module(package), message.rpartition(".")[2])
    [folder] = importlib.util.find_spec(package).submodule_search_locations
    for library in Path(folder).glob("lib/libtorch_cpu.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(message.encode()) >= 0:
                return True
    # Long messages are written in several parts, so a file is parsed if it has the beginning.
    message = FILLED_IN.sub("…", message)
    beginning = max(without_quotes(message).split("…"), key=len)[:20]
    sources = (path for path in Path(folder).rglob("*.py") if beginning in path.read_text("utf-8", "replace"))
    return any(map(has(message).search, messages(sources)))


@pytest.mark.parametrize(("owner", "message"), list(messages_of_others()))
def test_quoted_messages_of_others_exist(owner, message):
    for package in OWNERS[owner]:
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    assert any(says(package, message) for package in OWNERS[owner]), message


def test_messages_of_every_owner_are_found():
    assert {owner for owner, _ in messages_of_others()} == OWNERS.keys()


def test_messages_are_found_in_every_page_with_a_table_of_them():
    assert {page for page, _ in quoted_messages()} >= {
        "docs/how_to/troubleshooting.md",
        "docs/how_to/label_depth.md",
    }


# -- files ---------------------------------------------------------------------------------------------------------------


def headings(page: Path) -> set[str]:
    """Anchors of a page's sections, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)\s\"]+)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("path", [*PAGES, *PYTHON, *CONFIGS], ids=name)
def test_files_that_are_named_exist(path):
    """Whole paths, and the ends of paths of Python files: `models/backbone.py`."""
    text = path.read_text()
    whole = re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*\.(?:py|md|ya?ml|json|png|sh)\b", text)
    for pattern in whole:
        # Links start from their page's folder.
        assert any(fnmatch(file, pattern) for file in NAMES) or (path.parent / pattern).exists(), pattern
    if path not in TESTS:  # those name files of LeRobot, too
        for end in re.findall(r"(?<![\w/.*{}-])(?!lerobot/)[a-z_]+/[a-z_/]+\.py\b", text):
            assert any(f"/{file}".endswith(f"/{end}") for file in NAMES), end


# -- commands and options ------------------------------------------------------------------------------------------------

# The changelog names what is gone, too.
TEXTS = [path for path in (*PAGES, *PYTHON, *CONFIGS) if path.name != "CHANGELOG.md"]


def test_commands_that_are_named_exist():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for path in TEXTS:
        for command in re.findall(r"\blerobot-gem-[a-z0-9-]*[a-z]", path.read_text()):
            assert command in scripts, f"{name(path)} names {command}"


def options(config: type) -> Iterator[str]:
    """Names of a configuration's fields, `depth.unit` among them."""
    for field in dataclasses.fields(config):
        yield field.name
        if dataclasses.is_dataclass(field.type):
            yield from (f"{field.name}.{inner}" for inner in options(field.type))


def test_options_of_policies_that_are_named_exist():
    known = {"path", "revision", "type", *options(GemConfig), *options(GemVLAConfig)}
    for path in TEXTS:
        for option in re.findall(r"--policy\.([a-z_]+(?:\.[a-z_]+)*)", path.read_text()):
            assert option in known, f"{name(path)} names --policy.{option}"
