"""Questions about what a simulation shows, with answers from its state."""
