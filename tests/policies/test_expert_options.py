"""Options of the action expert: each mistake is one error."""

import pytest

from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.validation import ConfigurationError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 0}, "expert.num_inference_steps=0: expected 1 to 1000"),
        ({"time_distribution": "gaussian"}, "expert.time_distribution='gaussian' is unknown"),
        (
            {"architecture": {"width": 8}},
            "expert.architecture='width' is unknown: expected one of 'hidden_size'",
        ),
        ({"architecture": {"depth": 0}}, "expert.architecture=.*: expected a depth from 1 to 1000"),
        ({"conditioning_layers": [0, -1]}, r"expert.conditioning_layers=\[0, -1\]: expected layers from 0"),
        ({"state_noise_snr": float("nan")}, "expert.state_noise_snr=nan: expected decibels from -100 to 100"),
        ({"state_noise_snr": float("-inf")}, "expert.state_noise_snr=-inf: expected decibels"),
        ({"state_noise_snr": -7000.0}, "expert.state_noise_snr=-7000.0: expected decibels"),
        ({"flow_samples": 0}, "expert.flow_samples=0: expected 1 to 100"),
    ],
)
def test_bad_values_are_named_with_what_is_expected(options: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        ExpertConfig(**options)
