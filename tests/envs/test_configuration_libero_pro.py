"""`--env.type=libero_pro` next to LeRobot's `libero`, as configurations."""

from dataclasses import dataclass

import draccus
import pytest
from lerobot.envs.configs import EnvConfig, LiberoEnv as LiberoEnvConfig

from lerobot_gem.envs.configuration_libero_pro import LiberoProEnvConfig
from lerobot_gem.validation import ConfigurationError


@dataclass
class _Arguments:
    env: EnvConfig


def test_parses_and_offers_what_lerobots_env_offers() -> None:
    arguments = ["--env.type=libero_pro", "--env.task=libero_object_temp_x0.3,libero_goal_lan"]
    config = draccus.parse(_Arguments, args=arguments).env
    assert isinstance(config, LiberoProEnvConfig)
    assert config.type == "libero_pro" and config.task == "libero_object_temp_x0.3,libero_goal_lan"
    assert config.features_map == LiberoEnvConfig().features_map


def test_what_has_no_meaning_here_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is_libero_plus"):
        LiberoProEnvConfig(is_libero_plus=True)
    with pytest.raises(ConfigurationError, match="init_states"):
        LiberoProEnvConfig(init_states=False)
