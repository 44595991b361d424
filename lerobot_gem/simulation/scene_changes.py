"""How a layout differs from LIBERO's: the fixed camera turned, the ground raised.

Both change the simulation itself, not its pictures: depth, contacts and the test of success change with them. Where
objects stand on the ground does not depend on either, so that policies can be compared on the same layouts.
"""

from dataclasses import dataclass

import numpy as np

from lerobot_gem.simulation.scene import LiberoScene

# One value for all layouts, or [lowest, highest], from which each layout draws its own.
Amount = float | list[float]


@dataclass(frozen=True)
class SceneChanges:
    """What changes in a layout.

    Attributes:
        camera_turn: Degrees that the fixed camera is turned about the vertical through the middle of the workspace,
            anticlockwise as seen from above. Its distance, height and inclination stay (the horizontal rotation of
            LIBERO-plus, arXiv 2510.13626).
        table_height: Metres that the ground on which the objects stand is raised. Robot and cameras stay where they are.

    Raises:
        ValueError: Not a finite number, nor a lowest and a highest one.
    """

    camera_turn: Amount = 0.0
    table_height: Amount = 0.0

    def __post_init__(self) -> None:
        for name in ("camera_turn", "table_height"):
            amount = getattr(self, name)
            numbers = amount if isinstance(amount, list) else [amount, amount]
            if len(numbers) != 2 or not np.isfinite(numbers).all() or numbers[0] > numbers[1]:
                raise ValueError(
                    f"{name}={amount}: expected one number, or [lowest, highest] to draw from for each layout."
                )

    def apply(self, scene: LiberoScene, rng: np.random.Generator) -> None:
        """Change a scene; the objects are to be placed afterwards.

        Args:
            scene: The scene.
            rng: Draws the amounts that are ranges.
        """
        scene.turn_camera(_amount(self.camera_turn, rng))
        scene.raise_ground(_amount(self.table_height, rng))


LIBEROS_OWN = SceneChanges()


def _amount(amount: Amount, rng: np.random.Generator) -> float:
    return float(rng.uniform(amount[0], amount[1])) if isinstance(amount, list) else amount
