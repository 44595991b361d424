"""Checkpoints: released layouts in, standard layouts out; never more than one tensor in memory beyond the model."""

from lerobot_gem.checkpoints.files import (
    StoredTensor,
    load_policy_weights,
    load_weights,
    stored_weights,
    write_weights,
)
from lerobot_gem.checkpoints.layouts import (
    Checkpoint,
    open_checkpoint,
    read_part,
    read_sana_architecture,
)
from lerobot_gem.checkpoints.release_expert import expert_from_release, expert_to_release

__all__ = [
    "Checkpoint",
    "StoredTensor",
    "expert_from_release",
    "expert_to_release",
    "load_policy_weights",
    "load_weights",
    "open_checkpoint",
    "read_part",
    "read_sana_architecture",
    "stored_weights",
    "write_weights",
]
