"""GEM-VLA for LeRobot.

Importing the package registers its policies, environments and processor steps; it loads no model code and no simulator.
"""

from lerobot_gem import configuration_gem, configuration_gem_vla
from lerobot_gem.processing import steps
from lerobot_gem.simulation import configuration_libero_wide

__all__ = ["configuration_gem", "configuration_gem_vla", "configuration_libero_wide", "steps"]
