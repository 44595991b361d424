"""What training would take without a word, though it is hardly meant."""

from lerobot.utils.constants import ACTION

from lerobot_gem.data.check.facts import Inspection
from lerobot_gem.processing.dataset_names import left_out, no_state
from lerobot_gem.processing.language import STYLES
from lerobot_gem.processing.statistics import stands_still
from lerobot_gem.training.stages import PRETRAINING

_MOST = 0.5


def warnings_of(found: Inspection) -> list[str]:
    """Warnings, each with what it leads to."""
    return [*_pictures(found), *_language(found), *_vectors(found)]


def _pictures(found: Inspection) -> list[str]:
    warnings = [left_out(camera, found.outside) for camera in found.outside]
    for camera in found.cameras:
        if camera.one_colour:
            warnings.append(
                f"{camera.key} shows a single colour in {camera.one_colour:.1%} of the sampled frames: a covered or "
                "broken camera?"
            )
        if camera.depth is None and any(depth.camera for depth in found.depth):
            warnings.append(f"{camera.key} has no depth camera: its images carry no depth loss.")
    for depth in found.depth:
        if depth.empty:
            warnings.append(
                f"{depth.key} has no valid pixel in {depth.empty:.1%} of the sampled frames, which carry no depth loss."
            )
        if depth.invalid > _MOST:
            warnings.append(
                f"{depth.key}: {depth.invalid:.1%} of the pixels are invalid (valid is 11 mm to 9.99 m): is its unit "
                f"right ({depth.unit})?"
            )
    return warnings


def _language(found: Inspection) -> list[str]:
    warnings = []
    unused: dict[str, int] = {}
    for row in found.language:
        if row.style not in STYLES:
            unused[str(row.style)] = unused.get(str(row.style), 0) + row.count
    for style, count in unused.items():
        warnings.append(
            f"{count:,} language row(s) of style {style!r} are not used: training reads {', '.join(STYLES)}."
        )
    for prompts in found.prompts:
        if prompts.too_long:
            warnings.append(
                f"{prompts.policy}: {prompts.too_long:,} of {prompts.prompts:,} prompts are longer than the context of "
                f"{prompts.context:,} tokens. Nothing is truncated: shorten them, or lower --policy.cameras.max_pixels."
            )
        if prompts.left_out:
            warnings.append(
                f"{prompts.left_out:,} question(s) about cameras that are not in --policy.cameras.names are left out."
            )
        if prompts.policy == "gem" and prompts.frames and prompts.task_only == prompts.frames:
            warnings.append(
                "No frame has text of its own: the stage joint learns to say the task sentence, and no more. Add questions "
                "(language rows, or the column 'messages')."
            )
    return warnings


def _vectors(found: Inspection) -> list[str]:
    warnings = [
        f"{key} holds NaN or infinite values in {frames:,} frame(s); no policy of ours reads it, so it stops nothing."
        for key, frames in found.unread.items()
    ]
    if found.asked in PRETRAINING:
        return warnings  # actions and states are not used
    if found.state_like:
        warnings.append(no_state(found.state_like))
    for vector in found.vectors:
        if vector.still:
            warnings.append(stands_still(vector.key, vector.still, is_read=vector.is_still_read))
        if not vector.has_stats:
            warnings.append(f"{vector.key} has no statistics in meta/stats.json: it would not be normalised.")
        if vector.stale:
            warnings.append(
                f"{vector.key}: meta/stats.json has another range than the data in {', '.join(vector.stale)}, and "
                "normalisation would use it. Recompute the statistics."
            )
    if found.padding is not None and found.padding > _MOST and any(v.key == ACTION for v in found.vectors):
        warnings.append(
            f"{found.padding:.1%} of the actions in chunks lie past the end of their episode and carry no loss: lower "
            "--policy.chunk_size, or record longer episodes."
        )
    return warnings
