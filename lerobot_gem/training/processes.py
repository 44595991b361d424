"""The processes that train together, of which this is one."""

from accelerate.utils import parse_flag_from_env
from torch import distributed


def process_rank() -> int:
    """Which process of the training this is, counted from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def process_count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_sharded() -> bool:
    """Whether `accelerate launch` was told to shard (FSDP), which wants the weights of a block to be of one type."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")
