"""Who learns, and how: stages, trainable parameters, optimisers."""
