"""A command's standard error has nothing of what other packages say in every command."""

import logging
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest

from lerobot_gem import harmless_warnings

# Of torchao, robosuite and EGL, whether at their loggers or printed.
HARMLESS = ("torchao", "macro", "SyntaxWarning", "make sure gym", "EGL")


def assert_harmless_is_left_out(said: str) -> None:
    assert not [word for word in HARMLESS if word in said]
    assert said.count("torchcodec") <= 1


@pytest.mark.parametrize(
    ("logger", "messages"),
    [
        (
            "lerobot.utils.import_utils",
            ["'torchcodec' is not available in your platform, falling back to 'pyav' as a default decoder"],
        ),
        (
            "diffusers.quantizers.torchao.torchao_quantizer",
            [
                "Unable to import `torchao` Tensor objects. This may affect loading checkpoints serialized with `torchao`"
            ],
        ),
        (
            "robosuite_logs",
            [
                "No private macro file found!",
                "It is recommended to use a private macro file",
                "To setup, run: python /env/site-packages/robosuite/scripts/setup_macros.py",
            ],
        ),
    ],
)
def test_a_logger_leaves_out_those_messages_alone(logger, messages, caplog):
    """As LeRobot 0.6.1, diffusers and robosuite 1.4 say them."""
    for message in messages:
        logging.getLogger(logger).warning(message)
    assert not caplog.records
    logging.getLogger(logger).warning("another")
    assert caplog.messages == ["another"]


def test_torchcodec_that_cannot_be_loaded_is_told_in_one_line_once(caplog):
    logger = logging.Logger("as LeRobot's")
    logger.addFilter(harmless_warnings.one_line_once())
    logger.addHandler(caplog.handler)
    error = "No FFmpeg 8\nNo FFmpeg 7\n"
    for _ in range(2):
        logger.warning(
            f"{error}'torchcodec' is installed but cannot be loaded (see the error above). Falling"
        )
    logger.warning("another")
    assert caplog.messages == [
        "torchcodec can't be loaded, mostly for lack of FFmpeg (apt-get install ffmpeg): videos are decoded with 'pyav'",
        "another",
    ]


@pytest.mark.parametrize(("package", "is_shown"), [("robosuite", False), ("another", True)])
def test_a_package_compiles_without_warnings(package, is_shown):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.filterwarnings(
            "ignore", "invalid escape sequence", SyntaxWarning, harmless_warnings._COMPILED
        )
        compile(r"'\.'", f"/env/lib/site-packages/{package}/module.py", "exec")
    assert bool(shown) == is_shown


def test_a_context_that_is_gone_already_is_no_error():
    class EGLError(Exception):
        __module__ = "OpenGL.raw.EGL._errors"

    class MjRenderContext:
        def __del__(self): ...

    MjRenderContext.__del__.__qualname__ = "MjRenderContext.__del__"
    told = []
    hook = harmless_warnings.without_egl_at_exit(told.append)
    hook(SimpleNamespace(exc_type=EGLError, object=MjRenderContext.__del__))
    assert not told
    hook(SimpleNamespace(exc_type=EGLError, object=print))
    hook(SimpleNamespace(exc_type=ValueError, object=MjRenderContext.__del__))
    assert len(told) == 2


@pytest.mark.slow
def test_a_command_says_nothing_of_them():
    """With what it would import for a policy and for videos; tests/data/libero_demos/test_collecting.py has the simulator."""
    code = """if True:
        import sys
        import lerobot_policy_gem
        import diffusers.models.modeling_utils
        from lerobot.utils.import_utils import get_safe_default_video_backend
        from lerobot_gem.scripts.check import main
        get_safe_default_video_backend()
        sys.argv = ["lerobot-gem-check", "./nothing"]
        main()
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0 and "No folder ./nothing" in result.stderr
    assert_harmless_is_left_out(result.stderr)
