"""Strips and scores of generated depth, of a tiny checkpoint on a tiny dataset."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.import_utils import is_package_available
from PIL import Image

from lerobot_gem.evaluation.depth_report import (
    DepthReportConfig,
    draw_strips,
    read_policy_config,
    table,
    write_depth_report,
)
from lerobot_gem.models.depth_generator import DepthGenerator
from lerobot_gem.policies.base_options import BackboneConfig
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.depth_target import depth_target
from lerobot_gem.storage.opening import DatasetOptions
from tests.conftest import CAMERAS, EPISODES, FRAMES, blank_depth, build_policy, write_dataset
from tests.policies.test_adapters import LORA, save_adapter

SIZE = 64


def save(folder: Path, config: PreTrainedConfig, root: Path) -> Path:
    for part in build_policy(config, root):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(depth_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = GemConfig(preset="tiny", device="cpu", dtype="float32")
    return save(tmp_path_factory.mktemp("gem"), config, depth_dataset_root)


def request(checkpoint: Path, root: Path, output: Path, **options) -> DepthReportConfig:
    small = ["--depth.num_inference_steps=1", f"--depth.max_side={SIZE}"]
    policy = read_policy_config(str(checkpoint), small)
    dataset = DatasetOptions("local/noise", root, options.pop("episodes", None))
    return DepthReportConfig(**{"dataset": dataset, "output_dir": output, "policy": policy, **options})


def test_strips_video_and_scores(checkpoint, depth_dataset_root, tmp_path):
    output = tmp_path / "viz"
    reports = write_depth_report(
        request(checkpoint, depth_dataset_root, output, num_frames=4, batch_size=3, fps=5)
    )

    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["num_inference_steps"] == 1
    assert list(metrics["cameras"]) == list(reports) == list(CAMERAS)
    dataset = LeRobotDataset("local/noise", root=depth_dataset_root, depth_output_unit="m")
    files = sorted((output / "frames").iterdir())
    for row, camera in enumerate(CAMERAS):
        found = metrics["cameras"][camera]
        assert (found["n"], found["skipped"]) == (4, 0)
        assert [frame["file"] for frame in found["frames"]] == [file.name for file in files]
        assert [frame["index"] for frame in found["frames"]] == [0, 10, 19, 29]
        assert [frame["episode_index"] for frame in found["frames"]] == [0, 1, 1, 2]
        assert list(found["mean"]) == ["generated", "swapped", "flat", "target"]
        for name in found["mean"]:
            first = 1 if name == "swapped" else 0
            each = [frame["scores"][name]["abs_rel"] for frame in found["frames"][first:]]
            assert found["mean"][name]["abs_rel"] == pytest.approx(np.mean(each))
        mean = found["mean"]
        # Depth here is noise, whose colours blend when they are scaled; an untrained generator knows nothing of it.
        assert mean["target"]["rank_correlation"] > 0.5 > 0.2 > abs(mean["generated"]["rank_correlation"])
        assert mean["target"]["abs_rel"] < mean["generated"]["abs_rel"]

        for file, frame in zip(files, found["frames"], strict=True):
            strip = np.asarray(Image.open(file))
            assert strip.shape == (len(CAMERAS) * SIZE, 3 * SIZE, 3)
            rgb, true, generated = np.split(strip[row * SIZE : (row + 1) * SIZE], 3, axis=1)
            item = dataset[frame["index"]]
            assert rgb.tolist() == (item[camera] * 255).round().byte().movedim(0, 2).tolist()
            target = depth_target(item[f"{camera}_depth"][None], colormap="spectral", max_side=SIZE)
            assert (
                true.tolist()
                == draw_strips([[item[camera], target.pictures[0] / 2 + 0.5]])[:, SIZE:].tolist()
            )
            assert generated.std() > 0 and not np.array_equal(generated, true)

    with av.open(str(output / "depth.mp4")) as video:
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in video.decode(video=0)]
        assert video.streams.video[0].average_rate == 5
    assert shapes == [strip.shape] * 4
    assert table(reports).count("\n") == 8
    assert f"{reports[CAMERAS[1]].mean['target'].abs_rel:7.3f}" in table(reports).splitlines()[-1]


def test_the_seed_and_the_episodes_decide(checkpoint, depth_dataset_root, tmp_path):
    def strips(name: str, **options) -> tuple[list[bytes], list[int]]:
        output = tmp_path / name
        config = request(checkpoint, depth_dataset_root, output, num_frames=2, episodes=[1], **options)
        frames = write_depth_report(config)[CAMERAS[0]].frames
        files = [(output / "frames" / frame["file"]).read_bytes() for frame in frames]
        return files, [frame["index"] for frame in frames]

    first, indices = strips("first")
    assert indices == [FRAMES, 2 * FRAMES - 1]
    assert strips("again")[0] == first
    assert strips("other", seed=1)[0] != first


def test_a_frames_noise_is_its_own(checkpoint, depth_dataset_root, tmp_path, monkeypatch):
    """Whatever frames share its batch; pictures of batches of other sizes differ by rounding alone, so the noise is compared."""
    sample = DepthGenerator.sample

    def spy(self, *inputs, generator, **options):
        seeds.append([each.initial_seed() for each in generator])
        return sample(self, *inputs, generator=generator, **options)

    monkeypatch.setattr(DepthGenerator, "sample", spy)
    by_size = []
    for size in (1, 2):
        seeds: list[list[int]] = []
        output = tmp_path / str(size)
        write_depth_report(request(checkpoint, depth_dataset_root, output, num_frames=2, batch_size=size))
        by_size.append([seed for call in seeds[:: len(CAMERAS)] for seed in call])
    assert len(by_size[0]) == 2 and by_size[0] == by_size[1] and by_size[0][0] != by_size[0][1]


def test_frames_without_depth_are_skipped_and_counted(checkpoint, tmp_path):
    """Here the wrist's depth is missing throughout episode 1."""
    root = write_dataset(tmp_path / "data", depth=True)
    blank_depth(root, f"{CAMERAS[1]}_depth", episodes=[1])
    reports = write_depth_report(request(checkpoint, root, tmp_path / "all", num_frames=EPISODES))
    assert [(len(report.frames), report.skipped) for report in reports.values()] == [(3, 0), (2, 1)]


def test_a_camera_without_any_valid_depth_leaves_the_others_their_scores(checkpoint, tmp_path, caplog):
    root = write_dataset(tmp_path / "data", depth=True)
    blank_depth(root, f"{CAMERAS[1]}_depth", episodes=[1])
    output = tmp_path / "viz"
    reports = write_depth_report(request(checkpoint, root, output, num_frames=2, episodes=[1]))
    assert (
        "No depth in 2 frames of 'observation.images.image2_depth' of 'local/noise': expected" in caplog.text
    )
    found = json.loads((output / "metrics.json").read_text())["cameras"]
    assert [(found[camera]["n"], found[camera]["skipped"]) for camera in CAMERAS] == [(2, 0), (0, 2)]
    assert found[CAMERAS[0]]["mean"]["generated"] and not found[CAMERAS[1]]["mean"]
    assert table(reports).splitlines()[-1].split() == [CAMERAS[1], "0", "2"]


def test_no_valid_depth_at_all_is_an_error_and_leaves_room_for_another_try(checkpoint, tmp_path):
    root = write_dataset(tmp_path / "data", depth=True)
    for camera in CAMERAS:
        blank_depth(root, f"{camera}_depth", episodes=[1])
    with pytest.raises(
        ValueError, match=r"No depth in 1 frames of '.*_depth' of 'local/noise': .*depth_unit"
    ):
        write_depth_report(request(checkpoint, root, tmp_path / "viz", num_frames=1, episodes=[1]))
    write_depth_report(request(checkpoint, root, tmp_path / "viz", num_frames=1, episodes=[0]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_frames": 0}, ValueError, r"num_frames=0: expected at least 1"),
        ({"batch_size": 0}, ValueError, r"batch_size=0: expected at least 1"),
        ({"fps": 0}, ValueError, r"fps=0: expected at least 1"),
        ({"policy": None}, ValueError, r"No policy: expected --policy.path=<gem checkpoint>"),
        ({"episodes": [3]}, ValueError, r"dataset.episodes=\[3\] of 'local/noise': expected some of 0 to 2"),
        ({"episodes": []}, ValueError, r"dataset.episodes=\[\] of 'local/noise'"),
    ],
)
def test_bad_options_are_named(checkpoint, depth_dataset_root, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        write_depth_report(request(checkpoint, depth_dataset_root, tmp_path / "viz", **options))
    assert not (tmp_path / "viz").exists()


def test_nothing_is_overwritten(checkpoint, depth_dataset_root, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"output_dir=.* exists and is not an empty folder"):
        write_depth_report(request(checkpoint, depth_dataset_root, tmp_path))


def test_a_policy_that_acts_is_named(dataset_root, tmp_path):
    config = GemVLAConfig(preset="tiny", device="cpu", dtype="float32", chunk_size=4)
    policy = build_policy(config, dataset_root)[0].config
    policy.pretrained_path = tmp_path / "gem_vla"
    asked = DepthReportConfig(DatasetOptions("local/noise", dataset_root), tmp_path / "viz", policy)
    with pytest.raises(ValueError, match=r"gem_vla is a 'gem_vla' checkpoint: expected a 'gem' checkpoint"):
        write_depth_report(asked)


def test_an_adapter_is_named(checkpoint, depth_dataset_root, tmp_path):
    started = BackboneConfig(pretrained=str(checkpoint))
    config = GemConfig(preset="tiny", device="cpu", dtype="float32", stage="generator", backbone=started)
    policy, *processors = build_policy(config, depth_dataset_root)
    adapter = save_adapter(tmp_path / "lora", policy.wrap_with_peft(peft_cli_overrides=LORA), *processors)
    with pytest.raises(
        ValueError, match=r"policy.path=.*lora is an adapter: .*--format=policy for anything else"
    ):
        write_depth_report(request(Path(adapter), depth_dataset_root, tmp_path / "viz"))
    assert not (tmp_path / "viz").exists()


def test_a_policy_that_paints_no_depth_is_named(checkpoint, depth_dataset_root, tmp_path):
    config = request(checkpoint, depth_dataset_root, tmp_path / "viz")
    config.policy.depth.target = "rgb"
    with pytest.raises(ValueError, match=r"paints no depth, but depth.target='rgb', the camera's picture"):
        write_depth_report(config)


@pytest.mark.parametrize("layout", ["released", "nowhere", "nobody/no-such-policy"])
def test_what_is_no_policy_is_named(tmp_path, layout):
    path = {"released": tmp_path, "nowhere": tmp_path / "nowhere"}.get(layout, layout)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(
        ValueError, match=rf"No policy at policy.path={path} .*expected the folder pretrained"
    ):
        read_policy_config(str(path), [])


def test_data_that_does_not_fit_is_named(checkpoint, dataset_root, depth_dataset_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No dataset in .*nowhere: expected .* meta/info.json"):
        write_depth_report(request(checkpoint, tmp_path / "nowhere", tmp_path / "viz"))
    with pytest.raises(ValueError, match=r"No depth camera in 'local/noise': .*lerobot-gem-label-depth"):
        write_depth_report(request(checkpoint, dataset_root, tmp_path / "viz"))
    asked = request(checkpoint, depth_dataset_root, tmp_path / "viz")
    asked.policy.input_features["observation.images.top"] = asked.policy.input_features.pop(CAMERAS[0])
    with pytest.raises(ValueError, match=r"lacks the camera\(s\) \['observation.images.top'\]"):
        write_depth_report(asked)


def test_a_camera_without_depth_is_left_out(checkpoint, depth_dataset_root, tmp_path, caplog):
    asked = request(checkpoint, depth_dataset_root, tmp_path / "viz", num_frames=1)
    asked.policy.depth.cameras = {CAMERAS[1]: f"{CAMERAS[1]}_depth"}
    assert list(write_depth_report(asked)) == [CAMERAS[1]]
    assert f"{CAMERAS[0]} is left out: 'local/noise' has no depth for it" in caplog.text
    [file] = (tmp_path / "viz" / "frames").iterdir()
    assert Image.open(file).size == (3 * SIZE, SIZE)

    asked = request(checkpoint, depth_dataset_root, tmp_path / "none")
    asked.policy.depth.cameras = {}
    with pytest.raises(ValueError, match=r"No depth for the cameras .* in 'local/noise'"):
        write_depth_report(asked)


@pytest.mark.skipif(is_package_available("rerun-sdk", "rerun"), reason="rerun is installed")
def test_display_without_rerun_names_the_install(checkpoint, depth_dataset_root, tmp_path):
    with pytest.raises(ImportError, match=r"'rerun-sdk' is required .*pip install 'lerobot\[viz\]'"):
        write_depth_report(request(checkpoint, depth_dataset_root, tmp_path / "viz", display=True))
    assert not (tmp_path / "viz").exists()


def test_rows_of_any_size_make_one_sheet_of_even_sides():
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=random) for size in ((5, 7), (10, 14), (4, 6))]
    sheet = draw_strips([images[:2], images[2:]])
    assert sheet.shape == (10, 14, 3)
    expected = (images[2] * 255).round().byte().movedim(0, 2).numpy()
    assert (sheet[5:9, :6] == expected).all()
    assert (sheet[5:9, 6:] == 0).all()
