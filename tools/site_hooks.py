"""Brings files outside docs/ that its pages link (results, configurations) into the site, as mkdocs calls it (mkdocs.yml)."""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Where those files are in the site.
OUTSIDE = "repository"
# A badge, or another picture that a reader's browser would load from another host.
FOREIGN_PICTURE = re.compile(r"!\[([^\]]*)\]\(https?://[^)]*\)")
# The target of a link or of a picture, in Markdown or HTML, without its anchor.
LINK = re.compile(r"(?:(?<=\]\()|(?<=src=\"))(?!\w+:|#)[^)\"\s#]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link outside docs/, and what those files link themselves."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        source = waiting.pop()
        for target in targets(source, (ROOT / source).read_text()):
            if target in seen or target.startswith("docs/") or not (ROOT / target).is_file():
                continue
            seen.add(target)
            files.append(File.generated(config, site_place(target), abs_src_path=str(ROOT / target)))
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links lead to where their files are in the site; badges are their text."""
    place = page.file.src_uri
    source = place.removeprefix(f"{OUTSIDE}/") if place.startswith(f"{OUTSIDE}/") else f"docs/{place}"

    def moved(link: re.Match[str]) -> str:
        target = site_place(resolved(source, link[0]))
        return posixpath.relpath(target, posixpath.dirname(place) or ".")

    return LINK.sub(moved, FOREIGN_PICTURE.sub(r"\1", markdown))


def targets(source: str, markdown: str) -> Iterable[str]:
    """Paths from the repository's root of what a page links.

    Args:
        source: Path of the page, from the root.
        markdown: Its text.
    """
    return [resolved(source, link) for link in LINK.findall(markdown)]


def resolved(source: str, link: str) -> str:
    """Path from the root of what a page links."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def site_place(path: str) -> str:
    """Where a file of the repository is in the site: pages of docs/ at its top."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{OUTSIDE}/{path}"
