"""Which weights compute in bfloat16 under autocast, whatever type they are stored in."""

from torch import nn

CAST_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def autocast_weights(module: nn.Module) -> set[str]:
    """Names of the weights that autocast casts each time they are used: those of linear layers and convolutions.

    Stored in bfloat16 they give the same numbers. All others take part in float32: norms, embeddings, positions.

    Args:
        module: With weights, or on the meta device.
    """
    return {
        f"{name}.{weight}" if name else weight
        for name, part in module.named_modules()
        if isinstance(part, CAST_LAYERS)
        for weight, _ in part.named_parameters(recurse=False)
    }
