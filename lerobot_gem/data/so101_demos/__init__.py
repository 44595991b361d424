"""`lerobot-gem-so101-demos`: demonstrations of the simulated SO-101 arm."""
