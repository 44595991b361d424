"""Depth labels: a copy of a LeRobotDataset whose cameras have the depth that a model predicts.

An episode's depth is a function of the episode alone, so that it does not matter how many processes share the work or how
often the run was interrupted. A finished episode is kept on disk at once, in a folder beside the new dataset; when all are
there, the dataset is written from them and the folder disappears. The labelled dataset is only read.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from lerobot_gem.data.depth_labels.depth_model import DepthModel, DepthModelConfig
from lerobot_gem.processing.depth_cameras import is_depth
from lerobot_gem.storage.depth_columns import add_depth_features, depth_key
from lerobot_gem.storage.depth_files import DepthSummary, EpisodeDepthWriter
from lerobot_gem.storage.opening import require_current_format
from lerobot_gem.storage.output_folder import (
    DATASET,
    begin_or_resume,
    check_output,
    check_unfinished,
    explained_full_disk,
    publish,
    removed_on_error,
)

STORAGES = ("camera", "image")

_WORK = "labelling"  # in messages about unfinished ones
# Processes wait for the slowest, and the default of torch.distributed gives up after 10 to 30 minutes.
_PATIENCE = timedelta(days=30)


@dataclass
class SourceConfig:
    """The dataset to label.

    Attributes:
        repo_id: Hub id, or any name of a dataset at `root`.
        root: Folder of a local dataset; None takes LeRobot's folder of `repo_id`, or the Hub.
        revision: Branch, tag or commit on the Hub.
    """

    repo_id: str
    root: Path | None = None
    revision: str | None = None


@dataclass
class OutputConfig:
    """The dataset to write.

    Attributes:
        repo_id: LeRobot's name of it; None appends `_depth` to the labelled one's.
        root: Its folder; None takes LeRobot's folder of `repo_id`.
    """

    repo_id: str | None = None
    root: Path | None = None


@dataclass
class LabelDepthConfig:
    """What to label, with what, and where to put it.

    Attributes:
        dataset: The dataset to label, which stays as it is.
        output: The dataset to write.
        model: The depth-estimation model.
        cameras: Features to label; all RGB cameras when empty.
        storage: How depth is stored: `camera`, as its camera is (videos beside videos), or `image`, which is quicker to read beside
            videos unless the policy has long action chunks (docs/data_depth_labels.md).
        max_side: Longest side of the depth in pixels; None is its camera's. What is more than `depth.max_side` of the training
            (256 in the release's VLA stage) costs space and reading time alone.
        batch_size: Frames that go through the model together.
        num_workers: Processes that decode frames, for each process that labels; 0 decodes in between.
        resume: Go on with an interrupted run.
        overwrite: Replace the dataset at `output.root`, and an interrupted run.
    """

    dataset: SourceConfig
    output: OutputConfig = field(default_factory=OutputConfig)
    model: DepthModelConfig = field(default_factory=DepthModelConfig)
    cameras: list[str] = field(default_factory=list)
    storage: str = "camera"
    max_side: int | None = None
    batch_size: int = 16
    num_workers: int = 4
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, bound in {"batch_size": 1, "num_workers": 0, "max_side": 32}.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}, but is {value}.")
        if self.storage not in STORAGES:
            raise ValueError(f"storage must be one of {', '.join(STORAGES)}, but is {self.storage!r}.")
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite contradict each other: choose one.")
        self.output.repo_id = self.output.repo_id or f"{self.dataset.repo_id}_depth"


@dataclass(frozen=True)
class CameraReport:
    """The depth of one camera.

    Attributes:
        key: Its feature.
        kind: `metric` or `relative`.
        frames: Labelled.
        usable: Share of the pixels that training takes for valid depth.
        nearest: Metres, in the whole dataset; 0 where the model predicted none somewhere.
        median: Metres, the mean of the episodes' medians.
        farthest: Metres.
    """

    key: str
    kind: str
    frames: int
    usable: float
    nearest: float
    median: float
    farthest: float


def label_depth(config: LabelDepthConfig) -> list[CameraReport]:
    """Label a dataset with depth. Started by `accelerate launch` or torchrun, the processes share the episodes.

    Returns:
        One report per camera; empty in all processes but the main one.

    Raises:
        FileExistsError: Something is at `output.root` (or unfinished beside it), and neither `resume` nor `overwrite`
            is set, or it is no dataset.
        ValueError: `output.root` is in the dataset or around it; the dataset is not in format v3.0 or has no frames; a
            camera is unknown or has depth; the model can't be loaded or does not tell its kind; a continuation with other
            settings.
        OSError: The dataset can't be read, or the disk is full.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env
    from lerobot.utils.constants import HF_LEROBOT_HOME

    # Without cpu=True, processes that torchrun started on a machine without GPU would not know of each other.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    root = config.output.root or HF_LEROBOT_HOME / cast(str, config.output.repo_id)
    staging = root.with_name(root.name + ".labelling")
    _check_room(config, root, staging)
    state.wait_for_everyone()
    with state.main_process_first():  # which fills the caches of datasets and models
        dataset = _open(config.dataset)
        cameras = _choose_cameras(dataset.meta.features, config.cameras)
        storage = {
            camera: "image" if config.storage == "image" else dataset.features[camera]["dtype"]
            for camera in cameras
        }
        model = DepthModel.load(config.model, state.device)
    if state.is_main_process:
        begin_or_resume(
            staging,
            _settings(config, dataset, cameras),
            resume=config.resume,
            overwrite=config.overwrite,
            work=_WORK,
            decided_by="settings",
        )
    state.wait_for_everyone()
    folders = {episode: staging / f"episode-{episode:06d}" for episode in range(dataset.num_episodes)}
    missing = [episode for episode, folder in folders.items() if not folder.exists()]
    state.wait_for_everyone()  # before the first of them is there
    advice = (
        f"Finished episodes are kept in {staging}: free some space and run the same command with --resume=true, or delete "
        "that folder."
    )
    with explained_full_disk(root, advice):
        # (PartialState.split_between_processes gives the last one to several, where there are fewer than processes.)
        share = missing[state.process_index :: state.num_processes]
        print(
            f"Process {state.process_index + 1} of {state.num_processes} on {state.device.type}: {len(share)} of "
            f"{len(folders)} episodes"
        )
        chosen = {episode: folders[episode] for episode in share}
        _label_episodes(config, dataset, storage, model, chosen, state.is_local_main_process)
        state.wait_for_everyone()
        if not state.is_main_process:
            return []
        return _write(config, dataset.root, root, staging, folders, storage, model.kind)


# -- what to label -----------------------------------------------------------------------------------------------------


def _open(config: SourceConfig) -> Any:
    """The LeRobotDataset, downloaded if it is on the Hub only."""
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    require_current_format(config.repo_id, config.root)
    try:
        meta = LeRobotDatasetMetadata(config.repo_id, config.root, config.revision)
        if meta.total_frames == 0:
            raise ValueError(f"The dataset {config.repo_id!r} has no frames: there is nothing to label.")
        return LeRobotDataset(config.repo_id, config.root, revision=config.revision, return_uint8=True)
    except OSError as error:
        raise OSError(
            f"Can't read the dataset {config.repo_id!r}: {error} Expected the Hub id of a LeRobotDataset, which needs a "
            "network the first time, or a local folder in --dataset.root."
        ) from error


def _choose_cameras(features: dict[str, dict[str, Any]], asked: Sequence[str]) -> list[str]:
    """The cameras to label.

    Raises:
        ValueError: One is unknown, not RGB, or has depth; or there is none.
    """
    images = {key: feature for key, feature in features.items() if feature["dtype"] in ("image", "video")}
    known = [key for key, feature in images.items() if not is_depth(feature) and 3 in feature["shape"]]
    if unknown := [camera for camera in asked if camera not in known]:
        raise ValueError(f"cameras names {unknown}, but the RGB cameras of the dataset are {known}.")
    if not known:
        raise ValueError(f"The dataset has no RGB camera to label: its features are {sorted(features)}.")
    cameras = list(dict.fromkeys(asked)) or known
    if labelled := [camera for camera in cameras if depth_key(camera) in features]:
        others = [camera for camera in known if depth_key(camera) not in features]
        raise ValueError(
            f"The cameras {labelled} have depth already ({', '.join(map(depth_key, labelled))}): choose others with "
            f"--cameras{f', which are {others}' if others else '; there are none'}."
        )
    return cameras


def _settings(config: LabelDepthConfig, dataset: Any, cameras: list[str]) -> dict[str, Any]:
    """Everything that decides what the labels are: must agree between a run and its continuation."""
    info = (dataset.root / "meta" / "info.json").read_bytes()
    return {
        "dataset": {"repo_id": config.dataset.repo_id, "info_sha256": hashlib.sha256(info).hexdigest()},
        "cameras": cameras,
        "storage": config.storage,
        "max_side": config.max_side,
        "model": asdict(config.model),
        "batch_size": config.batch_size,
    }


# -- where to put it -----------------------------------------------------------------------------------------------------


def _check_room(config: LabelDepthConfig, root: Path, staging: Path) -> None:
    """Check that nothing is where the dataset goes, but what the user said is to be replaced or gone on with."""
    from lerobot.utils.constants import HF_LEROBOT_HOME

    source = (config.dataset.root or HF_LEROBOT_HOME / config.dataset.repo_id).resolve()
    if root.resolve().is_relative_to(source) or source.is_relative_to(root.resolve()):
        raise ValueError(
            f"output.root is {root}, but the dataset to label, {source}, is never changed: choose a folder outside of it."
        )
    check_output(root, config.overwrite, DATASET)
    check_unfinished(staging, config.resume or config.overwrite, _WORK)


# -- labelling -----------------------------------------------------------------------------------------------------------


class CameraFrames(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """A dataset's frames as training reads them, but of some cameras only.

    Args:
        dataset: A LeRobotDataset with `return_uint8`, not to be used for anything else.
        cameras: Features to read.
    """

    def __init__(self, dataset: Any, cameras: Sequence[str]) -> None:
        # The reader decodes every camera that the metadata and the table name.
        features = dataset.meta.features
        for key in [key for key in dataset.meta.camera_keys if key not in cameras]:
            del features[key]
        table = dataset.hf_dataset
        others = ("index", "episode_index", "timestamp", "task_index")
        dataset.reader.hf_dataset = table.select_columns(
            [key for key in table.column_names if key in cameras or key in others]
        )
        self._dataset = dataset
        self._cameras = cameras

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Camera -> (3, H, W) uint8.

        Raises:
            ValueError: The dataset's rows are not in the order of their `index`.
        """
        item = self._dataset[index]
        if item["index"] != index:
            raise ValueError(
                f"Row {index} of the dataset has index {item['index']}: expected rows in the order of their index, "
                "without which LeRobot's own reader mixes up frames too."
            )
        return {camera: _as_uint8(item[camera]) for camera in self._cameras}


def _as_uint8(image: torch.Tensor) -> torch.Tensor:
    """The bytes of an image, which LeRobot delivers in [0, 1] where it is stored as an image."""
    return image if image.dtype == torch.uint8 else (image * 255).round().to(torch.uint8)


def _label_episodes(
    config: LabelDepthConfig,
    dataset: Any,
    storage: Mapping[str, str],
    model: DepthModel,
    folders: dict[int, Path],
    show_progress: bool,
) -> None:
    """Write the depth of episodes to their folders."""
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    cameras = list(storage)
    kinds = {depth_key(camera): kind for camera, kind in storage.items()}
    batches = {episode: _batches(dataset, episode, config.batch_size) for episode in folders}
    loader = iter(
        DataLoader(
            CameraFrames(dataset, cameras),
            batch_sampler=[batch for parts in batches.values() for batch in parts],
            num_workers=config.num_workers,
            multiprocessing_context="spawn" if config.num_workers else None,
        )
    )
    total = sum(len(batch) for parts in batches.values() for batch in parts)
    with tqdm(total=total, unit="frame", desc="labelling", disable=not show_progress) as progress:
        for episode, folder in folders.items():
            writer = EpisodeDepthWriter(folder, kinds, dataset.fps)
            for _ in batches[episode]:
                images = next(loader)
                writer.add(
                    {
                        depth_key(camera): model.millimetres(images[camera], config.max_side)
                        for camera in cameras
                    }
                )
                progress.update(len(images[cameras[0]]))
            writer.close()


def _batches(dataset: Any, episode: int, size: int) -> list[list[int]]:
    """The frames of an episode, in order.

    Never with those of another: which frames share a batch changes the last bits of what a model predicts.
    """
    place = dataset.meta.episodes[episode]
    first, end = place["dataset_from_index"], place["dataset_to_index"]
    return [list(range(start, min(start + size, end))) for start in range(first, end, size)]


# -- the new dataset ----------------------------------------------------------------------------------------------------


def _write(
    config: LabelDepthConfig,
    source: Path,
    root: Path,
    staging: Path,
    folders: dict[int, Path],
    storage: Mapping[str, str],
    kind: str,
) -> list[CameraReport]:
    """Write the dataset inside of `staging` and move it to its place when complete."""
    partial = staging / "dataset"
    shutil.rmtree(partial, ignore_errors=True)
    info = {"depth_unit": "mm", "depth_kind": kind, "depth_model": config.model.pretrained}
    with removed_on_error(partial):  # room for another try
        summaries = add_depth_features(source, partial, folders, storage, info)
    reports = [_report(key, kind, episodes) for key, episodes in summaries.items()]
    settings = json.loads((staging / "settings.json").read_text())
    content = {"settings": settings, "cameras": [asdict(report) for report in reports]}
    (partial / "depth_labels.json").write_text(json.dumps(content, indent=1))
    publish(partial, root)
    shutil.rmtree(staging)
    return reports


def _report(key: str, kind: str, episodes: Sequence[DepthSummary]) -> CameraReport:
    frames = [episode.frames for episode in episodes]
    stats = {name: [episode.stats[name] / 1000 for episode in episodes] for name in ("min", "q50", "max")}
    return CameraReport(
        key=key,
        kind=kind,
        frames=sum(frames),
        usable=float(np.average([episode.usable for episode in episodes], weights=frames)),
        nearest=min(stats["min"]),
        median=float(np.average(stats["q50"], weights=frames)),
        farthest=max(stats["max"]),
    )
