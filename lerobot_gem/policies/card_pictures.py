"""The pictures of a policy's card: a rollout and generated depth, if the training run's folder holds them."""

import logging
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from lerobot_gem.storage.video_files import count_frames, spread_frames

logger = logging.getLogger(__name__)

FOLDER = "assets"
# Frames of a rollout, and their height in pixels.
_FRAMES, _HEIGHT = 6, 160


def write_card_pictures(run: Path, folder: Path) -> list[str]:
    """Write the pictures that a run's folder has something for; what can't be read is warned of, and left out.

    A policy is pushed when hours of training are over, which a broken video must not prevent.

    Args:
        run: lerobot-train's --output_dir, in which `lerobot-eval` and `lerobot-gem-depth-viz` may have written.
        folder: What is pushed.

    Returns:
        The files, relative to `folder`.
    """
    sources: dict[str, tuple[str, Callable[[Path], Image.Image]]] = {
        "rollout": ("**/videos/**/*.mp4", _strip),
        "depth": ("**/frames/frame-*.png", lambda file: Image.open(file).convert("RGB")),
    }
    written = []
    for name, (pattern, read) in sources.items():
        files = sorted(run.glob(pattern))
        if not files:
            continue
        try:
            picture = read(files[0])
        except (OSError, ValueError) as error:
            logger.warning(
                "The card has no picture of %s: %s can't be read (%s). Expected what lerobot-eval or lerobot-gem-depth-viz writes: make it "
                "again or remove it, and write the card again.",
                name,
                files[0],
                error,
            )
            continue
        file = Path(FOLDER) / f"{name}.png"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / file)
        written.append(str(file))
    return written


def _strip(video: Path) -> Image.Image:
    """Frames of a video side by side, evenly spread; as many as it has, if they are fewer."""
    shown = [_small(frame) for frame in spread_frames(video, count_frames(video), _FRAMES)]
    if not shown:
        raise ValueError("it has no frame")
    strip = Image.new("RGB", (sum(frame.width for frame in shown), _HEIGHT))
    left = 0
    for frame in shown:
        strip.paste(frame, (left, 0))
        left += frame.width
    return strip


def _small(frame: Image.Image) -> Image.Image:
    return frame.resize((round(frame.width * _HEIGHT / frame.height), _HEIGHT))
