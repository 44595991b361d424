"""`lerobot-gem-libero-demos`: demonstrations, scenes and questions from the simulator as a LeRobotDataset."""
