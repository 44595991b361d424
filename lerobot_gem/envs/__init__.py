"""What `lerobot-eval` sees of the simulator: environment types and the environments themselves."""
