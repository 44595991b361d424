"""Wide placements: spread, free of overlap, stable, reproducible, never shared by training and evaluation."""

import numpy as np
import pytest

from lerobot_gem.simulation.placements import (
    WIDE_RULES,
    apply_benchmark,
    apply_wide,
    stream_rng,
    target_and_container,
    turned,
    wide_placement,
)
from lerobot_gem.simulation.scene import LiberoScene

pytestmark = pytest.mark.libero


def test_placements_are_inside_spread_and_apart(scene: LiberoScene) -> None:
    rule, (_, shapes) = WIDE_RULES["libero_object"], scene.rest
    target, container = target_and_container(scene)
    targets = []
    for number in range(200):
        placement = wide_placement(scene, stream_rng("training", 0, number))
        assert set(placement) == set(scene.objects)
        names = list(placement)
        for i, name in enumerate(names):
            area, (x, y) = rule.container if name == container else rule.objects, placement[name][:2]
            assert area.x[0] <= x <= area.x[1] and area.y[0] <= y <= area.y[1]
            for other in names[:i]:
                distance = np.hypot(*(placement[name][:2] - placement[other][:2]))
                assert distance > shapes[name].radius + shapes[other].radius
        targets.append(placement[target][:2])
    spread = np.ptp(targets, axis=0)
    assert (spread > 0.30).all()
    # Uniform, not clustered: every quarter of the area is used.
    centre = np.mean([rule.objects.x, rule.objects.y], axis=1)
    quarters = (np.array(targets) > centre) @ [1, 2]
    assert (np.bincount(quarters, minlength=4) > 25).all()


def test_placements_come_to_rest_where_they_were_put(scene: LiberoScene) -> None:
    for number in range(3):
        placement = wide_placement(scene, stream_rng("evaluation", number))
        apply_wide(scene, stream_rng("evaluation", number))
        for name, pose in placement.items():
            moved = np.abs(scene.pose(name)[:3] - pose[:3]).max()
            assert moved < 0.005, name
        assert not scene.success


def test_placement_is_a_function_of_stream_and_numbers(scene: LiberoScene) -> None:
    def draw(stream: str, *numbers: int) -> np.ndarray:
        placement = wide_placement(scene, stream_rng(stream, *numbers))
        return np.stack([placement[name] for name in scene.objects])

    np.testing.assert_array_equal(draw("training", 0, 3), draw("training", 0, 3))
    different = [
        draw("training", 0, 3),
        draw("training", 0, 4),
        draw("training", 1, 3),
        draw("evaluation", 0, 3),
    ]
    for i, one in enumerate(different):
        for other in different[:i]:
            assert np.abs(one - other).max() > 0.01


def test_benchmark_uses_the_suites_own_states(scene: LiberoScene) -> None:
    apply_benchmark(scene, 0)
    first = scene.pose("alphabet_soup_1")
    apply_benchmark(scene, len(scene.init_states))
    np.testing.assert_array_equal(scene.pose("alphabet_soup_1"), first)


def test_turned_keeps_position_and_norm() -> None:
    pose = np.array([1.0, 2, 3, np.sqrt(0.5), np.sqrt(0.5), 0, 0])
    quarter = turned(turned(pose, np.pi / 4), np.pi / 4)
    np.testing.assert_allclose(quarter, [1, 2, 3, 0.5, 0.5, 0.5, 0.5], atol=1e-12)
