"""Scores of a vision-language model on the questions of a dataset: asked in batches, answered greedily, scored by kind."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import draccus
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.device_utils import auto_select_torch_device, get_safe_torch_device
from tqdm import tqdm
from transformers import Qwen3VLConfig
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from lerobot_gem.checkpoints.formats import Checkpoint, open_checkpoint
from lerobot_gem.checkpoints.loading import load_backbone
from lerobot_gem.checkpoints.processor_files import load_tokenizer
from lerobot_gem.evaluation.vqa_questions import read_rows, select_rows
from lerobot_gem.evaluation.vqa_scores import KindScores, VqaRow, score_answer, score_answers
from lerobot_gem.inference.answering import Answerer, Question
from lerobot_gem.policies.base_configuration import DTYPES, require
from lerobot_gem.processing.images import CameraImages
from lerobot_gem.storage.opening import DatasetOptions, open_dataset
from lerobot_gem.storage.output_folder import check_empty

logger = logging.getLogger(__name__)


@dataclass
class VqaEvaluationConfig:
    """Which model to ask what.

    Attributes:
        model: Hub id or folder of a `gem` policy (its `pretrained_model`), of GEM-2B's layout, or of Qwen3-VL.
        dataset: A dataset with questions.
        output_dir: Folder to write `predictions.jsonl` and `scores.json` to; must not exist or be empty.
        kinds: Kinds of questions to ask; None for all.
        max_rows: Questions at most, spread evenly over the kinds; None for all.
        batch_size: Questions that are answered together.
        max_new_tokens: Where a longer answer is cut.
        device: "cuda", "cpu", ...; None takes the fastest there is.
        dtype: "float32" or "bfloat16"; None is a policy's own `dtype`, or the type of the stored weights.
        min_pixels: Smallest image area that the model is shown; None is a policy's own, or what the image processor that
            comes with the model says. To compare models, show them the same.
        max_pixels: The same for the largest area.
        seed: Of the choice of `max_rows` and of the bootstrap.
    """

    model: str
    dataset: DatasetOptions
    output_dir: Path
    kinds: list[str] | None = None
    max_rows: int | None = None
    batch_size: int = 16
    max_new_tokens: int = 128
    device: str | None = None
    dtype: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    seed: int = 1000

    def __post_init__(self) -> None:
        for name in ("max_rows", "batch_size", "max_new_tokens", "min_pixels", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected at least 1.")
        if self.dtype is not None:
            require(self.dtype, DTYPES, "dtype")


@dataclass(frozen=True)
class VqaReport:
    """What came out.

    Attributes:
        scores: By kind.
        rows: Questions that were answered.
        skipped: Reason -> questions of the dataset that could not be asked.
        seconds: Time that reading frames and answering took.
    """

    scores: list[KindScores]
    rows: int
    skipped: dict[str, int]
    seconds: float


def evaluate_vqa(config: VqaEvaluationConfig) -> VqaReport:
    """Load the model, ask, score and write.

    Raises:
        FileExistsError: `output_dir` is not empty.
        FileNotFoundError: There is no such model.
        ValueError: The dataset has no questions, or none of a kind that was asked for; or the model can't answer.
    """
    check_empty(config.output_dir)
    dataset = open_dataset(config.dataset)
    found = read_rows(dataset)
    rows = select_rows(found.rows, kinds=config.kinds, max_rows=config.max_rows, seed=config.seed)
    logger.info(f"{len(rows)} of {len(found.rows)} questions, {sum(found.skipped.values())} skipped")
    answerer = load_answerer(
        config.model,
        device=config.device,
        dtype=config.dtype,
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
        max_new_tokens=config.max_new_tokens,
    )
    start = time.perf_counter()
    answers = ask(dataset, rows, answerer.answer, config.batch_size, config.output_dir / "predictions.jsonl")
    seconds = time.perf_counter() - start
    scores = score_answers(rows, answers, seed=config.seed)
    report = VqaReport(scores, len(rows), dict(found.skipped), seconds)
    values = {
        "config": draccus.encode(config),
        "device": str(next(answerer.backbone.parameters()).device),
        "versions": {
            name: version(name) for name in ("lerobot", "lerobot_policy_gem", "torch", "transformers")
        },
        **asdict(report),
    }
    (config.output_dir / "scores.json").write_text(json.dumps(values, indent=2) + "\n")
    return report


def ask(
    dataset: LeRobotDataset,
    rows: Sequence[VqaRow],
    answer: Callable[[Sequence[Question]], list[str]],
    batch_size: int,
    predictions: Path,
) -> list[str]:
    """Ask all questions in batches and write down each with its answer and scores as soon as there are any.

    Args:
        dataset: Holds the frames.
        rows: Questions; those about one frame should follow each other, since a frame is read once for all of them.
        answer: Answers a batch.
        batch_size: Questions in it.
        predictions: File to write, one line of JSON for each question.
    """
    predictions.parent.mkdir(parents=True, exist_ok=True)
    answers: list[str] = []
    questions = _questions(dataset, rows)
    with predictions.open("w") as file:
        for start in tqdm(range(0, len(rows), batch_size), desc="Answering", unit="batch"):
            batch = rows[start : start + batch_size]
            written = answer([next(questions) for _ in batch])
            for row, text in zip(batch, written, strict=True):
                file.write(json.dumps(_prediction(row, text)) + "\n")
            file.flush()
            answers += written
    return answers


def load_answerer(
    pretrained: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    max_new_tokens: int = 256,
) -> Answerer:
    """What answers questions with the backbone of a checkpoint; nothing else of it is loaded.

    Args:
        pretrained: Hub id or folder of a `gem` policy, of GEM-2B's layout, or of Qwen3-VL.
        device: "cuda", "cpu", ...; None takes the fastest there is.
        dtype: "float32" or "bfloat16"; None is a policy's own, or the type of the stored weights.
        min_pixels: Smallest image area; None is the checkpoint's own.
        max_pixels: Largest image area; None is the checkpoint's own.
        max_new_tokens: Where a longer answer is cut.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It has no backbone, or one that is truncated or without language head; or `min_pixels` is more than
            `max_pixels`.
        OSError: It comes without tokenizer, or without image processor.
    """
    checkpoint = open_checkpoint(pretrained)
    _check_language_model(checkpoint)
    if checkpoint.format == "policy":
        policy: Any = PreTrainedConfig.from_pretrained(checkpoint.path)
        images = policy.images
        # As the policy itself computes: its weights as they are, and autocast.
        weights_dtype, bfloat16 = torch.float32, (dtype or policy.dtype) == "bfloat16"
    else:
        images = _images_of_qwen(checkpoint)
        stored = checkpoint.weights["backbone.model.language_model.embed_tokens.weight"].dtype
        weights_dtype, bfloat16 = (getattr(torch, dtype) if dtype else stored), False
    images = replace(
        images, min_pixels=min_pixels or images.min_pixels, max_pixels=max_pixels or images.max_pixels
    )
    if images.min_pixels > images.max_pixels:
        raise ValueError(
            f"min_pixels={images.min_pixels} and max_pixels={images.max_pixels}: expected the first to be the smaller one; "
            "those not given are the model's."
        )
    backbone = load_backbone(checkpoint, language_head=True, dtype=weights_dtype)
    backbone.to(get_safe_torch_device(device) if device else auto_select_torch_device()).eval()
    return Answerer(backbone, images, load_tokenizer(checkpoint), bfloat16, max_new_tokens)


def _questions(dataset: LeRobotDataset, rows: Sequence[VqaRow]) -> Iterator[Question]:
    """Images and text of each question."""
    positions = {
        index: position for position, index in enumerate(dataset.hf_dataset.data.column("index").to_pylist())
    }
    index, frame = -1, {}
    for row in rows:
        if row.index != index:
            index, frame = row.index, dataset[positions[row.index]]
        yield [frame[camera] for camera in row.cameras], row.question


def _prediction(row: VqaRow, answer: str) -> dict[str, Any]:
    scores = score_answer(row, answer)
    return {
        "index": row.index,
        "episode": row.episode,
        "cameras": row.cameras,
        "kind": row.kind,
        "question": row.question,
        "answer": row.answer,
        "prediction": answer,
        "region": row.region,
        "unparsed": scores is None,
        "scores": scores,
    }


def _images_of_qwen(checkpoint: Checkpoint) -> CameraImages:
    """The patches of the checkpoint's own image processor."""
    processor = Qwen2VLImageProcessor.from_pretrained(checkpoint.path)
    return CameraImages(
        cameras=[],
        layout="separate",
        patch_size=processor.patch_size,
        temporal_patch_size=processor.temporal_patch_size,
        merge_size=processor.merge_size,
        min_pixels=processor.size["shortest_edge"],
        max_pixels=processor.size["longest_edge"],
    )


def _check_language_model(checkpoint: Checkpoint) -> None:
    """Raise a ValueError if the checkpoint's backbone can't write."""
    weights = checkpoint.part("backbone")
    config = Qwen3VLConfig.from_dict(checkpoint.backbone_config)
    depth = config.get_text_config().num_hidden_layers
    kept = sum(name.endswith(".input_layernorm.weight") and ".language_model." in name for name in weights)
    remedy = "Evaluate the `gem` checkpoint or the Qwen3-VL that its backbone came from."
    if kept < depth:
        raise ValueError(
            f"model={str(checkpoint.path)!r} can't answer: it keeps {kept} of {depth} decoder layers, as a gem_vla policy "
            f"without depth loss does, whose expert reads no more. {remedy}"
        )
    if not config.tie_word_embeddings and "lm_head.weight" not in weights:
        raise ValueError(f"model={str(checkpoint.path)!r} can't answer: it has no language head. {remedy}")
