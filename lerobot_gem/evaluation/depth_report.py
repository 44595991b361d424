"""What a `gem` policy knows of geometry, to look at and in numbers: generated depth beside measured depth."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.configs import PreTrainedConfig, RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import encode_video_frames
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import PolicyProcessorPipeline
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lerobot_gem.checkpoints.adapters import check_whole
from lerobot_gem.evaluation.depth_metrics import DepthScores, score_depth
from lerobot_gem.policies.gem.configuration_gem import GemConfig
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.processing.depth_cameras import pair_depth
from lerobot_gem.processing.depth_target import Colormap, depth_target, is_inverse, relative_depth
from lerobot_gem.storage.frames import open_depth_dataset, read_frames
from lerobot_gem.storage.opening import DatasetOptions
from lerobot_gem.storage.output_folder import check_empty, removed_on_error
from lerobot_gem.training.draws import mixed_seed
from lerobot_gem.validation import require_at_least

logger = logging.getLogger(__name__)

# What is scored:
# `generated`, the generated depth image;
# `swapped`, the one that was generated for the frame before: what knowing the place, but not the frame, scores;
# `flat`, an image of one colour: what the alignment alone scores;
# `target`, the depth image that the generator is taught: what its colours and size allow at best.
SCORED = ("generated", "swapped", "flat", "target")


@dataclass
class DepthReportConfig:
    """Which policy to report on, and on which frames.

    Attributes:
        dataset: A dataset with depth for the policy's cameras.
        output_dir: Folder to write; absent or empty.
        policy: A `gem` checkpoint: --policy.path, with other fields of it overridden as in lerobot-eval, such as
            --policy.device or --policy.depth.num_inference_steps.
        num_frames: How many frames, evenly spread over the dataset.
        batch_size: Frames whose depth is generated at once.
        fps: Frames per second of the video.
        seed: Of the noise that depth is generated from.
        display: Show the strips in rerun too.
    """

    dataset: DatasetOptions
    output_dir: Path
    policy: PreTrainedConfig | None = None
    num_frames: int = 16
    batch_size: int = 8
    fps: int = 2
    seed: int = 1000
    display: bool = False

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """What LeRobot's parser lets come from a checkpoint."""
        return ["policy"]


@dataclass
class CameraReport:
    """Scores of one camera.

    Attributes:
        frames: Each frame's `file`, its `index` and `episode_index` in the dataset, and its `scores` by the names of
            `SCORED`; the first has no `swapped`.
        skipped: Frames without a depth map to compare with.
    """

    frames: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0

    @property
    def mean(self) -> dict[str, DepthScores]:
        """Means over the frames, by name."""
        found = {
            name: [frame["scores"][name] for frame in self.frames if name in frame["scores"]]
            for name in SCORED
        }
        return {
            name: DepthScores(*np.mean(scores, axis=0).tolist()) for name, scores in found.items() if scores
        }

    def as_json(self) -> dict[str, Any]:
        """`n`, `skipped`, `mean` and `frames`."""
        return {
            "n": len(self.frames),
            "skipped": self.skipped,
            "mean": _by_name(self.mean),
            "frames": [{**frame, "scores": _by_name(frame["scores"])} for frame in self.frames],
        }


def read_policy_config(path: str, overrides: list[str]) -> PreTrainedConfig:
    """The configuration of a checkpoint.

    Args:
        path: Hub id or folder.
        overrides: As on the command line, without "policy.".

    Raises:
        ValueError: There is no policy.
    """
    try:
        config = PreTrainedConfig.from_pretrained(path, cli_overrides=overrides)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"No policy at policy.path={path} ({error}): expected the folder pretrained_model/ of a 'gem' checkpoint, or "
            "its Hub id."
        ) from error
    config.pretrained_path = Path(path)
    return config


def write_depth_report(config: DepthReportConfig) -> dict[str, CameraReport]:
    """Generate the depth of some frames; write strips, a video and scores.

    Into `output_dir` go `frames/frame-<number>.png`, a row for each camera with its RGB image and the images of true and
    generated depth, in the same colours; `depth.mp4` of the same; and `metrics.json`. Cameras without depth are left out,
    with a warning; those without valid depth in these frames have no scores, with another one. After an error, nothing is left.

    Returns:
        Camera -> its scores.

    Raises:
        FileExistsError: `output_dir` is not empty.
        FileNotFoundError: No dataset at `dataset.root`.
        ImportError: `display` without rerun.
        ValueError: `policy` is no `gem` checkpoint, an adapter, or paints no depth; `num_frames`, `batch_size` or `fps` is below 1; or the
            dataset lacks the policy's cameras, or depth for them, or valid depth in all frames.
    """
    checkpoint = _checked(config)
    dataset = open_depth_dataset(config.dataset)
    pairs = _depth_of_cameras(checkpoint, dataset)
    if config.display:
        from lerobot.utils.rerun_visualization import init_rerun

        init_rerun("lerobot-gem-depth-viz")

    path = str(checkpoint.pretrained_path)
    policy = GemPolicy.from_pretrained(path, config=checkpoint)
    device = {"device_processor": {"device": str(checkpoint.device)}}
    preprocess, _ = make_pre_post_processors(checkpoint, pretrained_path=path, preprocessor_overrides=device)

    with removed_on_error(config.output_dir):  # room for another try
        reports = _write_frames(config, _frames(config, policy, preprocess, dataset, pairs), list(pairs))
        _check_found(reports, pairs, dataset)
        _write_metrics(config, checkpoint, reports)
    return reports


class _Frame(NamedTuple):
    """One frame.

    Attributes:
        place: Its `index` and `episode_index` in the dataset.
        rows: Camera -> its RGB image and depth images by name, (3, h, w) in [0, 1].
        scores: Camera -> scores by name; None without depth to compare with.
    """

    place: dict[str, int]
    rows: dict[str, dict[str, Tensor]]
    scores: dict[str, dict[str, DepthScores] | None]


def _frames(
    config: DepthReportConfig,
    policy: GemPolicy,
    preprocess: PolicyProcessorPipeline,
    dataset: LeRobotDataset,
    pairs: Mapping[str, str],
) -> Iterator[_Frame]:
    """Generate the depth of the frames that are asked for, and score it."""
    positions = _spread(len(dataset), config.num_frames)
    supervision = policy.config.depth_supervision
    colormap, max_side = supervision.colormap, supervision.max_side
    previous: dict[str, Tensor] = {}
    for batch in tqdm(read_frames(dataset, positions, batch_size=config.batch_size), desc="batches"):
        # Cameras alone: depth needs no text, and without questions every image is seen after the same others.
        cameras = {camera: batch[camera] for camera in policy.config.image_features}
        # A frame's noise is its own, whatever frames share its batch.
        frames = batch["index"].tolist()
        noise = [torch.Generator().manual_seed(mixed_seed(config.seed, frame)) for frame in frames]
        generated = policy.generate_depth(preprocess(cameras), generator=noise)
        targets = {
            camera: depth_target(
                batch[key], colormap=colormap, max_side=max_side, rgb_size=batch[camera].shape[-2:]
            )
            for camera, key in pairs.items()
        }
        for i in range(len(batch["index"])):
            rows: dict[str, dict[str, Tensor]] = {}
            scores: dict[str, dict[str, DepthScores] | None] = {}
            for camera, key in pairs.items():
                depth_image, target = generated[camera][i].cpu(), targets[camera].pictures[i] / 2 + 0.5
                rows[camera] = {"rgb": batch[camera][i], "true depth": target, "generated depth": depth_image}
                scores[camera] = None
                if targets[camera].has_depth[i]:
                    swapped = {"swapped": previous[camera]} if previous else {}
                    flat = torch.zeros_like(depth_image)
                    scored = {"generated": depth_image, **swapped, "flat": flat, "target": target}
                    scores[camera] = _score(scored, batch[key][i], colormap)
            previous = {camera: row["generated depth"] for camera, row in rows.items()}
            place = {name: int(batch[name][i]) for name in ("index", "episode_index")}
            yield _Frame(place, rows, scores)


def _write_frames(
    config: DepthReportConfig, frames: Iterable[_Frame], cameras: Sequence[str]
) -> dict[str, CameraReport]:
    """Write strips and their video; returns the scores of each camera."""
    reports = {camera: CameraReport() for camera in cameras}
    folder = config.output_dir / "frames"
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        file = folder / f"frame-{number:06d}.png"
        Image.fromarray(draw_strips([list(row.values()) for row in frame.rows.values()])).save(file)
        if config.display:
            _display(frame)
        for camera, scores in frame.scores.items():
            if scores is None:
                reports[camera].skipped += 1
            else:
                reports[camera].frames.append({"file": file.name, **frame.place, "scores": scores})
    # x264 would print its statistics.
    video = RGBEncoderConfig(vcodec="h264", crf=18, extra_options={"x264-params": "log=0"})
    encode_video_frames(folder, config.output_dir / "depth.mp4", config.fps, video)
    return reports


def draw_strips(rows: Sequence[Sequence[Tensor]]) -> np.ndarray:
    """Rows of images below each other.

    Args:
        rows: Images (3, h, w) in [0, 1]; in each row, all are scaled to the size of its first.

    Returns:
        (H, W, 3) uint8 with even sides, as video codecs need them.
    """
    strips = [
        torch.cat(
            [F.interpolate(image[None], size=row[0].shape[-2:], mode="nearest-exact") for image in row],
            dim=3,
        )
        for row in rows
    ]
    width = max(strip.shape[3] for strip in strips)
    sheet = torch.cat([F.pad(strip, (0, width - strip.shape[3])) for strip in strips], dim=2)[0]
    sheet = F.pad(sheet, (0, sheet.shape[2] % 2, 0, sheet.shape[1] % 2))
    return (sheet.clamp(0, 1) * 255).round().byte().movedim(0, 2).numpy()


def table(reports: Mapping[str, CameraReport]) -> str:
    """The mean scores as lines of text."""
    lines = [f"{'camera':32} {'frames':>6} {'skipped':>7} {'':>9} {'AbsRel':>7} {'d<1.25':>7} {'rank':>7}"]
    for camera, report in reports.items():
        start = f"{camera:32} {len(report.frames):6d} {report.skipped:7d}"
        if not report.frames:
            lines.append(start)
        for name, scores in report.mean.items():
            lines.append(
                f"{start:47} {name:>9} {scores.abs_rel:7.3f} {scores.delta:7.3f} {scores.rank_correlation:7.3f}"
            )
            start = ""
    return "\n".join(lines)


def _checked(config: DepthReportConfig) -> GemConfig:
    """The checkpoint's configuration, after a check of all options."""
    policy = config.policy
    if policy is None or policy.pretrained_path is None:
        raise ValueError("No policy: expected --policy.path=<gem checkpoint>.")
    if not isinstance(policy, GemConfig) or not policy.built.generator:
        raise ValueError(
            f"policy.path={policy.pretrained_path} is a {policy.type!r} checkpoint: expected a 'gem' checkpoint (stages 1 "
            "to 3) with its depth generator. A 'gem_vla' acts without one; take the checkpoint that it started from."
        )
    check_whole(
        policy.pretrained_path, f"policy.path={policy.pretrained_path}", use_peft=bool(policy.use_peft)
    )
    if policy.depth.target != "depth":
        raise ValueError(
            f"policy.path={policy.pretrained_path} paints no depth, but depth.target={policy.depth.target!r}, the camera's picture "
            "itself: expected a checkpoint that was trained with --policy.depth.target=depth."
        )
    require_at_least(config, num_frames=1, batch_size=1, fps=1)
    check_empty(config.output_dir)
    return policy


def _depth_of_cameras(policy: GemConfig, dataset: LeRobotDataset) -> dict[str, str]:
    """RGB key -> depth key, of the policy's cameras that have depth in the dataset."""
    names = list(policy.image_features)
    missing = [name for name in names if name not in dataset.meta.camera_keys]
    if missing:
        raise ValueError(
            f"The dataset {dataset.repo_id!r} lacks the camera(s) {missing} that the policy was trained with: expected "
            f"{names}, but it has {dataset.meta.camera_keys}."
        )
    found = pair_depth(dataset.meta.features, policy.depth.cameras)
    pairs = {name: found[name] for name in names if name in found}
    if not pairs:
        raise ValueError(
            f"No depth for the cameras {names} in {dataset.repo_id!r}: expected a depth camera <camera>_depth flagged "
            "is_depth_map, or one named in --policy.depth.cameras. It has "
            f"{dataset.meta.depth_keys}."
        )
    for name in names:
        if name not in pairs:
            logger.warning(f"{name} is left out: {dataset.repo_id!r} has no depth for it.")
    return pairs


def _spread(length: int, number: int) -> list[int]:
    """Evenly spread positions in a dataset of this length: `number`, or all if there are fewer."""
    if number > length:
        logger.warning(f"num_frames={number}, but there are {length} frames: taking them all.")
    return np.linspace(0, length - 1, min(number, length)).round().astype(int).tolist()


def _score(images: Mapping[str, Tensor], depth: Tensor, colormap: Colormap) -> dict[str, DepthScores]:
    """Scores of depth images (3, h, w) in [0, 1] against depth (1, H, W) in metres, at the depth map's own size."""
    scores = {}
    for name, image in images.items():
        nearness = relative_depth(image[None], colormap)
        nearness = F.interpolate(nearness, size=depth.shape[-2:], mode="bilinear", antialias=True)
        scores[name] = score_depth(nearness[0], depth, inverse=is_inverse(colormap))
    return scores


def _check_found(
    reports: Mapping[str, CameraReport], pairs: Mapping[str, str], dataset: LeRobotDataset
) -> None:
    """Raise a ValueError if no camera has a frame with depth; warn of each that has none."""
    empty = [
        f"No depth in {report.skipped} frames of {pairs[camera]!r} of {dataset.repo_id!r}: expected distances of 11 mm to 9.99 m. "
        "Check info.depth_unit in its meta/info.json, or take other frames."
        for camera, report in reports.items()
        if not report.frames
    ]
    if len(empty) == len(reports):
        raise ValueError(empty[0])
    for told in empty:
        logger.warning(told)


def _write_metrics(config: DepthReportConfig, policy: GemConfig, reports: Mapping[str, CameraReport]) -> None:
    metrics = {
        "policy": str(policy.pretrained_path),
        "dataset": config.dataset.repo_id,
        "episodes": config.dataset.episodes,
        "colormap": policy.depth.colormap,
        "guidance_scale": policy.depth.guidance_scale,
        "num_inference_steps": policy.depth.num_inference_steps,
        "seed": config.seed,
        "cameras": {camera: report.as_json() for camera, report in reports.items()},
    }
    (config.output_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


def _by_name(scores: Mapping[str, DepthScores]) -> dict[str, dict[str, float]]:
    return {name: values._asdict() for name, values in scores.items()}


def _display(frame: _Frame) -> None:
    """Log the images to rerun."""
    import rerun

    rerun.set_time("index", sequence=frame.place["index"])
    for camera, row in frame.rows.items():
        for name, image in row.items():
            rerun.log(f"{camera}/{name}", rerun.Image(draw_strips([[image]])))
