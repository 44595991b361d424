"""Stage 0: an autoencoder of depth pictures that learns, and that the other stages take."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_gem.policies.base_configuration import DepthConfig
from lerobot_gem.processing.depth_target import depth_target
from lerobot_gem.storage.opening import DatasetOptions
from lerobot_gem.training.autoencoder import AutoencoderTrainingConfig, train_autoencoder
from tests.conftest import CAMERAS, FRAMES, blank_depth, write_dataset

SIDE = 64
DEPTH = [f"{camera}_depth" for camera in CAMERAS]


def request(root: Path, output: Path, **options) -> AutoencoderTrainingConfig:
    dataset = DatasetOptions("local/noise", root, options.pop("episodes", None))
    small = {"max_side": SIDE, "steps": 2, "batch_size": 4, "eval_frames": 3}
    return AutoencoderTrainingConfig(**{"dataset": dataset, "output_dir": output, **small, **options})


@pytest.fixture(scope="module")
def trained(depth_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """The report of a short training, and its folder."""
    folder = tmp_path_factory.mktemp("stage0") / "autoencoder"
    return train_autoencoder(request(depth_dataset_root, folder, steps=25)), folder


def held_out_pictures(root: Path) -> torch.Tensor:
    """Those of both cameras in three frames of the first episode, evenly spread."""
    dataset = LeRobotDataset("local/noise", root=root, depth_output_unit="m")
    depth = torch.stack([dataset[index][key] for index in (0, 4, 9) for key in DEPTH])
    return depth_target(depth, colormap="spectral", max_side=SIDE).pictures


def test_pictures_of_held_out_episodes_become_more_alike(trained, depth_dataset_root):
    report, folder = trained
    assert report.psnr_after > report.psnr_before + 1
    assert report.pictures == 6

    autoencoder = AutoencoderDC.from_pretrained(folder).eval()
    pictures = held_out_pictures(depth_dataset_root)
    with torch.no_grad():
        error = (autoencoder(pictures).sample - pictures).square().mean().item()
        latents = autoencoder.encode(pictures).latent * autoencoder.config.scaling_factor
    assert 10 * np.log10(4 / error) == pytest.approx(report.psnr_after, abs=1e-3)
    assert latents.square().mean().sqrt().item() == pytest.approx(1, rel=1e-3)
    assert autoencoder.config.scaling_factor == report.scaling_factor != 1


def test_the_first_stage_takes_it(trained, make_gem):
    report, folder = trained
    policy, *_ = make_gem(depth=DepthConfig(autoencoder=str(folder)), allow_untrained=False)
    assert policy.generator.autoencoder.config.scaling_factor == report.scaling_factor
    expected = AutoencoderDC.from_pretrained(folder).state_dict()
    own = policy.generator.autoencoder.state_dict()
    assert own.keys() == expected.keys()
    assert all(own[name].equal(weight) for name, weight in expected.items())


def test_the_seed_decides(depth_dataset_root, tmp_path):
    first, again, other = (
        train_autoencoder(request(depth_dataset_root, tmp_path / name, seed=seed))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again != other


def test_what_is_measured_is_not_learned(tmp_path):
    """The first of three episodes is held out, whichever those are."""
    root = write_dataset(tmp_path / "data", depth=True)
    for key in DEPTH:
        blank_depth(root, key, episodes=[1])
    with pytest.raises(ValueError, match=rf"No depth in {FRAMES} frames of 'local/noise'.*depth_unit"):
        train_autoencoder(request(root, tmp_path / "a", episodes=[0, 1]))
    with pytest.raises(ValueError, match=r"No depth in 3 frames of 'local/noise'"):
        train_autoencoder(request(root, tmp_path / "b", episodes=[1, 2]))
    assert train_autoencoder(request(root, tmp_path / "c", episodes=[0, 2])).pictures == 6


def test_cameras_of_different_sizes_are_learned_together(tmp_path):
    shapes = {"wide_depth": (32, 64, 1), "tall_depth": (64, 32, 1)}
    root = tmp_path / "data"
    dataset = LeRobotDataset.create(
        repo_id="local/shapes",
        root=root,
        fps=5,
        use_videos=False,
        features={
            f"observation.images.{name}": {
                "dtype": "image",
                "shape": shape,
                "names": ["height", "width", "channels"],
                "info": {"is_depth_map": True},
            }
            for name, shape in shapes.items()
        },
    )
    random = np.random.default_rng(0)
    for _ in range(2):
        for _ in range(2):
            depth = {
                f"observation.images.{name}": random.integers(300, 4500, shape, dtype=np.uint16)
                for name, shape in shapes.items()
            }
            dataset.add_frame({**depth, "task": "look"})
        dataset.save_episode()
    dataset.finalize()
    assert train_autoencoder(request(root, tmp_path / "out")).pictures == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"steps=0: expected at least 1"),
        ({"batch_size": 0}, r"batch_size=0: expected at least 1"),
        ({"eval_frames": 0}, r"eval_frames=0: expected at least 1"),
        ({"preset": "huge"}, r"Unknown preset 'huge'"),
        ({"colormap": "jet"}, r"Unknown colormap 'jet'"),
        ({"episodes": [1]}, r"'local/noise' has 1 episode: expected at least 2"),
        ({"episodes": [0, 9]}, r"dataset.episodes=\[0, 9\] of 'local/noise': expected some of 0 to 2"),
    ],
)
def test_bad_options_are_named(depth_dataset_root, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train_autoencoder(request(depth_dataset_root, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_data_without_depth_and_no_data_are_named(dataset_root, tmp_path):
    with pytest.raises(ValueError, match=r"No depth camera in 'local/noise': .*is_depth_map.*label-depth"):
        train_autoencoder(request(dataset_root, tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match=r"No dataset in .*nowhere"):
        train_autoencoder(request(tmp_path / "nowhere", tmp_path / "out"))


def test_nothing_is_overwritten(depth_dataset_root, tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(FileExistsError, match=r"output_dir=.* is not empty: take another folder"):
        train_autoencoder(request(depth_dataset_root, tmp_path))
