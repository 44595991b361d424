"""`lerobot-gem-check`: what training will see of a dataset, and the errors that it would raise."""
