"""The door through which LeRobot finds the plugin: it imports the module named like the distribution."""

import lerobot_gem  # noqa: F401
