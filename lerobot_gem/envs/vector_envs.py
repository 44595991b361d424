"""Vector environments as `lerobot-eval` wants them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
from lerobot.envs.configs import LiberoEnv as LiberoEnvConfig
from lerobot.envs.utils import _LazyAsyncVectorEnv, freeze_after_episode_end


def env_arguments(config: LiberoEnvConfig, n_envs: int, use_async_envs: bool) -> dict[str, Any]:
    """What a configuration of LIBERO says to the function that creates its environments.

    Args:
        config: The configuration.
        n_envs: Environments for each task.
        use_async_envs: One process for each environment, if there are several.
    """
    return {
        "suites": [name.strip() for name in config.task.split(",") if name.strip()],
        "task_ids": config.task_ids,
        "n_envs": n_envs,
        # One environment needs no process of its own.
        "use_async_envs": use_async_envs and n_envs > 1,
        "camera_name": config.camera_name,
        "camera_name_mapping": config.camera_name_mapping,
        "control_mode": config.control_mode,
        "episode_length": config.episode_length,
        **{key: value for key, value in config.gym_kwargs.items() if key != "task_ids"},
    }


def vector_envs(
    env_class: Callable[..., gym.Env],
    suites: Mapping[str, Any],
    task_ids: list[int] | None,
    n_envs: int,
    use_async_envs: bool,
    **env_kwargs: Any,
) -> dict[str, dict[int, Any]]:
    """Vector environments as LeRobot's `create_libero_envs` gives them: {suite: {task_id: vector env}}.

    Args:
        env_class: A subclass of LeRobot's `LiberoEnv`.
        suites: {name: suite}, with `tasks`.
        task_ids: Tasks of each suite, all when None.
        n_envs: Environments for each task.
        use_async_envs: One process for each environment.
        **env_kwargs: Of `env_class`.

    Raises:
        ValueError: An unknown task, or an unknown control mode.
    """
    from lerobot.envs.libero import _select_task_ids  # which needs LIBERO; other environments don't

    control_mode = env_kwargs.get("control_mode", "relative")
    if control_mode not in ("relative", "absolute"):
        raise ValueError(
            f"env.control_mode={control_mode!r} is unknown: expected one of 'relative', 'absolute'."
        )
    result: dict[str, dict[int, Any]] = {}
    for name, suite in suites.items():
        result[name] = {}
        for task_id in _select_task_ids(len(suite.tasks), task_ids):
            fns: list[Callable[[], gym.Env]] = [
                partial(env_class, suite, task_id, name, episode_index=i, n_envs=n_envs, **env_kwargs)
                for i in range(n_envs)
            ]
            result[name][task_id] = vector_env(fns, use_async_envs)
    return result


def vector_env(fns: list[Callable[[], gym.Env]], use_async_envs: bool) -> Any:
    """One vector environment, as LeRobot makes them.

    Args:
        fns: Each makes one environment.
        use_async_envs: One process for each environment.
    """
    if use_async_envs:
        return _LazyAsyncVectorEnv(fns)
    return gym.vector.SyncVectorEnv(
        [freeze_after_episode_end(fn) for fn in fns], autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP
    )
