"""`--env.type=libero_wide`: LIBERO's tasks with objects drawn wide, so that a policy must look to solve them.

Imported with the plugin: nothing here may import the simulator.
"""

from dataclasses import dataclass
from typing import Any

from lerobot.envs.configs import EnvConfig, LiberoEnv as LiberoEnvConfig

from lerobot_gem.simulation.scene_changes import Amount, SceneChanges
from lerobot_gem.validation import checked

# LeRobot's options that say nothing here; on, as LeRobot has them, they can't be told from those not given.
_WITHOUT_EFFECT = {
    "init_states": "layouts are drawn by the seed and no initial states are read",
    "hard_reset": "resets are always soft",
}


@EnvConfig.register_subclass("libero_wide")
@dataclass
class LiberoWideEnvConfig(LiberoEnvConfig):
    """LeRobot's `libero` env with wide placements: same observations, actions, tasks and success test.

    Where objects are on the ground depends on the seed given to reset alone (`lerobot-eval` counts up from `--seed`), on
    no option here, and is never what `lerobot-gem-libero-demos` draws. No initial states are read and resets are always soft, so that
    `init_states` and `hard_reset` say nothing here: turning them off is an error.

    Attributes:
        task: LIBERO suite, or several separated by commas.
        multisampling: MuJoCo's default 4x antialiasing, as in LeRobot's `libero` env. Off by default as in
            `lerobot-gem-libero-demos`, since images cost half then; set it to what the policy was trained on.
        blank_images: The policy's images are black (videos are not). A policy that looks then fails; one that merely
            repeats what it remembers does not.
        camera_turn: Degrees that the fixed camera is turned about the vertical through the middle of the workspace,
            anticlockwise as seen from above, at the same distance, height and inclination (LIBERO-plus' horizontal rotation); one
            number, or [lowest, highest], from which each layout draws its own.
        table_height: Metres that the ground on which the objects stand is raised; robot and cameras stay. One number or two, as above.
        distractors: Number of objects of the suite's other tasks that are added, 0 to 4, with as much room around the target as the
            other objects leave.
        named_object: Does the policy listen? The instruction names this object of the scene in place of the task's own,
            e.g. `milk`; `other` draws one for each layout, and `any` may draw the task's own too. Success is then that the named object arrives (reward 1); where
            the task's own arrives instead, the episode ends with reward -1. Empty for the task's own instruction.
    """

    task: str = "libero_object"
    multisampling: bool = False
    blank_images: bool = False
    camera_turn: Amount = 0.0
    table_height: Amount = 0.0
    distractors: int = 0
    named_object: str = ""

    @checked
    def __post_init__(self) -> None:
        for name, why in _WITHOUT_EFFECT.items():
            if not getattr(self, name):
                raise ValueError(f"env.{name}=false has no effect in libero_wide, where {why}: leave it out.")
        super().__post_init__()
        if self.is_libero_plus:
            raise ValueError("libero_wide has no LIBERO-plus variants: leave env.is_libero_plus false.")
        self.changes()  # checks the amounts

    def changes(self) -> SceneChanges:
        """What differs from LIBERO's scene."""
        return SceneChanges(self.camera_turn, self.table_height)

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        kwargs = super().gym_kwargs
        kwargs.pop("hard_reset")
        ours = ("multisampling", "blank_images", "distractors", "named_object")
        return {**kwargs, "changes": self.changes(), **{name: getattr(self, name) for name in ours}}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        from lerobot_gem.simulation.libero_setup import require_libero

        require_libero()
        from lerobot_gem.envs.libero_wide import create_libero_wide_envs
        from lerobot_gem.envs.vector_envs import env_arguments

        return create_libero_wide_envs(**env_arguments(self, n_envs, use_async_envs))
