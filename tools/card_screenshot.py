"""A picture of the model card of a checkpoint: `python tools/card_screenshot.py CHECKPOINT OUTPUT.png` after `lerobot-gem-card`.

Rendered as Markdown with tables, by headless Chromium, which must be on PATH. Needs the extra `docs`.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import markdown
from huggingface_hub import ModelCard

STYLE = """body {font: 15px/1.5 sans-serif; max-width: 880px; margin: 24px auto; color: #1f2328}
pre {background: #f6f8fa; padding: 12px; overflow-x: auto; font-size: 12px} table {border-collapse: collapse}
th, td {border: 1px solid #d1d9e0; padding: 4px 10px} img {max-width: 100%}"""


def write_page(checkpoint: Path, page: Path) -> None:
    """The card as a page, whose pictures are beside the card."""
    body = markdown.markdown(
        ModelCard.load(checkpoint / "README.md").text, extensions=["tables", "fenced_code"]
    )
    base = f"<base href='{checkpoint.resolve().as_uri()}/'>"
    page.write_text(f"<!doctype html><meta charset=utf-8>{base}<style>{STYLE}</style>{body}")


def main() -> None:
    """Write the picture."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("checkpoint", type=Path, help="its folder pretrained_model")
    options.add_argument("output", type=Path, help="PNG file to write")
    options.add_argument("--height", type=int, default=2600, help="of the picture, in pixels")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "card.html"
        write_page(chosen.checkpoint, page)
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [
            f"--window-size=960,{chosen.height}",
            f"--screenshot={chosen.output.resolve()}",
            page.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)


if __name__ == "__main__":
    main()
