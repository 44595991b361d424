"""Serves a checkpoint of this plugin to AllenAI's vla-eval: its LeRobot server, with our policy types registered.

vla-eval 0.8 does not look for LeRobot's plugins, so its own server knows LeRobot's policies alone.
"""

from vla_eval.model_servers.lerobot import LeRobotModelServer
from vla_eval.model_servers.serve import run_server

import lerobot_policy_gem  # noqa: F401  # registers gem_vla

if __name__ == "__main__":
    run_server(LeRobotModelServer)
