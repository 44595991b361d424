"""`--env.type=libero_pro`: LIBERO's tasks as LIBERO-PRO varies them.

Imported with the plugin: nothing here may import the simulator.
"""

from dataclasses import dataclass
from typing import Any

from lerobot.envs.configs import EnvConfig, LiberoEnv as LiberoEnvConfig

from lerobot_gem.validation import checked


@EnvConfig.register_subclass("libero_pro")
@dataclass
class LiberoProEnvConfig(LiberoEnvConfig):
    """LeRobot's `libero` env on LIBERO-PRO's task definitions and initial states: same observations, actions, success test.

    The instruction is the one in the task's definition. `lerobot-gem-libero-setup --pro` gets the files.

    Attributes:
        task: Suite of LIBERO-PRO, or several separated by commas: a suite of LIBERO and how it is varied, e.g.
            `libero_object_swap` (also `_lan`, `_object`, `_task`, `_temp_x0.3`, `_with_mug`).
    """

    task: str = "libero_object_swap"

    @checked
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_libero_plus:
            raise ValueError("libero_pro has no LIBERO-plus variants: leave env.is_libero_plus false.")
        if not self.init_states:
            raise ValueError("libero_pro evaluates LIBERO-PRO's initial states: leave env.init_states true.")

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        from lerobot_gem.simulation.libero_setup import require_libero

        require_libero()
        from lerobot_gem.envs.libero_pro import create_libero_pro_envs
        from lerobot_gem.envs.vector_envs import env_arguments

        return create_libero_pro_envs(**env_arguments(self, n_envs, use_async_envs))
