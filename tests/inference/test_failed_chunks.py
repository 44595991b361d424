"""That a process ends with the error of the last chunk, whatever LeRobot's exit code would be."""

import atexit
import logging
import os
import sys

from lerobot_gem.inference.failed_chunks import FailedChunks, failed_chunks, watch_chunks


def logged(*arguments: object) -> FailedChunks:
    handler = FailedChunks()
    handler.handle(logging.LogRecord("rtc", logging.ERROR, "", 0, "", arguments, None))
    return handler


def test_the_error_is_taken_from_the_log():
    error = ValueError("No task text")
    assert logged(1, 10, error).reason is error
    assert logged("text alone").reason is None


def test_a_chunk_that_comes_is_no_failure():
    failed = logged(ValueError("once"))
    assert failed.reason is not None
    failed.succeeded()
    assert failed.reason is None
    failed.end()  # ends nothing


def test_nothing_that_was_printed_is_lost_with_the_process(tmp_path, monkeypatch, capsys):
    """`os._exit` writes no buffer; tests/robots/test_rollout.py has processes that end so."""
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)  # or pytest's own handlers are closed
    with (tmp_path / "printed").open("w") as printed:
        monkeypatch.setattr(sys, "stdout", printed)
        print("done")
        logged(ValueError("No task text")).end()
        assert (tmp_path / "printed").read_text() == "done\n"
    assert codes == [1]
    assert capsys.readouterr().err == "error: the policy gave the robot no more actions: No task text\n"


def test_a_log_that_is_watched_twice_is_watched_once(monkeypatch):
    log, registered = logging.getLogger("lerobot.rollout.inference.rtc"), []
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(atexit, "register", registered.append)
    watch_chunks()
    watch_chunks()
    assert log.handlers == [failed_chunks]
    assert registered == [failed_chunks.end]
