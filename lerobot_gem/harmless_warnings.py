"""Leaves out what other packages say in every command though no user has to act on it.

Importing this module does so, for these messages and no others, where each arises: at the logger that gets it, or at the
destructor that raises it. What is said before LeRobot loads its plugins can't be caught: torchao's message in `lerobot-train`.
"""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

# Loggers, and how what they say begins or what it holds.
_MESSAGES = {
    # Both: videos are decoded with PyAV then. The first comes with 234 lines about each FFmpeg that was not found.
    "lerobot.utils.import_utils": (
        "'torchcodec' is installed but cannot be loaded",
        "'torchcodec' is not available in your platform",
    ),
    # diffusers looks for two of torchao's tensors that 0.17 and later don't have.
    "diffusers.quantizers.torchao.torchao_quantizer": ("Unable to import `torchao` Tensor objects",),
    # Its macros are for people who develop it.
    "robosuite_logs": (
        "No private macro file found!",
        "It is recommended to use a private macro file",
        "To setup, run: python ",
    ),
}
# Their sources have escape sequences that Python 3.12 warns of when it compiles them: once, in the first run.
_COMPILED = r".*[/\\]site-packages[/\\](robosuite|torchao)[/\\]"
# robosuite frees its contexts when the process ends, after EGL has freed them itself.
_EGL_ERROR = ("OpenGL.raw.EGL._errors", "EGLError")
_DESTRUCTORS = ("MjRenderContext.__del__", "EGLGLContext.__del__")


def _leave_out(messages: tuple[str, ...]) -> Callable[[logging.LogRecord], bool]:
    """A filter that leaves out records with one of these messages."""
    return lambda record: not any(message in str(record.msg) for message in messages)


def without_egl_at_exit(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A hook for exceptions in destructors that leaves out those of rendering contexts which are gone already.

    Args:
        hook: What gets all others (`sys.unraisablehook`).
    """

    def filtered(unraisable: Any) -> None:
        kind = unraisable.exc_type
        is_egl = (kind.__module__, kind.__name__) == _EGL_ERROR
        if not (is_egl and getattr(unraisable.object, "__qualname__", "") in _DESTRUCTORS):
            hook(unraisable)

    return filtered


for _name, _messages in _MESSAGES.items():
    logging.getLogger(_name).addFilter(_leave_out(_messages))
warnings.filterwarnings("ignore", "invalid escape sequence", SyntaxWarning, _COMPILED)
sys.unraisablehook = without_egl_at_exit(sys.unraisablehook)
