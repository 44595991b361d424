"""What a policy was built with."""

import draccus
import pytest

from lerobot_gem.policies.built import BuiltConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig


def test_what_was_built_is_no_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        draccus.parse(GemVLAConfig, args=["--preset=tiny", "--built.action_dim=3"])
    assert "unrecognized arguments: --built.action_dim=3" in capsys.readouterr().err
    assert draccus.parse(GemVLAConfig, args=["--preset=tiny"]).built == BuiltConfig()
