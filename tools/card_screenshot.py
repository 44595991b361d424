"""A picture of the model card that a training run would push: `python tools/card_screenshot.py RUN_FOLDER OUTPUT.png`.

Rendered as Markdown with tables, by headless Chromium, which must be on PATH. Needs the extra `docs`.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import draccus
import markdown
from lerobot.configs import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

import lerobot_policy_gem  # noqa: F401 (its policies)
from lerobot_gem.policies.card_pictures import write_card_pictures
from lerobot_gem.policies.model_card import make_model_card

STYLE = """body {font: 15px/1.5 sans-serif; max-width: 880px; margin: 24px auto; color: #1f2328}
pre {background: #f6f8fa; padding: 12px; overflow-x: auto; font-size: 12px} table {border-collapse: collapse}
th, td {border: 1px solid #d1d9e0; padding: 4px 10px} img {max-width: 100%}"""


def write_page(run: Path, repo_id: str, dataset: str, folder: Path) -> Path:
    """The card as a page, with its pictures beside it."""
    checkpoint = run / "checkpoints" / "last" / "pretrained_model"
    config = PreTrainedConfig.from_pretrained(str(checkpoint))
    config.repo_id = repo_id
    training = draccus.parse(TrainPipelineConfig, checkpoint / "train_config.json", args=[])
    training.output_dir = run
    meta = LeRobotDatasetMetadata(training.dataset.repo_id, root=training.dataset.root)
    pictures = write_card_pictures(run, folder)
    card = make_model_card(config, dataset=dataset, cfg=training, dataset_meta=meta, pictures=pictures)
    body = markdown.markdown(card.text, extensions=["tables", "fenced_code"])
    page = folder / "card.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}")
    return page


def main() -> None:
    """Write the picture."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("run", type=Path, help="lerobot-train's --output_dir")
    options.add_argument("output", type=Path, help="PNG file to write")
    options.add_argument("--repo_id", default="you/your_policy")
    options.add_argument("--dataset", default="you/your_data", help="Hub id that the card names")
    options.add_argument("--height", type=int, default=2600, help="of the picture, in pixels")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = write_page(chosen.run, chosen.repo_id, chosen.dataset, Path(folder))
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [
            f"--window-size=960,{chosen.height}",
            f"--screenshot={chosen.output.resolve()}",
            page.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)


if __name__ == "__main__":
    main()
