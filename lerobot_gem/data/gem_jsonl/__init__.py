"""`lerobot-gem-import` and `lerobot-gem-export`: GEM-250K's format as a LeRobotDataset, and back."""
