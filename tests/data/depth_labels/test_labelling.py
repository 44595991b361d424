"""Depth labels from end to end: the right depth for every pixel, nothing lost, changed or half-written."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import draccus
import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.data.depth_labels import labelling
from lerobot_gem.data.depth_labels.depth_model import DepthModelConfig
from lerobot_gem.data.depth_labels.labelling import (
    LabelDepthConfig,
    label_depth,
)
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.processing.depth_cameras import depth_key
from lerobot_gem.scripts.label_depth import main
from lerobot_gem.storage.opening import DatasetOptions
from lerobot_gem.storage.output_folder import OutputDataset
from tests.conftest import CAMERAS, build_policy, read_batch
from tests.data.depth_labels.mixed_source import (
    FRONT,
    LENGTHS,
    WRIST,
    pixels_as_millimetres,
    tree,
    write_mixed_source,
)
from tests.data.depth_labels.pixel_depth import save_depth_anything, save_pixel_depth

# Half a step of LeRobot's 12-bit depth videos at 9 m, and its rounding to millimetres.
VIDEO_STEP = 2.6


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_source(tmp_path_factory.mktemp("source") / "mixed")


@pytest.fixture(scope="module")
def pixel_depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pixel_depth(tmp_path_factory.mktemp("models") / "pixel_depth")


@pytest.fixture(scope="module")
def depth_anything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_depth_anything(tmp_path_factory.mktemp("models") / "depth_anything")


def config(
    source: Path, output: Path, model: Path, depth_type: str | None = "metric", **change
) -> LabelDepthConfig:
    return LabelDepthConfig(
        DatasetOptions("local/mixed", source),
        OutputDataset(output, "local/labelled"),
        DepthModelConfig(str(model), depth_type=depth_type),
        **{"batch_size": 5, "num_workers": 0, **change},
    )


@pytest.fixture(scope="module")
def labelled(source: Path, pixel_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, before = tmp_path_factory.mktemp("labelled") / "set", tree(source)
    reports = label_depth(config(source, root, pixel_depth))
    assert tree(source) == before
    assert [path.name for path in root.parent.iterdir()] == ["set"]
    assert [(r.key, r.depth_type, r.frames) for r in reports] == [
        (depth_key(camera), "metric", sum(LENGTHS)) for camera in (FRONT, WRIST)
    ]
    return root


# -- what is written -----------------------------------------------------------------------------------------------------


def test_every_pixel_has_the_depth_of_its_colour_in_metres(labelled: Path, source: Path) -> None:
    old = LeRobotDataset("local/x", root=source, return_uint8=True)
    new = LeRobotDataset("local/x", root=labelled)
    expected = [pixels_as_millimetres(old[index][FRONT].numpy()).astype(float) for index in range(len(old))]
    for index in range(len(old)):
        found = new[index][depth_key(FRONT)][0].numpy()
        np.testing.assert_allclose(found, expected[index].clip(10, 10000), atol=VIDEO_STEP)
        for other in {max(index - 1, 0), min(index + 1, len(old) - 1)} - {index}:
            assert (
                np.abs(found - expected[other].clip(10, 10000)).max() > 100
            )  # so that a shift would be seen
        image = (old[index][WRIST] * 255).round().to(torch.uint8).numpy()
        np.testing.assert_array_equal(new[index][depth_key(WRIST)][0], pixels_as_millimetres(image))
    metres = LeRobotDataset("local/x", root=labelled, depth_output_unit="m")
    np.testing.assert_allclose(metres[3][depth_key(WRIST)] * 1000, new[3][depth_key(WRIST)], rtol=1e-6)


def test_statistics_and_report_are_those_of_the_labels(labelled: Path) -> None:
    dataset = LeRobotDataset("local/x", root=labelled)
    depth = np.stack([dataset[index][depth_key(WRIST)] for index in range(len(dataset))]).astype(float)
    stats = dataset.meta.stats[depth_key(WRIST)]
    for name in ("min", "max", "mean", "std"):
        assert stats[name].item() == pytest.approx(getattr(depth, name)()), name
    content = json.loads((labelled / "depth_labels.json").read_text())
    report = content["cameras"][1]
    assert report["usable"] == pytest.approx(((depth > 11) & (depth < 9990)).mean())
    assert (report["nearest"], report["farthest"]) == (depth.min() / 1000, depth.max() / 1000)
    assert content["settings"]["model"]["kind"] == "metric"


def test_relative_depth_is_marked(source: Path, depth_anything: Path, tmp_path: Path) -> None:
    label_depth(config(source, tmp_path / "set", depth_anything, depth_type=None, cameras=[WRIST]))
    dataset = LeRobotDataset("local/x", root=tmp_path / "set")
    assert dataset.meta.depth_keys == [depth_key(WRIST)]
    assert dataset.meta.features[depth_key(WRIST)]["info"] == {
        "is_depth_map": True,
        "depth_unit": "mm",
        "depth_kind": "relative",
        "depth_model": str(depth_anything),
    }
    depth = dataset[7][depth_key(WRIST)]
    assert (depth.min(), depth.max()) == (1000, 8000)


def test_depth_as_images_beside_a_video_is_exact(source: Path, pixel_depth: Path, tmp_path: Path) -> None:
    label_depth(config(source, tmp_path / "set", pixel_depth, cameras=[FRONT], storage="image"))
    dataset = LeRobotDataset("local/x", root=tmp_path / "set", return_uint8=True)
    assert dataset.meta.features[depth_key(FRONT)]["dtype"] == "image"
    assert not (tmp_path / "set/videos" / depth_key(FRONT)).exists()
    for index in range(len(dataset)):
        item = dataset[index]
        np.testing.assert_array_equal(item[depth_key(FRONT)][0], pixels_as_millimetres(item[FRONT].numpy()))


@pytest.mark.parametrize("storage", ["camera", "image"])
def test_smaller_depth_is_that_of_the_same_places(
    source: Path, pixel_depth: Path, tmp_path: Path, storage: str
) -> None:
    label_depth(config(source, tmp_path / "set", pixel_depth, cameras=[FRONT], storage=storage, max_side=48))
    dataset = LeRobotDataset("local/x", root=tmp_path / "set", return_uint8=True)
    item = dataset[4]
    whole = torch.from_numpy(pixels_as_millimetres(item[FRONT].numpy()).astype(np.float32))[None, None]
    height, width = whole.shape[-2:]
    small = item[depth_key(FRONT)]
    assert max(small.shape) == 48 < max(height, width)
    assert small.shape[-2] / small.shape[-1] == pytest.approx(height / width, rel=0.01)
    expected = torch.nn.functional.interpolate(whole, small.shape[-2:], mode="nearest-exact")[0]
    np.testing.assert_allclose(small, expected.clip(10, 10000), atol=VIDEO_STEP)
    assert tuple(dataset.meta.features[depth_key(FRONT)]["shape"]) == (*small.shape[-2:], 1)
    settings = GemConfig(preset="tiny", device="cpu", dtype="float32")
    policy, preprocess, _ = build_policy(settings, tmp_path / "set")
    loss, logs = policy.forward(preprocess(read_batch(tmp_path / "set", (0, 12))))
    assert loss.isfinite() and logs["images_without_depth"] == 0


@pytest.mark.slow
def test_worker_processes_decode_the_same(
    labelled: Path, source: Path, pixel_depth: Path, tmp_path: Path
) -> None:
    label_depth(config(source, tmp_path / "set", pixel_depth, num_workers=2))
    assert tree(tmp_path / "set") == tree(labelled)


def test_what_finishes_elsewhere_opens_no_model(
    labelled: Path, source: Path, pixel_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the last job of a cluster does, which has the pickled work alone."""
    root, finish = tmp_path / "set", []
    monkeypatch.setattr(
        labelling,
        "run_phases",
        lambda config, staging, phases, last, **_: (phases[0].run(0, 1), finish.append(pickle.dumps(last)))[
            0
        ],
    )
    label_depth(config(source, root, pixel_depth))
    monkeypatch.setattr(labelling.DepthModel, "load", None)
    pickle.loads(finish[0])()
    assert tree(root) == tree(labelled)


@pytest.mark.slow
def test_any_number_of_tasks_writes_the_same_files(
    source: Path, depth_anything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more change the last bits of what a model predicts
    for tasks in (1, 3):
        options = {"depth_type": None, "cameras": [WRIST], "tasks": tasks}
        label_depth(config(source, tmp_path / str(tasks), depth_anything, **options))
    assert tree(tmp_path / "1") == tree(tmp_path / "3")


def test_the_policy_trains_on_it(source: Path, depth_anything: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    label_depth(config(source, root, depth_anything, depth_type=None))
    settings = GemConfig(preset="tiny", device="cpu", dtype="float32", stage="connector")
    policy, preprocess, _ = build_policy(settings, root)
    assert policy.config.built.depth_cameras == {camera: depth_key(camera) for camera in (FRONT, WRIST)}
    loss, logs = policy.forward(preprocess(read_batch(root, (0, 12, 26))))
    assert loss.isfinite() and logs["frames_with_depth"] == 1.0 and logs["images_without_depth"] == 0


# -- interrupted runs ----------------------------------------------------------------------------------------------------


def test_resumes_without_loss_or_repetition(
    labelled: Path, source: Path, pixel_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, close, finished = tmp_path / "set", labelling.EpisodeDepthWriter.close, []

    def interrupted_in_the_third(writer) -> None:
        if len(finished) == 2:
            raise KeyboardInterrupt
        finished.append(writer)
        close(writer)

    monkeypatch.setattr(labelling.EpisodeDepthWriter, "close", interrupted_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        label_depth(config(source, root, pixel_depth))
    assert not root.exists()
    monkeypatch.setattr(labelling.EpisodeDepthWriter, "close", close)

    with pytest.raises(FileExistsError, match=r"unfinished labelling.*--resume=true"):
        label_depth(config(source, root, pixel_depth))
    with pytest.raises(ValueError, match="started with other settings"):
        label_depth(config(source, root, pixel_depth, resume=True, cameras=[WRIST]))

    again: list = []
    monkeypatch.setattr(labelling.EpisodeDepthWriter, "close", lambda w: (again.append(w), close(w))[1])
    label_depth(config(source, root, pixel_depth, resume=True))
    assert len(again) == len(LENGTHS) - 2
    assert tree(root) == tree(labelled)


def launched(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int) -> None:
    """Let `label_depth` be one of the processes of `accelerate launch`."""
    state = SimpleNamespace(
        process_index=rank,
        num_processes=processes,
        is_main_process=rank == 0,
        is_local_main_process=rank == 0,
        wait_for_everyone=lambda: None,
        main_process_first=nullcontext,
    )
    monkeypatch.setattr("accelerate.PartialState", lambda **_: state)


def test_another_number_of_processes_resumes(
    labelled: Path, source: Path, pixel_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(source, tmp_path / "set", pixel_depth, resume=True)
    launched(monkeypatch, 1, 4)
    assert label_depth(settings) is None
    assert [path.name for path in (tmp_path / "set.labelling").glob("episode-*")] == ["episode-000001"]
    launched(monkeypatch, 0, 2)
    with pytest.raises(FileNotFoundError, match=r"lacks the depth of the episodes \[3\]: expected .* all 4"):
        label_depth(settings)
    launched(monkeypatch, 1, 2)
    label_depth(settings)
    launched(monkeypatch, 0, 2)
    assert label_depth(settings) is not None
    assert tree(tmp_path / "set") == tree(labelled)


def test_weights_are_read_where_frames_are_labelled(
    source: Path, pixel_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, devices = labelling.DepthModel.load, []

    def noted(config: DepthModelConfig, device: torch.device) -> labelling.DepthModel:
        devices.append(device.type)
        return load(config, device)

    monkeypatch.setattr(labelling.DepthModel, "load", noted)
    monkeypatch.setattr(labelling, "run_phases", lambda *arguments, **named: None)  # as with Slurm
    label_depth(config(source, tmp_path / "set", pixel_depth))
    assert devices == ["meta"]


def test_nothing_is_overwritten_without_being_told(
    labelled: Path, source: Path, pixel_depth: Path, tmp_path: Path
) -> None:
    before = tree(labelled)
    for change in ({}, {"resume": True}):
        with pytest.raises(FileExistsError, match=r"exists already.*--overwrite=true"):
            label_depth(config(source, labelled, pixel_depth, **change))
    assert tree(labelled) == before
    other, root = tmp_path / "other", tmp_path / "set"
    other.mkdir()
    (other / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"holds no meta/info.json: .* is not replaced"):
        label_depth(config(source, other, pixel_depth, overwrite=True))
    shutil.copytree(source, root)
    with pytest.raises(ValueError, match="Can't load the depth model"):
        label_depth(config(source, root, tmp_path / "no_model", overwrite=True))
    assert tree(root) == tree(source)  # replaced at the end, not before
    label_depth(config(source, root, pixel_depth, overwrite=True))
    assert tree(root) == before


@pytest.mark.parametrize("place", ["", "labelled", ".."])
def test_the_labelled_dataset_is_never_written_to(source: Path, pixel_depth: Path, place: str) -> None:
    with pytest.raises(ValueError, match=r"output.root is .* is never changed: choose a folder outside"):
        label_depth(config(source, (source / place).resolve(), pixel_depth, overwrite=True))


# -- bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
        ({"num_workers": -1}, "num_workers=-1: expected at least 0"),
        ({"max_side": 16}, "max_side=16: expected at least 32"),
        ({"storage": "video"}, "storage='video' is unknown: expected one of 'camera', 'image'"),
        ({"resume": True, "overwrite": True}, "contradict"),
    ],
)
def test_wrong_settings(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(tmp_path, tmp_path / "set", tmp_path, **change)


def test_parses_from_the_command_line() -> None:
    parsed = draccus.parse(
        LabelDepthConfig,
        args=["--dataset.repo_id=me/set", "--cameras=[a, b]", "--model.depth_type=metric", "--output.root=x"],
    )
    assert parsed.output == OutputDataset(Path("x"), "local/x")
    assert parsed.cameras == ["a", "b"] and parsed.model.depth_type == "metric"
    assert parsed.model.pretrained == "depth-anything/Depth-Anything-V2-Small-hf"


def test_a_dataset_is_labelled_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset.episodes=\[0\]: .* as a whole"):
        LabelDepthConfig(DatasetOptions("me/set", episodes=[0]), OutputDataset(tmp_path / "set"))


def test_cameras_that_can_not_be_labelled(
    labelled: Path, source: Path, depth_dataset_root: Path, pixel_depth: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"cameras names \['top'\], but the RGB cameras .* \['{FRONT}', "):
        label_depth(config(source, tmp_path / "set", pixel_depth, cameras=["top"]))
    with pytest.raises(ValueError, match=rf"cameras names \['{depth_key(WRIST)}'\]"):
        label_depth(config(labelled, tmp_path / "set", pixel_depth, cameras=[depth_key(WRIST)]))
    with pytest.raises(ValueError, match=rf"\['{CAMERAS[0]}', .* have depth already .*there are none"):
        label_depth(config(depth_dataset_root, tmp_path / "set", pixel_depth))
    assert not list(tmp_path.iterdir())


def test_depth_that_is_there_stays(source: Path, pixel_depth: Path, tmp_path: Path) -> None:
    label_depth(config(source, tmp_path / "one", pixel_depth, cameras=[WRIST]))
    with pytest.raises(ValueError, match=rf"\['{WRIST}'\] have depth already.*are \['{FRONT}'\]"):
        label_depth(config(tmp_path / "one", tmp_path / "both", pixel_depth))
    label_depth(config(tmp_path / "one", tmp_path / "both", pixel_depth, cameras=[FRONT]))
    one, both = (LeRobotDataset("local/x", root=tmp_path / name) for name in ("one", "both"))
    assert both.meta.depth_keys == [depth_key(WRIST), depth_key(FRONT)]
    np.testing.assert_array_equal(both[20][depth_key(WRIST)], one[20][depth_key(WRIST)])


def test_a_dataset_that_is_not_there(pixel_depth: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No dataset in .*nowhere.*meta/info.json"):
        label_depth(config(tmp_path / "nowhere", tmp_path / "set", pixel_depth))
    assert not (tmp_path / "nowhere").exists()
    settings = config(tmp_path, tmp_path / "set", pixel_depth)
    settings.dataset = DatasetOptions("nobody/no-such-data-set")
    with pytest.raises(OSError, match="Can't read the dataset 'nobody/no-such-data-set'.*network"):
        label_depth(settings)


def test_an_older_format_names_lerobots_converter(source: Path, pixel_depth: Path, tmp_path: Path) -> None:
    old = shutil.copytree(source, tmp_path / "old")
    info = json.loads((old / "meta/info.json").read_text())
    for version in ("v2.1", "v2.0"):
        (old / "meta/info.json").write_text(json.dumps({**info, "codebase_version": version}))
        with pytest.raises(
            ValueError, match=f"format {version}.*convert_dataset_v21_to_v30 --repo-id=local/mixed"
        ):
            label_depth(config(old, tmp_path / "set", pixel_depth))


def test_an_empty_dataset(pixel_depth: Path, tmp_path: Path) -> None:
    features = {FRONT: {"dtype": "image", "shape": (8, 8, 3), "names": ["height", "width", "channels"]}}
    LeRobotDataset.create("local/x", fps=5, root=tmp_path / "empty", features=features, use_videos=False)
    with pytest.raises(ValueError, match="'local/mixed' has no frames"):
        label_depth(config(tmp_path / "empty", tmp_path / "set", pixel_depth))


# -- as a command, with processes that die and disks that fill -----------------------------------------------------------


def command(source: Path, output: Path, model: Path, *more: str) -> list[str]:
    return [
        "lerobot_gem.scripts.label_depth",
        "--dataset.repo_id=local/mixed",
        f"--dataset.root={source}",
        f"--output.root={output}",
        f"--model.pretrained={model}",
        "--num_workers=0",
        "--batch_size=5",
        *more,
    ]


# torchrun gives each process one thread; the number of threads changes the last bits of what a model predicts.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def assert_alike(found: Path, expected: Path) -> None:
    """The same files, and videos of the same depth, whose bytes alone differed once in dozens of runs, with the machine under load."""
    files, expected_files = tree(found), tree(expected)
    assert files.keys() == expected_files.keys()
    other = {name for name in files if files[name] != expected_files[name]}
    assert all(name.startswith(f"videos/{depth_key(FRONT)}/") for name in other), other
    if other:
        datasets = [LeRobotDataset("local/x", root=root) for root in (found, expected)]
        for index in range(sum(LENGTHS)):
            depth, expected_depth = (dataset[index][depth_key(FRONT)] for dataset in datasets)
            np.testing.assert_allclose(depth, expected_depth, atol=2 * VIDEO_STEP)


@pytest.mark.slow
def test_a_killed_run_resumes_and_processes_share_the_work(
    source: Path,
    depth_anything: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    monkeypatch.setattr(sys, "argv", command(source, whole, depth_anything))
    main()
    said = capsys.readouterr().out
    assert "Process 1 of 1 on cpu: 4 of 4 episodes" in said
    assert f"{depth_key(FRONT)}: {sum(LENGTHS)} frames, relative, 1.000 to 8.000 m" in said
    assert f"Read it with --dataset.repo_id=local/whole --dataset.root={whole}" in said

    arguments = command(source, killed, depth_anything)
    process = subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.DEVNULL, env=ONE_THREAD)
    staging, until = tmp_path / "killed.labelling", time.monotonic() + 300
    while not list(staging.glob("episode-*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not killed.exists() and list(staging.glob("episode-*"))

    resumed = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "-m",
            *arguments,
            "--resume=true",
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env=ONE_THREAD,
    )
    assert resumed.returncode == 0, resumed.stderr
    for number in (1, 2):
        assert f"Process {number} of 2 on cpu" in resumed.stdout
    assert_alike(killed, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def tmpfs(folder: Path, megabytes: float) -> list[str]:
    """A command that runs another one with a small real file system at `folder`, gone with it."""
    mount = f'mount -t tmpfs -o size={int(megabytes * 1024)}k none {folder} && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]


@pytest.mark.slow
@pytest.mark.parametrize(("megabytes", "stage"), [(0.03, "labelling"), (0.2, "writing the dataset")])
def test_a_full_disk_leaves_nothing_that_loads(
    source: Path, depth_anything: Path, tmp_path: Path, megabytes: float, stage: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    small = tmpfs(disk, megabytes)
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces, for a file system that is really full")
    listing = (
        f'"$@"; status=$?; find {disk} -name "*.json" -o -name "set*" -o -name "episode-*" ; exit $status'
    )
    full = subprocess.run(
        [
            *small,
            "sh",
            "-c",
            listing,
            "sh",
            sys.executable,
            "-m",
            *command(source, disk / "set", depth_anything),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(disk)},
        timeout=600,
    )
    assert full.returncode != 0
    assert f"No space left on the disk of {disk}/set" in full.stderr and "--resume=true" in full.stderr, (
        full.stderr
    )
    assert f"{disk}/set\n" not in full.stdout and "info.json" not in full.stdout, full.stdout
    assert (f"episode-{len(LENGTHS) - 1:06d}" in full.stdout) == (stage != "labelling"), full.stdout
