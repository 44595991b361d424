"""The turn of action tokens of a policy: fitted to the dataset when the policy is new, from the checkpoint afterwards."""

import logging
from typing import Any

import numpy as np
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import NormalizerProcessorStep
from numpy.typing import NDArray

from lerobot_gem.checkpoints.processor_files import load_tokenizer
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.processing.action_tokens import ActionTokens, refuse_large_error
from lerobot_gem.processing.action_turn import ActionTurn
from lerobot_gem.storage.action_chunks import read_action_chunks

logger = logging.getLogger(__name__)

# Chunks that tokens are fitted to, and that each frequency's worth is measured on.
_FITTED, _MEASURED = 20_000, 1_000


def build_action_turn(
    config: GemVLAConfig, dataset_meta: Any, *, weights_follow: bool, embedding_rows: int
) -> ActionTurn | None:
    """The policy's action tokens, None where it has none; writes what they are into `config.built`.

    Args:
        config: Of the policy; its features are settled.
        dataset_meta: Metadata of the training dataset, when there is one.
        weights_follow: A checkpoint's weights will be loaded next.
        embedding_rows: Rows of the backbone's embedding.

    Raises:
        ValueError: Tokens are asked for and the checkpoint has none, or others; there is no room for them; or they say too little.
    """
    options = config.action_tokens
    if dataset_meta is not None and not config.learns_tokens:
        # What is trained on without them forgets how to write them, and its last layers are not kept.
        if options.act == "tokens":
            raise ValueError(
                f"action_tokens.act='tokens' with action_tokens.loss_weight={options.loss_weight:g}: what is trained without tokens can't "
                "write them. Expected --policy.action_tokens.loss_weight=1, or --policy.action_tokens.act=flow."
            )
        if config.built.action_turn:
            logger.warning(
                "The checkpoint writes actions in tokens, and is trained on without them (action_tokens.loss_weight=0): what is saved acts by "
                "flow alone. To keep them: --policy.action_tokens.loss_weight=1."
            )
        config.built.action_turn = {}
    if config.built.action_turn:
        turn = ActionTurn.from_dict(config.built.action_turn)
        _check_unchanged(config, turn, embedding_rows)
        if dataset_meta is not None and config.learns_tokens:
            _report(turn.tokens, _normalised(config, dataset_meta, _MEASURED), dataset_meta)
        turn.check_length(options.max_coefficients)
        return turn
    if not config.learns_tokens and options.act == "flow":
        return None
    if weights_follow or not config.learns_tokens:
        given = f"action_tokens.act={options.act!r}, action_tokens.loss_weight={options.loss_weight:g}"
        if config.built.acts_alone:
            raise ValueError(
                f"{given}: the checkpoint was converted to act by flow (lerobot-gem-convert --format=acting), without what writes tokens. "
                "Expected the checkpoint that it was converted from."
            )
        raise ValueError(
            f"{given}: the policy has learned no action tokens. Expected a checkpoint that was trained with --policy.action_tokens.loss_weight=1, or a "
            "new policy that learns them (--policy.backbone.pretrained=<gem checkpoint or Qwen3-VL> instead of --policy.path)."
        )
    if dataset_meta is None:
        return None  # nothing to fit to, and nothing is trained
    chunks = _normalised(config, dataset_meta, _FITTED)
    tokens = ActionTokens.fit(list(chunks), options.vocabulary, options.scale)
    _report(tokens, chunks, dataset_meta)
    turn = ActionTurn.fit(
        tokens,
        chunks[:: max(1, len(chunks) // _MEASURED)],
        load_tokenizer(config.sources.backbone),
        embedding_rows=embedding_rows,
        follows_suffix=config.cameras.layout == "concat",
    )
    turn.check_length(options.max_coefficients)
    config.built.action_turn = turn.to_dict()
    return turn


def _check_unchanged(config: GemVLAConfig, turn: ActionTurn, embedding_rows: int) -> None:
    """Raise a ValueError if options, actions or embedding are not those that the tokens were fitted with."""
    options, tokens = config.action_tokens, turn.tokens
    for name, value, trained in (
        ("chunk_size", config.chunk_size, tokens.chunk_size),
        ("the size of an action", config.built.action_dim, turn.action_dim),
        ("action_tokens.scale", options.scale, tokens.scale),
    ):
        if value != trained:
            raise ValueError(
                f"{name}={value:g}, but the checkpoint's action tokens were fitted with {trained:g}. Leave the option out, or train a new "
                "policy."
            )
    if len(tokens) > options.vocabulary:
        raise ValueError(
            f"action_tokens.vocabulary={options.vocabulary}, but the checkpoint's action tokens are {len(tokens)}. Leave the option out, or "
            "train a new policy."
        )
    if turn.first_row + len(tokens) > embedding_rows:
        raise ValueError(
            f"The checkpoint's action tokens take the rows {turn.first_row} to {turn.first_row + len(tokens) - 1} of the backbone's embedding, "
            f"which has {embedding_rows}: expected config.json and weights of one checkpoint."
        )


def _normalised(config: GemVLAConfig, meta: Any, at_most: int) -> NDArray[np.float32]:
    """Chunks (N, T, A) of a dataset, as the policy's preprocessor hands them on."""
    chunks = torch.from_numpy(read_action_chunks(meta, config.chunk_size, at_most))
    normalise = NormalizerProcessorStep(
        features=config.output_features, norm_map=config.normalization_mapping, stats=meta.stats
    )
    transition = normalise({TransitionKey.ACTION: chunks, TransitionKey.OBSERVATION: {}})
    return config.limits.of_action(transition[TransitionKey.ACTION]).numpy()


def _report(tokens: ActionTokens, chunks: NDArray[np.float32], meta: Any) -> None:
    """Log what tokens cost, and raise a ValueError if they say too little."""
    report = tokens.measure(chunks)
    logger.info(f"Action tokens of {meta.repo_id!r}: {report}.")
    refuse_large_error(report, tokens.scale)
