"""Facts from the columns of a dataset that hold no images, of all frames."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from lerobot.configs import NormalizationMode
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_STATE
from numpy.typing import NDArray
from torch import Tensor

from lerobot_gem.data.check.facts import LanguageFacts, TaskFacts, VectorFacts
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.dataset_names import flat_names
from lerobot_gem.processing.language import EVENTS, MESSAGES, PERSISTENT
from lerobot_gem.processing.statistics import still_dimensions

Vector = NDArray[np.floating]

# Statistics that are off by more than this share of the range are those of other data.
_STALE = 0.01


def tasks(dataset: LeRobotDataset) -> list[TaskFacts]:
    """Episodes and frames of each task, the most frequent first."""
    frames: pd.DataFrame = _arrow(dataset, "task_index", "episode_index").to_pandas()
    counts = frames.groupby("task_index")["episode_index"].agg(["nunique", "size"])
    facts = [
        TaskFacts(str(dataset.meta.tasks.iloc[task].name), episodes=row["nunique"], frames=row["size"])
        for task, row in counts.iterrows()
    ]
    return sorted(facts, key=lambda task: (-task.frames, task.text))


def padding(dataset: LeRobotDataset, chunk_size: int) -> float:
    """Share of the actions of all chunks that lie past the end of their episode."""
    lengths = np.unique(_numpy(dataset, "episode_index"), return_counts=True)[1]
    near_end = np.minimum(lengths, chunk_size)  # frames whose chunk reaches the end or past it
    padded = near_end * chunk_size - near_end * (near_end + 1) // 2
    return float(padded.sum() / (lengths.sum() * chunk_size))


def language_rows(dataset: LeRobotDataset) -> tuple[list[LanguageFacts], int | None]:
    """Count language rows by column, style, role and camera.

    Returns:
        The counts, and how many frames have an entry in `messages` (None without that column).
    """
    known = dataset.hf_dataset.column_names
    facts = []
    for column in (PERSISTENT, EVENTS):
        if column not in known:
            continue
        cells = _arrow(dataset, column)[column]
        if column == PERSISTENT:
            # Each frame of an episode repeats its rows.
            _, first = np.unique(_numpy(dataset, "episode_index"), return_index=True)
            cells = cells.take(pa.array(first))
        rows = pc.list_flatten(cells)
        by = ["style", "role", "camera"]
        table = pa.table({name: pc.struct_field(rows, name) for name in by})
        counts = table.group_by(by).aggregate([([], "count_all")]).to_pylist()
        facts += [LanguageFacts(column, count=row.pop("count_all"), **row) for row in counts]
    facts.sort(key=lambda row: (row.column, row.style or "", row.camera or "", row.role))
    return facts, int(_has_messages(dataset).sum()) if MESSAGES in known else None


def texts_of_frames(dataset: LeRobotDataset) -> NDArray[np.bool_]:
    """Which frames have text of their own: event rows, or messages."""
    has_text = np.zeros(len(dataset.hf_dataset), dtype=bool)
    if EVENTS in dataset.hf_dataset.column_names:
        lengths = pc.list_value_length(_arrow(dataset, EVENTS)[EVENTS])
        has_text |= pc.fill_null(lengths, 0).to_numpy() > 0
    if MESSAGES in dataset.hf_dataset.column_names:
        has_text |= _has_messages(dataset)
    return has_text


def vector_facts(dataset: LeRobotDataset, policy: GemVLAConfig) -> list[VectorFacts]:
    """Ranges of actions and states, compared with the statistics that normalise them.

    Args:
        dataset: With the vectors.
        policy: Says how they are normalised.
    """
    facts = []
    kinds = {ACTION: "ACTION", OBS_STATE: "STATE"}
    for key in (ACTION, OBS_STATE):
        if key not in dataset.meta.features:
            continue
        values = _vectors(dataset, key)
        names = _names(key, dataset.meta.features[key].get("names"), values.shape[1])
        finite = np.isfinite(values).all(axis=1)
        good = values[finite] if finite.any() else np.zeros((1, values.shape[1]))
        low, high = good.min(axis=0), good.max(axis=0)
        stats = (dataset.meta.stats or {}).get(key) or {}
        stale: list[str] = []
        # Those of the whole dataset; a choice of episodes may well have a smaller range.
        if {"min", "max"} <= stats.keys() and dataset.episodes is None:
            stale = _stale(names, low, high, np.ravel(stats["min"]), np.ravel(stats["max"]))
        mode = policy.normalization_mapping.get(kinds[key], NormalizationMode.IDENTITY)
        facts.append(
            VectorFacts(
                key=key,
                names=names,
                minimum=low,
                maximum=high,
                not_finite=int((~finite).sum()),
                stale=stale,
                has_stats=bool(stats),
                still=[names[i] for i in still_dimensions(stats, mode) if i < len(names)],
                is_still_read=policy.outlier_limit is None,
            )
        )
    return facts


def _stale(names: list[str], low: Vector, high: Vector, stored_low: Vector, stored_high: Vector) -> list[str]:
    """Names of the dimensions whose range is not that of the statistics; all, if they are of another size."""
    if not len(low) == len(stored_low) == len(stored_high):
        return names
    tolerance = _STALE * (high - low) + 1e-6
    off = (np.abs(stored_low - low) > tolerance) | (np.abs(stored_high - high) > tolerance)
    return [name for name, is_off in zip(names, off, strict=True) if is_off]


def vectors(dataset: LeRobotDataset) -> dict[str, Tensor]:
    """All vectors (N, D) that reach the processor steps: observations and actions."""
    return {
        key: torch.from_numpy(_vectors(dataset, key))
        for key, feature in dataset.meta.features.items()
        if (key.startswith("observation.") or key == ACTION) and feature["dtype"].startswith("float")
    }


def frame_numbers(dataset: LeRobotDataset) -> dict[str, Tensor]:
    """`index` and `episode_index` (N,) of all frames."""
    return {key: torch.from_numpy(_numpy(dataset, key)) for key in ("index", "episode_index")}


def unread_vectors(dataset: LeRobotDataset) -> dict[str, int]:
    """Frames with NaN or infinite values in vectors that no policy of ours reads, by key; those with any."""
    counts = {
        key: int((~values.isfinite()).any(dim=1).sum())
        for key, values in vectors(dataset).items()
        if key not in (OBS_STATE, ACTION)
    }
    return {key: count for key, count in counts.items() if count}


def _names(key: str, names: Any, dim: int) -> list[str]:
    """Names of dimensions; their positions where the dataset has none, or more or fewer."""
    try:
        flat = flat_names(key, names, dim) if names else []
    except ValueError:  # which the stages that read them report
        flat = []
    return flat if len(flat) == dim else [str(position) for position in range(dim)]


def _has_messages(dataset: LeRobotDataset) -> NDArray[np.bool_]:
    texts = _arrow(dataset, MESSAGES)[MESSAGES]
    return ~pc.is_in(texts, pa.array(["", "[]", None])).to_numpy()


def _vectors(dataset: LeRobotDataset, key: str) -> NDArray[Any]:
    values = _numpy(dataset, key)
    return values.reshape(len(values), -1)


def _numpy(dataset: LeRobotDataset, column: str) -> NDArray[Any]:
    return dataset.hf_dataset.select_columns([column]).with_format("numpy")[column][:]


def _arrow(dataset: LeRobotDataset, *columns: str) -> pa.Table:
    return dataset.hf_dataset.select_columns(list(columns)).with_format("arrow")[:]
