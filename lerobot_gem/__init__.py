"""GEM-VLA for LeRobot.

Importing the package registers its policies, environments and processor steps; it loads no model code and no simulator. It
also points LIBERO to a configuration beside the environment, and leaves out harmless warnings of other packages.
"""

# First, since the others import those packages.
from lerobot_gem import harmless_warnings  # isort: split

from lerobot_gem.envs import configuration_libero_pro, configuration_libero_wide, configuration_so101
from lerobot_gem.policies.gem import configuration_gem
from lerobot_gem.policies.gem_vla import configuration_gem_vla
from lerobot_gem.processing import steps
from lerobot_gem.simulation.libero_setup import choose_config_folder

__all__ = [
    "configuration_gem",
    "configuration_gem_vla",
    "configuration_libero_pro",
    "configuration_libero_wide",
    "configuration_so101",
    "harmless_warnings",
    "steps",
]

choose_config_folder()
