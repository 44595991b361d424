"""`lerobot-gem-label-depth`: depth that a model predicts, beside the cameras of a dataset."""
