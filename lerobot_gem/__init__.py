"""GEM-VLA for LeRobot.

Importing the package registers its policies, environments and processor steps; it loads no model code and no simulator. It
also points LIBERO to a configuration beside the environment, and cuts LeRobot's 234 lines about torchcodec to one.
"""

import logging

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
    "steps",
]


def _shorten_decoder_warning(record: logging.LogRecord) -> bool:
    """Cut what torchcodec says about every FFmpeg that it did not find; LeRobot decodes with PyAV then."""
    if "'torchcodec' is installed but cannot be loaded" in str(record.msg):
        record.msg = "torchcodec can't be loaded, mostly for lack of FFmpeg (apt-get install ffmpeg): videos are decoded with 'pyav'"
        record.args = None
    return True


logging.getLogger("lerobot.utils.import_utils").addFilter(_shorten_decoder_warning)
choose_config_folder()
