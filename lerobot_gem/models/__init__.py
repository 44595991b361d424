"""The parts of GEM as plain PyTorch modules; nothing here knows LeRobot.

Kept free of imports, so that reading a preset does not load transformers.
"""
