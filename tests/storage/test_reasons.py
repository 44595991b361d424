"""What is said of errors that say too little or too much."""

from lerobot_gem.storage.reasons import reason


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_the_type_is_given_where_words_alone_tell_little() -> None:
    assert reason(ValueError("is broken")) == "is broken"
    assert reason(KeyError("front")) == "KeyError: 'front'"
    assert reason(ValueError()) == "ValueError: "


def test_causes_are_shown_once() -> None:
    assert reason(chained(ValueError("No dataset"), OSError("disk full"))) == "No dataset. Cause: disk full"
    assert reason(chained(ValueError("Write it again."), OSError("disk full"))) == "Write it again."
    assert (
        reason(chained(ValueError("No dataset: disk full"), OSError("disk full"))) == "No dataset: disk full"
    )


def test_long_errors_are_cut_to_the_one_that_matters() -> None:
    lines = [
        "Could not load libtorchcodec. Likely causes:",
        *["Traceback"] * 200,
        "OSError: libavutil.so.60: no such file",
    ]
    said = reason(RuntimeError("\n".join(lines)))
    assert "(libavutil.so.60 is missing)" in said and "video_backend=pyav" in said and "\n" not in said
    assert reason(RuntimeError("first\n" + "between\n" * 50 + "last")) == "first … last"
    assert len(reason(RuntimeError("x" * 5000))) < 1100
