"""Leaves out what other packages say in every command though no user has to act on it, and shortens what is too long.

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
    # There is no torchcodec to install on such a platform; videos are decoded with PyAV.
    "lerobot.utils.import_utils": ("'torchcodec' is not available in your platform",),
    # diffusers looks for two of torchao's tensors that 0.17 and later don't have.
    "diffusers.quantizers.torchao.torchao_quantizer": ("Unable to import `torchao` Tensor objects",),
    # Its macros are for people who develop it.
    "robosuite_logs": (
        "No private macro file found!",
        "It is recommended to use a private macro file",
        "To setup, run: python ",
    ),
}
# LeRobot says this behind 234 lines about each FFmpeg that was not found, whenever it looks for a decoder.
_NO_TORCHCODEC = "'torchcodec' is installed but cannot be loaded"
_SHORTER = "torchcodec can't be loaded, mostly for lack of FFmpeg (apt-get install ffmpeg): videos are decoded with 'pyav'"
# Their sources have escape sequences that Python 3.12 warns of when it compiles them: once, in the first run.
_COMPILED = r".*[/\\]site-packages[/\\](robosuite|torchao)[/\\]"
# robosuite frees its contexts when the process ends, after EGL has freed them itself.
_EGL_ERROR = ("OpenGL.raw.EGL._errors", "EGLError")
_DESTRUCTORS = ("MjRenderContext.__del__", "EGLGLContext.__del__")


def _leave_out(messages: tuple[str, ...]) -> Callable[[logging.LogRecord], bool]:
    """A filter that leaves out records with one of these messages."""
    return lambda record: not any(message in str(record.msg) for message in messages)


def one_line_once() -> Callable[[logging.LogRecord], bool]:
    """A filter that cuts the message about torchcodec to one line, and lets it through once."""
    is_said = False

    def filtered(record: logging.LogRecord) -> bool:
        nonlocal is_said
        if _NO_TORCHCODEC not in str(record.msg):
            return True
        was_said, is_said = is_said, True
        record.msg, record.args = _SHORTER, None
        return not was_said

    return filtered


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
logging.getLogger("lerobot.utils.import_utils").addFilter(one_line_once())
warnings.filterwarnings("ignore", "invalid escape sequence", SyntaxWarning, _COMPILED)
sys.unraisablehook = without_egl_at_exit(sys.unraisablehook)
