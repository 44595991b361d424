"""Collecting demonstrations: what is written, that nothing is lost, repeated or overwritten."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tqdm.auto
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.libero_demos import collecting
from lerobot_gem.data.libero_demos.attempt_files import SCENES_PER_BATCH, Attempt
from lerobot_gem.data.libero_demos.attempts import open_scene
from lerobot_gem.data.libero_demos.collecting import collect
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.kinds import KINDS
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.data.libero_demos.questions.selection import MOST_COMMON
from lerobot_gem.evaluation.vqa_questions import read_rows
from lerobot_gem.storage.output_folder import OutputDataset
from tests.test_harmless_warnings import assert_harmless_is_left_out


@pytest.fixture(scope="module", autouse=True)
def simulator(libero: Path) -> Iterator[None]:
    yield
    open_scene.close()


def _config(root: Path, **change) -> LiberoDemosConfig:
    settings = {"task_ids": [0], "episodes_per_task": 2, "scenes_per_task": 3, "fps": 5, "image_size": 64}
    settings["qa"] = QuestionsConfig(interval=1.0)
    return LiberoDemosConfig(OutputDataset(root), **{**settings, **change})


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collected") / "set"
    reports = collect(_config(root))
    assert [(r.task_id, r.successes) for r in reports] == [(0, 2)]
    assert reports[0].attempts >= 2
    return root


@pytest.mark.libero
def test_lerobot_reads_it_with_depth(collected: Path) -> None:
    dataset = LeRobotDataset("local/x", root=collected, depth_output_unit="m")
    assert sorted(dataset.meta.depth_keys) == [
        "observation.images.image2_depth",
        "observation.images.image_depth",
    ]
    assert dataset.num_episodes == 2 + 3 and dataset.fps == 5
    assert [e["length"] for e in dataset.meta.episodes][2:] == [1, 1, 1]
    item = dataset[0]
    assert item["observation.images.image"].shape == (3, 64, 64)
    assert item["observation.images.image_depth"].shape == (1, 64, 64)
    assert 0.5 < item["observation.images.image_depth"].median() < 3  # metres
    assert item["observation.state"].shape == (8,) and item["action"].shape == (7,)
    assert item["task"] == "pick up the alphabet soup and place it in the basket"
    assert not list(collected.parent.glob("set.*"))
    report = json.loads((collected / "collection.json").read_text())
    assert report["tasks"][0]["successes"] == 2 and report["settings"]["placement"] == "wide"


@pytest.mark.libero
def test_demonstrations_have_sub_tasks_and_questions(collected: Path) -> None:
    table = LeRobotDataset("local/x", root=collected).hf_dataset.data.to_pylist()
    for episode in (0, 1):
        frames = [row for row in table if row["episode_index"] == episode]
        steps = frames[0]["language_persistent"]
        assert all(row["language_persistent"] == steps for row in frames)
        assert [step["style"] for step in steps] == ["subtask"] * len(steps) and len(steps) >= 4
        assert steps[0]["content"] == "Move the gripper above the alphabet soup."
        assert steps[-1]["content"] == "Let go of the alphabet soup in the basket."
        starts = [step["timestamp"] for step in steps]
        assert starts == sorted(starts) and starts[0] == 0 and starts[-1] <= frames[-1]["timestamp"]
        # One second is five frames.
        assert all(not row["language_events"] for row in frames if row["frame_index"] % 5)
    for row in table:
        events = row["language_events"]
        assert len(events) % 2 == 0 and len(events) <= 2 * 2  # one question about each camera
        assert {event["style"] for event in events} <= {"vqa"}
    questions = pq.read_table(collected / "meta" / "questions.parquet").to_pylist()
    written = {
        (row["index"], event["camera"], event["content"])
        for row in table
        for event in row["language_events"]
        if event["role"] == "user"
    }
    assert len(questions) > 8
    assert {(q["index"], q["camera"], q["question"]) for q in questions} == written


@pytest.mark.slow
@pytest.mark.libero
def test_scenes_alone_with_every_kind_of_question_from_any_number_of_workers(tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for workers, root in enumerate(roots, start=1):
        # As the command, since workers that are forked from a process which has simulated wait for its OpenMP threads.
        command = [sys.executable, "-m", "lerobot_gem.scripts.libero_demos", f"--output.root={root}"]
        command += [f"--num_workers={workers}", "--task_ids=[0]", "--fps=5", "--mode=scenes"]
        command += [f"--scenes_per_task={2 * SCENES_PER_BATCH}", f"--qa.questions_per_image={len(KINDS)}"]
        # LeRobot writes statistics in the order of a set, which depends on the hash seed.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=300, env=environment
        )
        assert_harmless_is_left_out(done.stdout + done.stderr)
    one, two = (_files(root) for root in roots)
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} <= {"collection.json"}
    report = json.loads(one["collection.json"])
    assert report["settings"]["mode"] == "scenes" and set(report["questions"]) == set(KINDS)
    for kind, found in report["questions"].items():
        assert found["questions"] >= 20, kind
        assert found["most_common_answer"] <= MOST_COMMON, kind

    # What scores answers (lerobot-gem-eval-vqa) reads the kinds, and finds the boxes of points.
    rows = read_rows(LeRobotDataset("local/x", root=roots[0])).rows
    kinds = {
        (q["index"], q["camera"], q["question"], q["answer"]): q["kind"]
        for q in pq.read_table(roots[0] / "meta" / "questions.parquet").to_pylist()
    }
    assert len(rows) == len(kinds)
    for row in rows:
        assert row.kind == kinds[(row.index, *row.cameras, row.question, row.answer)]
    assert sum(row.region is not None for row in rows if row.kind == "point") >= 10


@pytest.mark.libero
def test_an_object_that_a_later_task_lacks_is_named_before_any_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Attempt] = []
    monkeypatch.setattr(collecting, "run_attempt", lambda config, attempt, staging: made.append(attempt))
    config = _config(tmp_path / "set", task_ids=[0, 3], named_object="milk", qa=None)
    with pytest.raises(
        ValueError, match="named_object='milk' is not in libero_object task 3: all chosen tasks have"
    ):
        collect(config)
    assert not made and not list(tmp_path.iterdir())


@pytest.mark.libero
def test_nothing_is_overwritten_without_being_told(collected: Path) -> None:
    before = _files(collected)
    for change in ({}, {"resume": True}):
        with pytest.raises(FileExistsError, match=r"exists already.*--overwrite=true"):
            collect(_config(collected, **change))
    assert _files(collected) == before


@pytest.mark.slow
@pytest.mark.libero
def test_resumes_without_loss_or_repetition(
    collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store, finished = tmp_path / "set", collecting.run_attempt, []

    def killed_in_the_second(config: LiberoDemosConfig, attempt, staging: Path) -> bool:
        if finished:
            (staging / f".{attempt.name}").mkdir()  # half-written
            raise KeyboardInterrupt
        finished.append(attempt)
        return store(config, attempt, staging)

    monkeypatch.setattr(collecting, "run_attempt", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        collect(_config(root))
    assert not root.exists()
    monkeypatch.setattr(collecting, "run_attempt", store)

    with pytest.raises(FileExistsError, match=r"unfinished collection.*--resume=true"):
        collect(_config(root))
    with pytest.raises(ValueError, match="started with other settings"):
        collect(_config(root, resume=True, seed=1))

    again: list = []
    monkeypatch.setattr(collecting, "run_attempt", lambda c, a, s: (again.append(a), store(c, a, s))[1])
    collect(_config(root, resume=True))
    assert finished[0] not in again and len(set(again)) == len(again)
    whole, resumed = (LeRobotDataset("local/x", root=path) for path in (collected, root))
    assert len(whole) == len(resumed)
    for index in range(len(whole)):
        one, other = whole[index], resumed[index]
        for key in (
            "observation.images.image",
            "observation.images.image2_depth",
            "observation.state",
            "action",
        ):
            np.testing.assert_array_equal(one[key], other[key])
    rows = [d.hf_dataset.data.select(["language_events", "language_persistent"]) for d in (whole, resumed)]
    assert rows[0].equals(rows[1]) and any(rows[0].column("language_events").to_pylist())
    files = [pq.read_table(path / "meta" / "questions.parquet") for path in (collected, root)]
    assert files[0].equals(files[1])


def _collection(config: LiberoDemosConfig, task: collecting._Task) -> collecting._Collection:
    work = collecting._Collection(config, [task])
    work.staging.mkdir(exist_ok=True)
    return work


def _keep(attempt: Attempt, staging: Path, success: bool) -> bool:
    """Leave behind what tells whether an attempt succeeded."""
    (staging / attempt.name).mkdir()
    if success:
        (staging / attempt.name / "action.npy").touch()
    return success


def test_demonstrations_and_scenes_have_bars_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that counted both alike told 7 hours for 20 minutes: a demonstration takes as long as dozens of scenes."""
    bars = []

    class Bar(tqdm.tqdm):
        def __exit__(self, *error: object) -> None:
            if not self.disable:
                bars.append((self.desc.removesuffix(": "), self.unit, self.n, self.total))
            super().__exit__(*error)

    made = []

    def run(config: LiberoDemosConfig, attempt: Attempt, staging: Path) -> bool:
        made.append(attempt)
        return _keep(
            attempt, staging, attempt.scenes > 0 or attempt.number > 0
        )  # the first demonstration fails

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    monkeypatch.setattr(collecting, "run_attempt", run)
    work = _collection(
        _config(tmp_path / "set", scenes_per_task=SCENES_PER_BATCH + 3), collecting._Task(4, "pick")
    )
    for number in range(3):
        work.share_round(number, 0, 1)
    # No scene is made that is not wanted, and no demonstration.
    assert made == [
        Attempt(4, 0),
        Attempt(4, 1),
        Attempt(4, 0, SCENES_PER_BATCH),
        Attempt(4, 1, 3),
        Attempt(4, 2),
    ]
    assert bars == [
        ("task 4, demonstrations", "demonstration", 2, 2),
        ("task 4, scenes", "scene", SCENES_PER_BATCH + 3, SCENES_PER_BATCH + 3),
        ("task 4, demonstrations", "demonstration", 1, 1),
    ]
    stored, [report] = work.outcome()
    assert [one.attempt for one in stored] == [made[1], made[4], made[2], made[3]]
    assert (report.successes, report.attempts) == (2, 3)


@pytest.mark.parametrize("tasks", [1, 3])
def test_which_attempts_are_made_does_not_depend_on_the_number_of_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    """Of those that fail in the last round, the finish makes as many more."""
    made: list[Attempt] = []
    failing = {0, 3, 5, 6, 7, 8}

    def run(config: LiberoDemosConfig, attempt: Attempt, staging: Path) -> bool:
        made.append(attempt)
        return _keep(attempt, staging, attempt.number not in failing)

    monkeypatch.setattr(collecting, "run_attempt", run)
    monkeypatch.setattr(collecting, "write_dataset", lambda config, stored, reports: None)
    config = _config(tmp_path / "set", scenes_per_task=0, episodes_per_task=5)
    work = _collection(config, collecting._Task(4, "pick"))
    for number in range(2):
        for rank in range(tasks):
            work.share_round(number, rank, tasks)
    assert [one.number for one in made] == list(range(7))
    [report] = work.finish()
    assert [one.number for one in made] == list(range(11))
    assert (report.successes, report.attempts) == (5, 11)
    assert not work.staging.exists()


def test_recorded_demonstrations_are_taken_in_order_until_there_are_enough_or_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def run(config: LiberoDemosConfig, attempt: Attempt, staging: Path) -> bool:
        made.append(attempt.number)
        return _keep(attempt, staging, attempt.number > 0)  # the first one fails

    monkeypatch.setattr(collecting, "run_attempt", run)

    def collection(wanted: int, recorded: int) -> collecting._Collection:
        config = _config(
            tmp_path / f"{wanted}-{recorded}", source=tmp_path, scenes_per_task=0, episodes_per_task=wanted
        )
        work = _collection(config, collecting._Task(4, "pick", recorded=recorded))
        for number in range(3):
            work.share_round(number, 0, 1)
        return work

    for wanted, taken in ((2, [0, 1, 2]), (50, [0, 1, 2, 3])):
        made.clear()
        stored, [report] = collection(wanted, 4).outcome()
        assert made == taken
        assert [one.attempt.number for one in stored] == taken[1:]
        assert (report.successes, report.attempts) == (len(taken) - 1, len(taken))
    with pytest.raises(
        ValueError, match="None of the 1 demonstrations of libero_object task 4 .* success test"
    ):
        collection(50, 1)


def test_gives_up_when_the_scripted_policy_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(config: LiberoDemosConfig, attempt, staging: Path) -> bool:
        (staging / attempt.name).mkdir()
        return False

    monkeypatch.setattr(collecting, "run_attempt", fails)
    with pytest.raises(ValueError, match="failed 12 times while 2 successes were wanted"):
        collect(_config(tmp_path / "set"))


@pytest.mark.slow
@pytest.mark.libero
def test_overwrite_replaces_and_depth_can_be_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "meta").mkdir(parents=True)
    (root / "old").write_text("old")
    with pytest.raises(FileExistsError, match=r"holds no meta/info.json: .* is not replaced"):
        collect(_config(root, overwrite=True))
    (root / "meta" / "info.json").write_text("{}")
    alone = {"episodes_per_task": 0, "scenes_per_task": SCENES_PER_BATCH + 1}
    collect(_config(root, **alone, depth=False, qa=None, overwrite=True))
    dataset = LeRobotDataset("local/x", root=root)
    assert not (root / "old").exists()
    assert dataset.num_episodes == dataset.num_frames == SCENES_PER_BATCH + 1
    assert not dataset.meta.depth_keys and not dataset.meta.has_language_columns
    assert not (root / "meta" / "questions.parquet").exists()
    actions = np.stack([dataset[i]["action"] for i in range(len(dataset))])
    assert len(np.unique(actions, axis=0)) > SCENES_PER_BATCH // 2
    assert set(np.unique(actions[:, -1])) == {-1.0, 1.0}


@pytest.mark.libero
def test_unknown_task_and_suite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="libero_object has tasks 0 to 9, but task_ids has 10"):
        collect(_config(tmp_path / "set", task_ids=[10]))
    with pytest.raises(ValueError, match="Unknown LIBERO suite 'libero_fruit'"):
        collect(_config(tmp_path / "set", suite="libero_fruit"))
    with pytest.raises(ValueError, match="no scripted policy for libero_goal.*--source"):
        collect(_config(tmp_path / "set", suite="libero_goal"))
    with pytest.raises(ValueError, match="no wide placements for libero_spatial.*--placement=benchmark"):
        collect(_config(tmp_path / "set", suite="libero_spatial"))
