"""Inspects a dataset: counts and measures what training will see, and collects the errors that it would raise.

Numbers are read of all frames, texts of `num_texts` frames at most, images of a sample that is spread over the dataset.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.collate import lerobot_collate_fn
from lerobot.utils.constants import ACTION, OBS_STATE

from lerobot_gem.data.check.cameras import CameraReader
from lerobot_gem.data.check.columns import (
    frame_numbers,
    language_rows,
    padding,
    tasks,
    texts_of_frames,
    unread_vectors,
    vector_facts,
    vectors,
)
from lerobot_gem.data.check.facts import Inspection, PromptFacts, ShownFrame, StageFacts, VectorFacts
from lerobot_gem.data.check.stage_checks import (
    STAGES_OF,
    BoundStage,
    FrameErrors,
    Texts,
    TrainingView,
    bind_stage,
    config_for_texts,
    stage_config,
    stage_of,
    text_batches,
)
from lerobot_gem.data.check.training_path import Item, open_dataset
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.base_options import DepthSupervision
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.policies.validation import checked, require_at_least
from lerobot_gem.processing.dataset_names import outside_observation, state_like
from lerobot_gem.processing.depth_cameras import pair_depth
from lerobot_gem.processing.language import Message
from lerobot_gem.storage.dataset_agreement import check_rows
from lerobot_gem.storage.reasons import reason
from lerobot_gem.training.stages import STAGES

# Frames on the page with pictures.
_SHOWN_FRAMES = 6


@dataclass
class CheckConfig(TrainPipelineConfig):
    """What `lerobot-train` takes, of which the check reads `dataset`, `policy`, `batch_size`, `seed` and `rename_map`.

    Attributes:
        num_frames: Frames whose images are looked at.
        num_texts: Most frames whose texts are read; None for all.
        html: File to write a page with pictures to.
    """

    num_frames: int = 200
    num_texts: int | None = 50_000
    html: Path | None = None

    @checked
    def __post_init__(self) -> None:
        require_at_least(self, num_frames=1, num_texts=1)


@dataclass(frozen=True)
class PolicyReading:
    """What one policy's training reads of a dataset, without images.

    Attributes:
        view: The dataset as its training sees it; None if training would not get as far.
        texts: Of its prompts; None without view.
        vectors: What training would raise at states and actions.
        error: What training would raise before its first batch, if anything.
    """

    view: TrainingView | None = None
    texts: Texts | None = None
    vectors: FrameErrors = field(default_factory=FrameErrors)
    error: str | None = None

    @property
    def errors(self) -> list[str]:
        """All that training would raise, but at pictures."""
        texts = [] if self.texts is None else self.texts.errors.lines
        return [*([self.error] if self.error else []), *self.vectors.lines, *texts]

    def is_reported(self, item: Item) -> bool:
        """Whether a sampled frame has a fault that is among these errors."""
        known = set() if self.texts is None else self.texts.errors.frames
        if int(item["index"]) in known:
            return True
        return bool(self.vectors.frames) and not all(
            bool(item[key].isfinite().all()) for key in (ACTION, OBS_STATE) if key in item
        )


@dataclass(frozen=True)
class Sample:
    """What the sampled frames held, with their images.

    Attributes:
        read: How many could be read.
        usable_depth: How many have depth to learn from.
        unreadable: Those that can't be read.
        batches: Policy -> what its training would raise at a batch.
        depth: What the depth loss would raise.
    """

    read: int
    usable_depth: int
    unreadable: FrameErrors
    batches: dict[str, FrameErrors]
    depth: FrameErrors


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
    targets = list(config.rename_map.values())
    if len(set(targets)) < len(targets):
        raise ValueError(
            f"rename_map={config.rename_map} gives two features one name: expected names of their own, or one of the two would be lost."
        )
    meta, dataset = open_dataset(config, given or stage_config("joint", None))
    stages = [bind_stage(stage, given, meta, config.rename_map) for stage in STAGES]
    about: dict[str, Any] = {
        "repo_id": meta.repo_id,
        "root": meta.root,
        "robot": meta.robot_type,
        "fps": meta.fps,
        "asked": stage_of(given) if given is not None else None,
    }
    disagreement = _disagreement(meta)
    if dataset is None or disagreement:
        facts = [
            StageFacts(stage.name, stage.lacking, list(dict.fromkeys([*stage.errors, *disagreement])))
            for stage in stages
        ]
        return Inspection(**about, episodes=meta.total_episodes, frames=meta.total_frames, stages=facts)

    random = np.random.default_rng(config.seed)
    positions = spread(len(dataset.hf_dataset), config.num_texts, random)
    policies = {
        policy: _read_policy(policy, stages, config, given, dataset, positions) for policy in STAGES_OF
    }
    supervision = _supervision(given or stage_config("joint", None), meta)
    reader = CameraReader(dataset, supervision)
    sample = _read_sample(reader, config, policies, random)
    acting = given if isinstance(given, GemVLAConfig) else GemVLAConfig(preset="tiny", device="cpu")
    ranges = vector_facts(dataset, acting)
    language, messages = language_rows(dataset)
    return Inspection(
        **about,
        episodes=dataset.num_episodes,
        frames=dataset.num_frames,
        stages=[_stage_facts(stage, policies, sample, ranges) for stage in stages],
        sampled=sample.read,
        padding=_padding(dataset, stages),
        cameras=reader.cameras(),
        depth=reader.depth(),
        language=language,
        messages=messages,
        prompts=_prompt_facts(policies),
        vectors=ranges,
        tasks=tasks(dataset),
        outside=outside_observation(meta.features),
        state_like=_state_like(given, meta.features),
        unread=unread_vectors(dataset),
        colormap=supervision.colormap,
        shown=_show(reader, dataset, policies, random) if config.html is not None else [],
    )


def _disagreement(meta: LeRobotDatasetMetadata) -> list[str]:
    """Why the rows of a dataset can't be inspected, if they can't: they are not what the metadata says."""
    try:
        check_rows(meta)
    except ValueError as error:
        return [reason(error)]
    return []


def _state_like(given: BaseGemConfig | None, features: dict[str, dict[str, Any]]) -> list[str]:
    """Vectors that may be the state that the policy asks for and the dataset lacks."""
    if OBS_STATE in features or (isinstance(given, GemVLAConfig) and not given.expert.use_state):
        return []
    return state_like(features)


def _supervision(config: BaseGemConfig, meta: LeRobotDatasetMetadata) -> DepthSupervision:
    """Which depth is looked at, and how it is learned: also where no stage could be bound, or none learns depth."""
    try:
        pairs = pair_depth(meta.features, config.depth.cameras)
    except ValueError:
        pairs = {}  # binding has reported it
    names = config.cameras.names
    pairs = {camera: depth for camera, depth in pairs.items() if names is None or camera in names}
    return replace(config.depth_supervision, cameras=pairs)


def _read_policy(
    policy: str,
    stages: Sequence[BoundStage],
    config: CheckConfig,
    given: BaseGemConfig | None,
    dataset: LeRobotDataset,
    positions: Sequence[int],
) -> PolicyReading:
    """Read vectors of all frames and texts at some positions, as the policy's training does."""
    bound = _config_of(policy, stages, given, dataset.meta)
    if bound is None:
        return PolicyReading()
    is_asked = given is not None and stage_of(bound) == stage_of(given)
    try:
        view = TrainingView(bound, dataset.meta, config.rename_map if is_asked else {})
    except Exception as error:  # whatever it is, training would stop at it
        return PolicyReading(error=reason(error))
    read = {config.rename_map.get(key, key): values for key, values in vectors(dataset).items()}
    return PolicyReading(
        view, view.read_texts(dataset, positions), view.check_vectors(read, frame_numbers(dataset))
    )


def _config_of(
    policy: str,
    stages: Sequence[BoundStage],
    given: BaseGemConfig | None,
    meta: LeRobotDatasetMetadata,
) -> BaseGemConfig | None:
    """The configuration whose prompts are looked at: that which was asked about, or the policy's last stage's."""
    bound = [stage.config for stage in stages if stage.config is not None and stage.name in STAGES_OF[policy]]
    asked = [config for config in bound if given is not None and stage_of(config) == stage_of(given)]
    if bound:
        return (asked or bound)[-1]
    return config_for_texts(given, meta) if policy == "gem" else None


def _read_sample(
    reader: CameraReader,
    config: CheckConfig,
    policies: Mapping[str, PolicyReading],
    random: np.random.Generator,
) -> Sample:
    """Measure a sample of frames, and put them through each policy's processor steps and the depth loss."""
    read = usable = 0
    unreadable, depth = FrameErrors(), FrameErrors()
    batches = {policy: FrameErrors() for policy in policies}
    positions = spread(reader.frames, config.num_frames, random)
    for start in range(0, len(positions), config.batch_size):
        items = reader.read(positions[start : start + config.batch_size], unreadable)
        read += len(items)
        for item in items:
            reader.measure(item)
        for policy, reading in policies.items():
            if reading.view is not None:
                others = [item for item in items if not reading.is_reported(item)]
                _try(reading.view.check_batch, others, batches[policy])
        usable += sum(int(frames.sum()) for frames in _try(reader.usable_depth, items, depth))
    return Sample(read, usable, unreadable, batches, depth)


def _stage_facts(
    stage: BoundStage, policies: Mapping[str, PolicyReading], sample: Sample, ranges: Sequence[VectorFacts]
) -> StageFacts:
    [policy] = [policy for policy, stages in STAGES_OF.items() if stage.name in stages]
    texts = policies[policy].texts
    losses = STAGES[stage.name].losses
    acts = "action" in losses
    errors = list(stage.errors)
    if stage.config is not None:  # else training would not get as far as a frame
        errors += [*policies[policy].errors, *sample.unreadable.lines, *sample.batches[policy].lines]
        if "depth" in stage.config.loss_weights:
            errors += sample.depth.lines
    language = None
    if texts is not None and (acts or "language" in losses):
        language = texts.with_language / max(texts.frames, 1)
    return StageFacts(
        name=stage.name,
        lacking=stage.lacking,
        errors=list(dict.fromkeys(errors)),
        depth=sample.usable_depth / max(sample.read, 1),
        language=language,
        action=float(any(vector.key == ACTION for vector in ranges)) if acts else None,
    )


def _padding(dataset: LeRobotDataset, stages: Sequence[BoundStage]) -> float | None:
    for stage in stages:
        if isinstance(stage.config, GemVLAConfig):
            return padding(dataset, stage.config.chunk_size)
    return None


def _prompt_facts(policies: Mapping[str, PolicyReading]) -> list[PromptFacts]:
    facts = []
    for policy, reading in policies.items():
        view, texts = reading.view, reading.texts
        if view is None or texts is None:
            continue
        lengths = np.array(texts.lengths)
        facts.append(
            PromptFacts(
                policy=policy,
                preset=view.config.preset,
                frames=texts.frames,
                image_tokens=view.image_tokens,
                prompts=len(lengths),
                lengths=(np.median(lengths), np.percentile(lengths, 95), lengths.max())
                if len(lengths)
                else None,
                context=view.context,
                too_long=int((lengths > view.context).sum()),
                questions=dict(texts.questions),
                task_only=texts.task_only,
                left_out=texts.left_out,
            )
        )
    return facts


def _show(
    reader: CameraReader,
    dataset: LeRobotDataset,
    policies: Mapping[str, PolicyReading],
    random: np.random.Generator,
) -> list[ShownFrame]:
    """Some frames to look at, those with text first."""
    has_text = np.flatnonzero(texts_of_frames(dataset))
    candidates = has_text if len(has_text) else np.arange(reader.frames)
    gem = policies["gem"]
    shown = []
    for place in spread(len(candidates), _SHOWN_FRAMES, random):
        position = int(candidates[place])
        for item in reader.read([position], FrameErrors()):
            messages: list[Message] = []
            if (
                gem.view is not None
                and gem.texts is not None
                and int(item["index"]) not in gem.texts.errors.frames
            ):
                [messages] = gem.view.messages(next(text_batches(dataset, [position])))
            shown.append(reader.show(item, messages))
    return shown


def spread(total: int, count: int | None, random: np.random.Generator) -> list[int]:
    """Numbers out of 0 to `total - 1`, in order.

    Args:
        total: How many there are.
        count: How many are drawn at most, one of each of as many equal parts; None for all.
        random: Draws them.
    """
    if count is None or count >= total:
        return list(range(total))
    edges = np.linspace(0, total, count + 1).astype(int)
    return random.integers(edges[:-1], edges[1:]).tolist()


def _try(call: Callable[[Item], Any], items: list[Item], errors: FrameErrors) -> list[Any]:
    """Call with a batch of all items; if that fails, with each item alone, to tell which one is at fault."""
    if not items:
        return []
    try:
        return [call(lerobot_collate_fn(items))]
    except Exception as error:  # whatever it is, training would stop at it
        at_once = error
    results, alone = [], 0
    for item in items:
        try:
            results.append(call(lerobot_collate_fn([item])))
        except Exception as error:
            alone += 1
            errors.add(int(item["index"]), error)
    if not alone:
        errors.add(int(items[0]["index"]), at_once)
    return results
