"""GEM-VLA for LeRobot.

Importing the package registers its policies, environments and processor steps; it loads no model code and no simulator.
"""

from lerobot_gem.envs import configuration_libero_wide
from lerobot_gem.policies.gem import configuration_gem
from lerobot_gem.policies.gem_vla import configuration_gem_vla
from lerobot_gem.processing import steps

__all__ = ["configuration_gem", "configuration_gem_vla", "configuration_libero_wide", "steps"]
