"""GEM-VLA for LeRobot. Importing the package registers policies, environments and processor steps, and no model code."""

from lerobot_gem import configuration_gem_vla, processing
from lerobot_gem.processing import steps

__all__ = ["configuration_gem_vla", "processing", "steps"]
