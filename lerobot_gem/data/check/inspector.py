"""Inspects a dataset: counts and measures what training will see, and collects the errors that it would raise.

Numbers are read of all frames, texts of `num_texts` frames at most, pictures of a sample that is spread over the dataset.
Statistics of depth in `meta/stats.json` are never used: where depth was stored as PNG, LeRobot computes them as if of RGB.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.collate import lerobot_collate_fn
from lerobot.utils.constants import ACTION
from torch import Tensor

from lerobot_gem.data.check.cameras import Item, PictureReader
from lerobot_gem.data.check.columns import (
    language_rows,
    observation_vectors,
    padding,
    tasks,
    texts_of_frames,
    vector_facts,
)
from lerobot_gem.data.check.facts import Inspection, PromptFacts, StageFacts
from lerobot_gem.data.check.stage_checks import (
    FrameErrors,
    Texts,
    TrainingView,
    bind,
    lacks,
    stage_config,
    stage_of,
    text_batches,
    usable_depth,
)
from lerobot_gem.data.check.warnings import warnings_of
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.depth_cameras import pair_depth
from lerobot_gem.processing.language import Message
from lerobot_gem.storage.opening import require_current_format
from lerobot_gem.training.stages import PRETRAINING, STAGES

_STAGES_OF = {"gem": PRETRAINING, "gem_vla": ("action",)}
# Frames on the page with pictures.
_SHOWN_FRAMES = 6


@dataclass
class CheckConfig(TrainPipelineConfig):
    """What `lerobot-train` takes, of which the check reads `dataset`, `policy`, `batch_size`, `seed` and `rename_map`.

    Attributes:
        num_frames: Frames whose pictures are looked at.
        num_texts: Most frames whose texts are read; None for all.
        html: File to write a page with pictures to.
    """

    num_frames: int = 200
    num_texts: int | None = 50_000
    html: Path | None = None

    def __post_init__(self) -> None:
        for name in ("num_frames", "num_texts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")


def inspect(config: CheckConfig) -> Inspection:
    """Inspect a dataset, for the policy of `config` or, without one, for every stage that it is made for.

    Raises:
        FileNotFoundError: There is no dataset.
        ValueError: It is of another format or can't be read, or the policy is not one of ours.
    """
    given = config.policy
    if given is not None and not isinstance(given, BaseGemConfig):
        raise ValueError(
            f"policy.type={given.type!r}: expected 'gem' or 'gem_vla', which this command is for."
        )
    meta, dataset = open_dataset(config.dataset)
    found = Inspection(
        repo_id=meta.repo_id,
        root=meta.root,
        robot=meta.robot_type,
        fps=meta.fps,
        episodes=dataset.num_episodes if dataset else meta.total_episodes,
        frames=dataset.num_frames if dataset else meta.total_frames,
        asked=stage_of(given) if given is not None else None,
    )
    configs = _bind_stages(found, given, meta, config.rename_map)
    if dataset is not None:
        _Inspector(config, found, dataset, configs).inspect()
    found.warnings = warnings_of(found)
    return found


def open_dataset(config: DatasetConfig) -> tuple[LeRobotDatasetMetadata, LeRobotDataset | None]:
    """Metadata and data, without actions of other frames; no data if it is empty.

    Raises:
        FileNotFoundError: There is no dataset.
        ValueError: It is of another format, or can't be read.
    """
    root = require_current_format(config.repo_id, config.root)
    if config.streaming:
        raise ValueError("dataset.streaming=true: expected false, since the check reads the dataset on disk.")
    try:
        meta = LeRobotDatasetMetadata(config.repo_id, root=config.root, revision=config.revision)
        if meta.total_frames == 0:
            return meta, None
        dataset = LeRobotDataset(
            config.repo_id,
            root=config.root,
            episodes=config.episodes,
            revision=config.revision,
            video_backend=config.video_backend,
            depth_output_unit=config.depth_output_unit,
        )
    except Exception as error:  # Hub client, pyarrow and decoders have their own; nothing can be inspected
        raise ValueError(
            f"The dataset {config.repo_id!r} can't be opened ({root}): {type(error).__name__}: {error}"
        ) from error
    return dataset.meta, dataset


def _bind_stages(
    found: Inspection, given: BaseGemConfig | None, meta: Any, rename_map: dict[str, str]
) -> dict[str, BaseGemConfig]:
    """The configurations of the stages that accept the dataset; what the others raise goes to `found.stages`."""
    configs = {}
    for stage in STAGES:
        facts = StageFacts(stage, lacking=lacks(stage, meta))
        try:
            config = stage_config(stage, given)
            bind(config, meta, rename_map if stage == found.asked else {})
            configs[stage] = config
        except ValueError as error:
            facts.errors.append(str(error))
        found.stages.append(facts)
    return configs


class _Inspector:
    """Reads the data and fills in an `Inspection`."""

    def __init__(
        self,
        config: CheckConfig,
        found: Inspection,
        dataset: LeRobotDataset,
        configs: dict[str, BaseGemConfig],
    ) -> None:
        self.config, self.found, self.dataset, self.configs = config, found, dataset, configs
        self.meta = dataset.meta
        self.random = np.random.default_rng(config.seed)
        self.views: dict[str, TrainingView] = {}
        self.indices = dataset.hf_dataset.select_columns(["index"]).with_format("numpy")["index"][:]
        self.known_bad: dict[str, set[int]] = {}
        self.depth_config = self._depth_config()
        self.pairs = self._pairs()
        unit = config.dataset.depth_output_unit
        self.reader = PictureReader(dataset, self.indices, self.depth_config, self.pairs, unit)

    def inspect(self) -> None:
        """Fill in everything."""
        self._open_views()
        self._read_columns()
        self._read_texts()
        self._look_at_pictures()
        if self.config.html is not None:
            self._take_samples()

    def _open_views(self) -> None:
        for policy, stages in _STAGES_OF.items():
            config = self._config_of(policy)
            if config is None:
                continue
            try:
                renamed = self.config.rename_map if stage_of(config) == self.found.asked else {}
                self.views[policy] = TrainingView(config, self.meta, renamed)
            except (ValueError, OSError) as error:
                self._blame(stages, [str(error)])

    def _config_of(self, policy: str) -> BaseGemConfig | None:
        """The configuration whose prompts are looked at: that which was asked about, or the last stage's."""
        bound = [self.configs[stage] for stage in _STAGES_OF[policy] if stage in self.configs]
        asked = [config for config in bound if stage_of(config) == self.found.asked]
        if bound:
            return (asked or bound)[-1]
        if policy == "gem_vla":
            return None
        # Texts can be read even where depth is missing or wrong.
        try:
            config = stage_config("joint", self.config.policy)
            config.depth.loss_weight = 0.0
            bind(config, self.meta, {})
        except ValueError:
            return None
        return config

    def _depth_config(self) -> BaseGemConfig:
        """The settings of depth that are asked about."""
        if self.config.policy is not None:
            return self.config.policy
        return stage_config("joint", None)

    def _pairs(self) -> dict[str, str]:
        try:
            pairs = pair_depth(self.meta.features, self.depth_config.depth.cameras)
        except ValueError:
            return {}  # binding has reported it
        used = self.depth_config.cameras.names
        return {camera: depth for camera, depth in pairs.items() if used is None or camera in used}

    def _blame(self, stages: Sequence[str], errors: Sequence[str]) -> None:
        for stage in self.found.stages:
            if stage.name in stages:
                stage.errors += [error for error in errors if error not in stage.errors]

    # Numbers, of all frames

    def _read_columns(self) -> None:
        found, dataset = self.found, self.dataset
        found.tasks = tasks(dataset)
        found.rows, found.messages = language_rows(dataset)
        found.vectors = vector_facts(dataset)
        action_config = self.configs.get("action")
        if isinstance(action_config, GemVLAConfig):
            found.padding = padding(dataset, action_config.chunk_size)
        for vector in found.vectors:
            if vector.key == ACTION and vector.not_finite:
                text = f"{ACTION!r} holds NaN or infinite values in {vector.not_finite:,} frame(s): the loss would be NaN."
                self._blame(["action"], [text])
        renamed = self.config.rename_map
        vectors = {renamed.get(key, key): values for key, values in observation_vectors(dataset).items()}
        for policy, view in self.views.items():
            try:
                view.check_vectors(vectors)
            except ValueError as error:
                self._blame(_STAGES_OF[policy], [str(error)])

    # Texts

    def _read_texts(self) -> None:
        total = len(self.indices)
        positions = spread(total, self.config.num_texts or total, self.random)
        for policy, view in self.views.items():
            texts = view.read_texts(self.dataset, positions)
            stages = _STAGES_OF[policy]
            self._blame(stages, texts.errors.lines)
            self.known_bad[policy] = texts.errors.frames
            self.found.prompts.append(_prompt_facts(policy, view, texts))
            for stage in self.found.stages:
                uses_language = stage.name == "action" or "language" in STAGES[stage.name].losses
                if stage.name in stages and uses_language:
                    stage.language = texts.with_language / max(texts.frames, 1)

    # Pictures, of a sample

    def _look_at_pictures(self) -> None:
        positions = spread(len(self.indices), self.config.num_frames, self.random)
        unreadable, depth_errors = FrameErrors(), FrameErrors()
        errors = {policy: FrameErrors() for policy in self.views}
        usable = 0
        for start in range(0, len(positions), self.config.batch_size):
            items = self.reader.read(positions[start : start + self.config.batch_size], unreadable)
            self.found.sampled += len(items)
            for item in items:
                self.reader.measure(item)
            for policy, view in self.views.items():
                good = [item for item in items if int(item["index"]) not in self.known_bad[policy]]
                _try(view.check_batch, good, errors[policy])
            if self.pairs:
                usable += sum(int(frames.sum()) for frames in _try(self._usable_depth, items, depth_errors))
        self._blame(tuple(STAGES), unreadable.lines)
        for policy, found in errors.items():
            self._blame(_STAGES_OF[policy], found.lines)
        learning = [stage for stage, config in self.configs.items() if "depth" in config.loss_weights]
        self._blame(learning, depth_errors.lines)
        for stage in self.found.stages:
            stage.depth = usable / max(self.found.sampled, 1)
            if stage.name == "action":
                stage.action = float(ACTION in self.meta.features)
        self.found.cameras, self.found.depth = self.reader.cameras(), self.reader.depth()

    def _usable_depth(self, batch: Item) -> Tensor:
        return usable_depth(batch, self.depth_config, self.pairs)

    def _take_samples(self) -> None:
        self.found.colormap = self.depth_config.depth.colormap
        has_text = np.flatnonzero(texts_of_frames(self.dataset))
        candidates = has_text if len(has_text) else np.arange(len(self.indices))
        for place in spread(len(candidates), _SHOWN_FRAMES, self.random):
            position = int(candidates[place])
            for item in self.reader.read([position], FrameErrors()):
                messages: list[Message] = []
                if "gem" in self.views and int(item["index"]) not in self.known_bad["gem"]:
                    [messages] = self.views["gem"].messages(next(text_batches(self.dataset, [position])))
                self.found.samples.append(self.reader.sample(item, messages))


def _prompt_facts(policy: str, view: TrainingView, texts: Texts) -> PromptFacts:
    lengths = np.array(texts.lengths)
    longest = (np.median(lengths), np.percentile(lengths, 95), lengths.max()) if len(lengths) else None
    return PromptFacts(
        policy=policy,
        preset=view.config.preset,
        frames=texts.frames,
        image_tokens=view.image_tokens(),
        prompts=len(lengths),
        lengths=longest,
        context=view.context,
        too_long=int((lengths > view.context).sum()),
        questions=dict(texts.questions),
        task_only=texts.task_only,
        left_out=texts.left_out,
    )


def spread(total: int, count: int, random: np.random.Generator) -> list[int]:
    """At most `count` of the numbers 0 to `total - 1`, one drawn from each of as many equal parts."""
    if count >= total:
        return list(range(total))
    edges = np.linspace(0, total, count + 1).astype(int)
    return random.integers(edges[:-1], edges[1:]).tolist()


def _try(call: Callable[[Item], Any], items: list[Item], errors: FrameErrors) -> list[Any]:
    """Call with a batch of all items; if that fails, with each item alone, to tell which one is at fault."""
    if not items:
        return []
    try:
        return [call(lerobot_collate_fn(items))]
    except (ValueError, RuntimeError) as error:  # torch raises a RuntimeError for images of several sizes
        at_once = error
    results, alone = [], 0
    for item in items:
        try:
            results.append(call(lerobot_collate_fn([item])))
        except (ValueError, RuntimeError) as error:
            alone += 1
            errors.add(int(item["index"]), error)
    if not alone:
        errors.add(int(items[0]["index"]), at_once)
    return results
