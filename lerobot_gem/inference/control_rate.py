"""The rate at which a robot is sent actions: that of the data, or they mean another speed."""

import logging
from typing import Any

from lerobot_gem.inference.run_configuration import is_given, run_fields

logger = logging.getLogger(__name__)

# In Hz: no arm of LeRobot's is sent goals as often.
_FASTEST = 1000


def check_trained_rate(trained: float) -> None:
    """Refuse a rate at which no arm was recorded.

    Args:
        trained: Frames per second of the training data, as a checkpoint or a dataset says.

    Raises:
        ValueError: It is no such rate.
    """
    if not 0 < trained <= _FASTEST:
        raise ValueError(
            f"The training data's rate is {trained} Hz (built.fps in the policy's config.json): expected frames per second of its training "
            f"data, more than 0 and at most {_FASTEST}. The file was damaged or edited: copy or download the checkpoint again."
        )


def match_rate(config: Any, trained: float | None) -> None:
    """Let `lerobot-rollout` act at the rate of the training data, unless the user gave another one, which is warned of.

    A simulated arm's rate is warned of alone: `lerobot-eval` has built it by then.

    Args:
        config: Of the policy that is loaded.
        trained: Frames per second of the training data; None where the checkpoint does not say.

    Raises:
        ValueError: The checkpoint says a rate at which no arm acts.
    """
    if trained is None:
        return
    evaluation = run_fields(config, "lerobot.configs.eval", "EvalPipelineConfig")
    if evaluation is not None:
        _warn_of_simulated_rate(evaluation["env"], trained)
    rollout = run_fields(config, "lerobot.rollout.configs", "RolloutConfig")
    if rollout is None or rollout["fps"] == trained:
        return
    check_trained_rate(trained)
    if not is_given("fps"):
        logger.warning(
            "fps is %g: the rate of the policy's training data, in place of lerobot-rollout's default of %g.",
            trained,
            rollout["fps"],
        )
        rollout["fps"] = trained
        if rollout["dataset"] is not None and not is_given("dataset.fps"):
            rollout["dataset"].fps = round(trained)
    else:
        logger.warning(
            "fps=%g, but the policy's training data has %g frames per second: its actions mean %.2g times the speed that they "
            "had there. Leave fps out, or give --fps=%g.",
            rollout["fps"],
            trained,
            rollout["fps"] / trained,
            trained,
        )


def _warn_of_simulated_rate(env: Any, trained: float) -> None:
    # LIBERO's own data says another rate than its actions were recorded at.
    if env.type == "gem_so101" and env.fps != trained:
        logger.warning(
            "env.fps=%g, but the policy's training data has %g frames per second: its actions mean another speed there. Give --env.fps=%g.",
            env.fps,
            trained,
            trained,
        )
