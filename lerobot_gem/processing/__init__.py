"""From a frame to what the models read: prompts, images, depth targets."""
