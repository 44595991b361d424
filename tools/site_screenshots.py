"""Screenshots of the site and the front page, as results/site shows them.

    make docs && python tools/site_screenshots.py        # needs chromium on the path

Four pages of five kinds, 1280 and 390 pixels wide, side by side; and README.md, rendered as Markdown.
"""

import subprocess
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import markdown
from card_screenshot import STYLE
from PIL import Image

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "site"
SITE = "outputs/site"
PAGES = ("", "how_to/fine_tune_on_your_robot/", "reference/configuration/", "concepts/gem/")
HEIGHT, FRONT_PAGE = 1500, (960, 2860)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        pass


def shoot(url: str, file: Path, width: int, height: int) -> Image.Image:
    """A page in headless Chromium."""
    subprocess.run(
        [
            "chromium",
            *(
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=8000",
            ),
            *(f"--window-size={width},{height}", f"--screenshot={file}", url),
        ],
        check=True,
        capture_output=True,
    )
    return Image.open(file).convert("RGB").crop((0, 0, width, height))


def side_by_side(pictures: list[Image.Image], gap: int) -> Image.Image:
    """One sheet of pictures of one size."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number * (width + gap), 0))
    return sheet


def main() -> None:
    """Write the pictures."""
    missing = [page for page in PAGES if not (ROOT / SITE / page / "index.html").is_file()]
    if missing:
        raise SystemExit(f"{SITE} lacks {missing}: run `make docs` first.")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=ROOT))
    Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    readme = markdown.markdown((ROOT / "README.md").read_text(), extensions=["tables", "fenced_code"])
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        file = Path(folder) / "picture.png"
        wide = [
            shoot(f"{host}/{SITE}/{page}", file, 1280, HEIGHT).resize((640, HEIGHT // 2)) for page in PAGES
        ]
        side_by_side(wide, 10).save(RESULTS / "wide.webp", quality=80)
        # Chromium's windows are no narrower than 500 pixels: a frame of 390 is.
        frame = Path(folder) / "frame.html"
        narrow = []
        for page in PAGES:
            frame.write_text(
                f'<body style="margin:0"><iframe src="{host}/{SITE}/{page}" width="390" height="{HEIGHT}" style="border:0">'
            )
            url = f"{host}/{frame.relative_to(ROOT)}"
            narrow.append(shoot(url, file, 500, HEIGHT).crop((0, 0, 390, HEIGHT)))
        side_by_side(narrow, 20).save(RESULTS / "narrow.webp", quality=80)
        frame.write_text(f'<base href="{host}/"><meta charset="utf-8"><style>{STYLE}</style>{readme}')
        front = shoot(f"{host}/{frame.relative_to(ROOT)}", file, *FRONT_PAGE)
        front.save(RESULTS / "front_page.webp", quality=80)


if __name__ == "__main__":
    main()
