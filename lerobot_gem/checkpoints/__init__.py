"""Weights in every format: opened once and handed down, read one tensor at a time."""
