"""What depth_helps.py measures on held-out scenes without a simulator: the first action, and depth in visual tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from lerobot_gem.processing.steps import OBS_GRID_THW, OBS_PIXEL_VALUES
from lerobot_gem.storage.frames import open_depth_dataset, read_frames
from lerobot_gem.storage.opening import DatasetOptions

BATCH_SIZE, SEED = 25, 0
RIDGE = 1e-2  # of features with variance 1, as a share of the number of tokens


def first_action_error(checkpoint: Path, data: Path) -> dict[str, Any]:
    """Mean absolute error of the first predicted action, in units of full scale, over the frames of a dataset.

    Returns:
        Of `xy` (their mean) and `z`: the mean over frames, its standard error, and `guess`, the error of the dataset's median.
    """
    policy, preprocess, postprocess = load(checkpoint)
    torch.manual_seed(SEED)  # of the noise that actions are sampled from
    predicted, expected = [], []
    for batch in frames(data):
        expected.append(batch[ACTION])
        chunk = policy.predict_action_chunk(preprocess(observed(batch)))
        predicted.append(postprocess(chunk[:, 0]))
    actions = torch.cat(expected).cpu()
    errors = (torch.cat(predicted).cpu() - actions).abs()
    guesses = (actions - actions.median(dim=0).values).abs()
    return {"n": len(errors)} | {
        name: {
            "mean": errors[:, part].mean().item(),
            "standard_error": errors[:, part].mean(dim=1).std().item() / len(errors) ** 0.5,
            "guess": guesses[:, part].mean().item(),
        }
        for name, part in (("xy", slice(0, 2)), ("z", slice(2, 3)))
    }


def depth_probe(checkpoint: Path, data: Path) -> dict[str, Any]:
    """How much of the depth of each visual token's cell a linear map reads from what the action expert is given.

    Ridge regression of the logarithm of the cell's mean depth, fitted on every second frame, measured on the others.

    Returns:
        Camera -> `r2`: the share of variance that is explained, of depth less the mean depth at that place in all fitted
        frames. A map that knows the place alone has 0.
    """
    policy, preprocess, _ = load(checkpoint)
    features: dict[str, list[Tensor]] = {}
    depths: dict[str, list[Tensor]] = {}
    for batch in frames(data):
        prompts = preprocess(observed(batch))
        tokens = prompts[OBS_LANGUAGE_TOKENS]
        with torch.no_grad():
            states = policy.backbone(
                tokens,
                prompts[OBS_LANGUAGE_ATTENTION_MASK],
                prompts[OBS_PIXEL_VALUES],
                prompts[OBS_GRID_THW],
                layers=policy.config.conditioning_layers,
            )
        spans, _ = policy.backbone.vision_spans(states.movedim(1, 2).flatten(2), tokens)
        cameras = policy.config.camera_names
        for position, camera in enumerate(cameras):
            side = round(spans.shape[1] ** 0.5)
            depth = F.adaptive_avg_pool2d(batch[f"{camera}_depth"].float(), side)
            features.setdefault(camera, []).append(spans[position :: len(cameras)])
            depths.setdefault(camera, []).append(depth.flatten(1).log())
    return {
        camera: {"r2": explained(torch.cat(features[camera]), torch.cat(depths[camera]))}
        for camera in features
    }


def explained(features: Tensor, values: Tensor) -> float:
    """Share of the variance of values (N, S) that a linear map of features (N, S, D) explains, on the odd rows."""
    values = values - values[::2].mean(dim=0)
    mean, scale = features[::2].mean(dim=(0, 1)), features[::2].std(dim=(0, 1)) + 1e-6
    features = ((features - mean) / scale).double()
    fitted, measured = (features[start::2].flatten(0, 1) for start in (0, 1))
    targets, truth = (values[start::2].flatten().double() for start in (0, 1))
    gram = fitted.T @ fitted + RIDGE * len(fitted) * torch.eye(fitted.shape[1], dtype=torch.double)
    predicted = measured @ torch.linalg.solve(gram, fitted.T @ targets)
    return 1 - ((predicted - truth).square().sum() / truth.square().sum()).item()


def load(checkpoint: Path) -> tuple[Any, Any, Any]:
    """The policy of a checkpoint, and its processors."""
    config = PreTrainedConfig.from_pretrained(checkpoint)
    policy: Any = get_policy_class(config.type).from_pretrained(checkpoint)
    return policy.eval(), *make_pre_post_processors(config, pretrained_path=str(checkpoint))


def frames(data: Path) -> Iterator[dict[str, Any]]:
    """All frames of a dataset, in batches."""
    dataset = open_depth_dataset(DatasetOptions(f"local/{data.name}", data))
    yield from read_frames(dataset, np.arange(len(dataset)).tolist(), batch_size=BATCH_SIZE)


def observed(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch without the actions, of which the dataset has one for each frame, not a chunk."""
    return {key: value for key, value in batch.items() if key != ACTION}
