"""Inspects a dataset: counts and measures what training will see, and collects the errors that it would raise.

Numbers are read of all frames, texts of `num_texts` frames at most, images of a sample that is spread over the dataset. Any number of
tasks share texts and images (data/executors.py), each of which opens the dataset; what they found is put together in the order of the
frames.
"""

import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import batched
from pathlib import Path
from tempfile import TemporaryDirectory
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
from lerobot_gem.data.check.page import write_page
from lerobot_gem.data.check.report import as_text
from lerobot_gem.data.check.stage_checks import (
    STAGES_OF,
    TEXT_BATCH,
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
from lerobot_gem.data.check.training_path import Item, open_for_training
from lerobot_gem.data.executors import ExecutorOptions, Phase, run_phases, share
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.policies.base_options import DepthSupervision
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.dataset_names import outside_observation, state_like
from lerobot_gem.processing.depth_cameras import pair_depth
from lerobot_gem.processing.language import Message
from lerobot_gem.storage.dataset_agreement import check_rows
from lerobot_gem.storage.reasons import reason
from lerobot_gem.training.stages import STAGES
from lerobot_gem.validation import checked, require_at_least

# Frames on the page with pictures.
_SHOWN_FRAMES = 6


@dataclass
class CheckConfig(TrainPipelineConfig, ExecutorOptions):
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
        self.check_executor()
        require_at_least(self, num_frames=1, num_texts=1)
        if self.executor != "local" and self.html is None:
            raise ValueError(
                f"executor={self.executor} without html: expected the page's file, beside which the tasks leave what they find."
            )


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


@dataclass
class Sample:
    """What the sampled frames held, with their images.

    Attributes:
        read: How many could be read.
        usable_depth: How many have depth to learn from.
        unreadable: Those that can't be read.
        batches: Policy -> what its training would raise at a batch.
        depth: What the depth loss would raise.
    """

    read: int = 0
    usable_depth: int = 0
    unreadable: FrameErrors = field(default_factory=FrameErrors)
    batches: dict[str, FrameErrors] = field(
        default_factory=lambda: {policy: FrameErrors() for policy in STAGES_OF}
    )
    depth: FrameErrors = field(default_factory=FrameErrors)

    def take(self, others: "Sample") -> None:
        """Add what others held, which come behind these."""
        self.read += others.read
        self.usable_depth += others.usable_depth
        self.unreadable.entries += others.unreadable.entries
        self.depth.entries += others.depth.entries
        for policy, errors in others.batches.items():
            self.batches[policy].entries += errors.entries


def inspect(config: CheckConfig) -> Inspection | None:
    """Inspect a dataset, for the policy of `config` or, without one, for every stage that it is made for.

    Returns:
        What was found; None where Slurm goes on with it, whose last job prints it and writes the page.

    Raises:
        FileNotFoundError: There is no dataset, or no Slurm.
        ValueError: It is of another format or can't be read, or the policy is not one of ours.
        ModuleNotFoundError: Ray is not installed.
        ChildProcessError: A process was killed, or tasks failed on Ray.
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
    if config.executor == "local":
        with TemporaryDirectory() as temporary:
            return _run(_Inspector(config, Path(temporary)))
    assert config.html is not None  # as the configuration checks
    folder = config.html.with_name(f"{config.html.name}.checking")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = _run(_Inspector(config, folder))
    if found is not None:
        shutil.rmtree(folder)
    return found


def _run(work: "_Inspector") -> Inspection | None:
    config = work.config
    finish = work.report if config.executor == "slurm" else work.finish
    phases = [Phase("texts", work.read_texts), Phase("images", work.read_images)]
    return run_phases(
        config,
        work.folder,
        phases,
        finish,
        processes=config.tasks or 1,
        forks=False,  # what is opened here has threads
        after_failure="Nothing is kept: the same command starts again.",
    )


class _Inspector:
    """The steps of an inspection; each can be another process's, on another machine.

    Args:
        config: What to inspect.
        folder: Where tasks leave what they find.
    """

    def __init__(self, config: CheckConfig, folder: Path) -> None:
        self.config, self.folder = config, folder

    def __getstate__(self) -> dict[str, Any]:
        # What is open stays in its process.
        return {"config": self.config, "folder": self.folder}

    @property
    def given(self) -> BaseGemConfig | None:
        """The policy that was asked about."""
        policy = self.config.policy
        return policy if isinstance(policy, BaseGemConfig) else None

    @cached_property
    def opened(self) -> tuple[LeRobotDatasetMetadata, LeRobotDataset | None]:
        """Metadata, and the dataset, which is None if it has no frames."""
        return open_for_training(self.config, self.given or stage_config("joint", None))

    @cached_property
    def stages(self) -> list[BoundStage]:
        """All four."""
        return [bind_stage(stage, self.given, self.opened[0], self.config.rename_map) for stage in STAGES]

    @cached_property
    def disagreement(self) -> list[str]:
        """Why the rows of the dataset can't be inspected, if they can't."""
        return _disagreement(self.opened[0])

    @property
    def dataset(self) -> LeRobotDataset | None:
        """The dataset; None if it can't be inspected."""
        return None if self.disagreement else self.opened[1]

    @cached_property
    def draws(self) -> tuple[list[int], list[int], np.random.Generator]:
        """Positions of the frames whose texts are read, and whose images; and what draws further ones."""
        assert self.dataset is not None
        random, frames = np.random.default_rng(self.config.seed), len(self.dataset.hf_dataset)
        texts = spread(frames, self.config.num_texts, random)
        return texts, spread(frames, self.config.num_frames, random), random

    @cached_property
    def views(self) -> dict[str, PolicyReading]:
        """What each policy's training reads, without texts and what it would raise at vectors."""
        assert self.dataset is not None
        return {
            policy: _view(policy, self.stages, self.config, self.given, self.dataset) for policy in STAGES_OF
        }

    @cached_property
    def supervision(self) -> DepthSupervision:
        """Which depth is looked at, and how it is learned."""
        return _supervision(self.given or stage_config("joint", None), self.opened[0])

    def read_texts(self, rank: int, tasks: int) -> None:
        """Read a task's share of the texts, and the first task the vectors of all frames."""
        if self.dataset is None:
            return
        batches = list(batched(self.draws[0], TEXT_BATCH))
        positions = [position for batch in batches[share(len(batches), rank, tasks)] for position in batch]
        found = {
            policy: reading.view.read_texts(self.dataset, positions)
            for policy, reading in self.views.items()
            if reading.view is not None
        }
        self._leave("texts", rank, found)
        if rank == 0:
            self._leave("vectors", rank, self._vector_errors(self.dataset))

    def _vector_errors(self, dataset: LeRobotDataset) -> dict[str, FrameErrors]:
        """What each policy's training would raise at states and actions."""
        names = self.config.rename_map
        read = {names.get(key, key): values for key, values in vectors(dataset).items()}
        numbers = frame_numbers(dataset)
        return {
            policy: reading.view.check_vectors(read, numbers)
            for policy, reading in self.views.items()
            if reading.view is not None
        }

    def read_images(self, rank: int, tasks: int) -> None:
        """Read a task's share of the frames with images."""
        if self.dataset is None:
            return
        batches = list(batched(self.draws[1], self.config.batch_size))
        reader = CameraReader(self.dataset, self.supervision)
        sample = _read_sample(reader, batches[share(len(batches), rank, tasks)], self._readings())
        self._leave("images", rank, (sample, reader.measured))

    def finish(self) -> Inspection:
        """Put together what was found."""
        config, given = self.config, self.given
        meta = self.opened[0]
        about: dict[str, Any] = {
            "repo_id": meta.repo_id,
            "root": meta.root,
            "robot": meta.robot_type,
            "fps": meta.fps,
            "asked": stage_of(given) if given is not None else None,
        }
        dataset, stages = self.dataset, self.stages
        if dataset is None:
            facts = [
                StageFacts(
                    stage.name, stage.lacking, list(dict.fromkeys([*stage.errors, *self.disagreement]))
                )
                for stage in stages
            ]
            return Inspection(**about, episodes=meta.total_episodes, frames=meta.total_frames, stages=facts)
        policies = self._readings()
        reader = CameraReader(dataset, self.supervision)
        sample = Sample()
        for others, measured in self._left("images"):
            sample.take(others)
            reader.take(measured)
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
            colormap=self.supervision.colormap,
            shown=_show(reader, dataset, policies, self.draws[2]) if config.html is not None else [],
        )

    def report(self) -> Inspection:
        """Put together what was found, where nobody waits for it: print it, and write the page."""
        assert self.config.html is not None
        found = self.finish()
        print(as_text(found))
        write_page(found, self.config.html)
        shutil.rmtree(self.folder)
        return found

    def _readings(self) -> dict[str, PolicyReading]:
        """What each policy's training reads, with the vectors and the texts of all tasks."""
        [vector_errors] = self._left("vectors")
        texts = {policy: Texts() for policy, reading in self.views.items() if reading.view is not None}
        for found in self._left("texts"):
            for policy, others in found.items():
                texts[policy].take(others)
        return {
            policy: replace(
                reading, texts=texts.get(policy), vectors=vector_errors.get(policy, reading.vectors)
            )
            for policy, reading in self.views.items()
        }

    def _leave(self, name: str, rank: int, found: object) -> None:
        with (self.folder / f"{name}-{rank:05d}.pickle").open("wb") as file:
            pickle.dump(found, file)

    def _left(self, name: str) -> list[Any]:
        """What the tasks left, in their order, which is that of the frames."""
        return [pickle.loads(file.read_bytes()) for file in sorted(self.folder.glob(f"{name}-*.pickle"))]


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


def _view(
    policy: str,
    stages: Sequence[BoundStage],
    config: CheckConfig,
    given: BaseGemConfig | None,
    dataset: LeRobotDataset,
) -> PolicyReading:
    """See the dataset as the policy's training does."""
    bound = _config_of(policy, stages, given, dataset.meta)
    if bound is None:
        return PolicyReading()
    is_asked = given is not None and stage_of(bound) == stage_of(given)
    try:
        return PolicyReading(TrainingView(bound, dataset.meta, config.rename_map if is_asked else {}))
    except Exception as error:  # whatever it is, training would stop at it
        return PolicyReading(error=reason(error))


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
    reader: CameraReader, batches: Sequence[Sequence[int]], policies: Mapping[str, PolicyReading]
) -> Sample:
    """Measure frames, and put them through each policy's processor steps and the depth loss."""
    sample = Sample()
    for positions in batches:
        items = reader.read(positions, sample.unreadable)
        sample.read += len(items)
        for item in items:
            reader.measure(item)
        for policy, reading in policies.items():
            if reading.view is not None:
                others = [item for item in items if not reading.is_reported(item)]
                _try(reading.view.check_batch, others, sample.batches[policy])
        sample.usable_depth += sum(
            int(frames.sum()) for frames in _try(reader.usable_depth, items, sample.depth)
        )
    return sample


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
        depth=sample.usable_depth / sample.read if sample.read else None,
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
