"""A checkpoint's folder through the client: what breaks off leaves nothing half, and what is refused says why."""

import pytest

from tests.hub.conftest import Run
from tests.hub.local_hub import LocalHub

UPLOAD = """
from huggingface_hub import HfApi
api = HfApi()
api.create_repo({repo!r}, exist_ok=True)
api.upload_folder(repo_id={repo!r}, folder_path={folder!r})
"""
# The client waits 23 seconds in all before it gives up.
WITHOUT_WAITING = "import time; time.sleep = lambda seconds: None"
DOWNLOAD = "from huggingface_hub import snapshot_download; print(snapshot_download({repo!r}))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


@pytest.mark.slow
def test_an_interrupted_upload_leaves_nothing_and_can_be_repeated(
    hub: LocalHub, run: Run, folder: str
) -> None:
    upload = WITHOUT_WAITING + UPLOAD.format(repo="me/broken", folder=folder)
    hub.interrupted_uploads = 100
    status, said = run(code=upload)
    assert status != 0 and hub.repositories["me/broken"].files()[1] == {}
    hub.interrupted_uploads = 1  # which the client repeats by itself
    status, said = run(code=upload)
    assert status == 0, said
    assert hub.repositories["me/broken"].files()[1] == {"config.json": b"{}", "model.safetensors": b"weights"}


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        ("me/other", "hf_wrong", "Invalid credentials"),
        ("me/other", "", "Invalid credentials|401"),
        ("someone/else", None, "Forbidden|no write access"),
    ],
    ids=["wrong token", "no token", "another's repository"],
)
def test_who_may_not_write_is_told(hub: LocalHub, run: Run, folder: str, repo, token, message) -> None:
    import re

    arguments = {} if token is None else {"token": token}
    status, said = run(code=UPLOAD.format(repo=repo, folder=folder), **arguments)
    assert status != 0 and re.search(message, said), said
    assert repo not in hub.repositories


def test_a_missing_repository_is_named(run: Run) -> None:
    status, said = run(code=DOWNLOAD.format(repo="me/nothing"))
    assert status != 0 and "Repository" in said and "me/nothing" in said
