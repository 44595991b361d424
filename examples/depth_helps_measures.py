"""What depth_helps.py measures on held-out scenes without a simulator: the first action, and depth in visual tokens."""

from collections.abc import Iterable, Iterator
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


def measure(checkpoint: Path, data: Path) -> dict[str, Any]:
    """Errors of a policy on the frames of a dataset with depth, each frame an episode of its own.

    Returns:
        `first_action` (see `action_errors`), and `depth_probe`: camera -> `r2`, how much of the depth of each visual token's
        cell a linear map reads from what the action expert is given (see `explained`).
    """
    policy, preprocess, postprocess = load(checkpoint)
    torch.manual_seed(SEED)  # of the noise that actions are sampled from
    predicted, expected, tokens = [], [], []
    for batch in frames(data):
        expected.append(batch[ACTION])
        prompts = preprocess(observation_of(batch))
        predicted.append(postprocess(policy.predict_action_chunk(prompts)[:, 0]))
        tokens.append(tokens_and_depth(policy, prompts, batch))
    return {
        "first_action": action_errors(torch.cat(predicted).cpu(), torch.cat(expected).cpu()),
        "depth_probe": {
            camera: {"r2": explained(features, depths)}
            for camera, (features, depths) in joined(tokens).items()
        },
    }


def visual_tokens(checkpoint: Path, data: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Of a policy, `tokens_and_depth` of all frames of a dataset."""
    policy, preprocess, _ = load(checkpoint)
    return joined(
        tokens_and_depth(policy, preprocess(observation_of(batch)), batch) for batch in frames(data)
    )


def observation_of(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch without its actions: the dataset has one for each frame, not a chunk."""
    return {key: value for key, value in batch.items() if key != ACTION}


def tokens_and_depth(
    policy: Any, prompts: dict[str, Any], batch: dict[str, Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Camera -> what the action expert reads at each visual token (N, S, D), and the logarithm of its cell's depth (N, S)."""
    cameras, spans = policy.config.camera_names, conditioning_of_images(policy, prompts)
    side = round(spans.shape[1] ** 0.5)
    found = {}
    for position, camera in enumerate(cameras):
        depth = F.adaptive_avg_pool2d(batch[f"{camera}_depth"].float(), side)
        found[camera] = spans[position :: len(cameras)], depth.flatten(1).log()
    return found


def joined(parts: Iterable[dict[str, tuple[Tensor, Tensor]]]) -> dict[str, tuple[Tensor, Tensor]]:
    """The tokens and depths of several batches, as those of one."""
    found = list(parts)
    return {
        camera: tuple(torch.cat([part[camera][number] for part in found]) for number in (0, 1))  # type: ignore[misc]
        for camera in found[0]
    }


@torch.no_grad()
def conditioning_of_images(policy: Any, prompts: dict[str, Any]) -> Tensor:
    """What the action expert reads at the tokens of each image (N, S, layers * D), the images of a frame in order."""
    tokens = prompts[OBS_LANGUAGE_TOKENS]
    states = policy.backbone(
        tokens,
        prompts[OBS_LANGUAGE_ATTENTION_MASK],
        prompts[OBS_PIXEL_VALUES],
        prompts[OBS_GRID_THW],
        layers=policy.config.conditioning_layers,
        convention=policy.config.reading,
    )
    spans, _ = policy.backbone.vision_spans(states.movedim(1, 2).flatten(2), tokens)
    return spans


def action_errors(predicted: Tensor, actions: Tensor) -> dict[str, Any]:
    """Mean absolute errors of actions (N, A), in units of full scale.

    Returns:
        Of `xy` (their mean) and `z`: the mean over frames, its standard error, and `guess`, the error of the median action.
    """
    errors = (predicted - actions).abs()
    guesses = (actions - actions.median(dim=0).values).abs()
    return {"n": len(errors)} | {
        name: {
            "mean": errors[:, part].mean().item(),
            "standard_error": errors[:, part].mean(dim=1).std().item() / len(errors) ** 0.5,
            "guess": guesses[:, part].mean().item(),
        }
        for name, part in (("xy", slice(0, 2)), ("z", slice(2, 3)))
    }


def explained(features: Tensor, values: Tensor) -> float:
    """Share of the variance of values (N, S) that a linear map of features (N, S, D) explains, on the odd rows.

    The variance is that about the mean of each place: a map that knows the place alone has 0.
    """
    predicted, truth = read_linearly(features, values)
    around = values[::2].mean(dim=0)
    return 1 - ((predicted - truth).square().sum() / (truth - around).square().sum()).item()


def read_linearly(features: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """What a linear map of features (N, S, D) makes of the odd rows of values (N, S), and these rows.

    Ridge regression, fitted on the even rows, of values less their mean at each place there.
    """
    around = values[::2].mean(dim=0)
    mean, scale = features[::2].mean(dim=(0, 1)), features[::2].std(dim=(0, 1)) + 1e-6
    features = ((features - mean) / scale).double()
    fitted, measured = (features[start::2] for start in (0, 1))
    targets = (values[::2] - around).double()
    flat = fitted.flatten(0, 1)
    gram = flat.T @ flat + RIDGE * len(flat) * torch.eye(flat.shape[1], dtype=torch.double)
    weights = torch.linalg.solve(gram, flat.T @ targets.flatten())
    return measured @ weights + around, values[1::2].double()


def load(checkpoint: Path) -> tuple[Any, Any, Any]:
    """The policy of a checkpoint, and its processors."""
    config = PreTrainedConfig.from_pretrained(checkpoint)
    policy: Any = get_policy_class(config.type).from_pretrained(checkpoint)
    return policy.eval(), *make_pre_post_processors(config, pretrained_path=str(checkpoint))


def frames(data: Path) -> Iterator[dict[str, Any]]:
    """All frames of a dataset, in batches."""
    dataset = open_depth_dataset(DatasetOptions(f"local/{data.name}", data))
    yield from read_frames(dataset, np.arange(len(dataset)).tolist(), batch_size=BATCH_SIZE)
