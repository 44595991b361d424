"""docs/ as a site: it builds without a warning, and whoever reads it loads nothing from other hosts."""

import logging
import re
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mkdocs").addHandler(handler)
    try:
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    assert not warnings
    return folder


def test_every_page_is_there(site):
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix("")
        assert (site / ("index.html" if page.stem == "index" else place / "index.html")).exists(), page


def test_nothing_is_loaded_from_other_hosts(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r"<(?:script|img|iframe|source|video)[^>]*src=\"?(?:https?:)?//", text), page
        assert not re.findall(
            r"<link[^>]*rel=\"?(?:stylesheet|preconnect)[^>]*href=\"?(?:https?:)?//", text
        ), page


def test_files_outside_docs_that_pages_link_are_in_it(site):
    name = "configs/env/libero.yaml"
    assert (site / "repository" / name).read_text() == (ROOT / name).read_text()
    page = site / "repository" / "results" / "depth_helps"
    assert 'href="../../../results/depth_helps/"' in (page / "index.html").read_text()  # back to docs/
    assert (page / "tables" / "index.html").exists()
