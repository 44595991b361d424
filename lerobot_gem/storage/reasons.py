"""What an error of LeRobot or of a library below it says, in a sentence that one reads."""

import re

_LONGEST = 1000
# Errors whose type tells nothing that their words do not.
_PLAIN = (ValueError, OSError, RuntimeError)


def reason(error: BaseException) -> str:
    """What an error says: with its type where the words alone tell little, as those of a KeyError, and with its cause.

    Decoders' errors of hundreds of lines are cut to the one that matters.
    """
    text = _shortened(str(error))
    said = text if isinstance(error, _PLAIN) and text else f"{type(error).__name__}: {text}"
    cause = error.__cause__
    # Our own errors are sentences that name the fix, and need no cause.
    if cause is None or said.endswith(".") or str(cause).strip()[:80] in str(error):
        return said
    return f"{said}. Cause: {reason(cause)}"


def _shortened(text: str) -> str:
    if "libtorchcodec" in text:
        library = re.search(r"lib(?:av|sw)\w+\.so[.\d]*", text)
        lacking = f" ({library[0]} is missing)" if library else ""
        return (
            f"torchcodec can't load FFmpeg's libraries{lacking}: expected FFmpeg 4 to 8 beside it. Install it. lerobot-train and "
            "lerobot-gem-check can do without, with --dataset.video_backend=pyav."
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = " ".join(lines) if len(lines) <= 3 else f"{lines[0]} … {lines[-1]}"
    return kept if len(kept) <= _LONGEST else f"{kept[:_LONGEST]} …"
