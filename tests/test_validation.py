"""How fields are checked."""

from types import SimpleNamespace

import draccus
import pytest

from lerobot_gem.envs.configuration_so101 import SO101EnvConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.validation import require, require_at_least


def test_a_wrong_value_on_the_command_line_says_why():
    with pytest.raises(Exception, match="n_action_steps=9: expected 1 to chunk_size=4"):
        draccus.parse(GemVLAConfig, args=["--preset=tiny", "--chunk_size=4", "--n_action_steps=9"])
    with pytest.raises(Exception, match=r"env.fps=0: expected at least 1"):
        draccus.parse(SO101EnvConfig, args=["--fps=0"])


def test_what_is_checked_is_named():
    require("a", ("a", "b"), "field")
    with pytest.raises(ValueError, match="field='c' is unknown: expected one of 'a', 'b'"):
        require("c", ("a", "b"), "field")
    require_at_least(SimpleNamespace(count=None, size=2), count=1, size=2)
    for wrong in (0, float("nan")):
        with pytest.raises(ValueError, match=f"count={wrong}: expected at least 1"):
            require_at_least(SimpleNamespace(count=wrong), count=1)
