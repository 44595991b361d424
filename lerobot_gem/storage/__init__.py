"""LeRobotDataset v3.0 on disk: the only room that knows its files."""
