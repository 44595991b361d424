"""HDF5 files in the layout of LIBERO's own demonstrations, made from what our scripted policies do.

LIBERO's files can't be downloaded in a test. What is known of their layout is its `create_dataset.py`: rows of
states and actions that belong together, observations of the moment after each action, images as the simulator draws them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lerobot_gem.simulation.placements import apply_benchmark
from lerobot_gem.simulation.scene import GRIPPER_OPEN, LiberoScene
from lerobot_gem.simulation.scripted_policies import make_scripted_policy

FPS = 20
# LIBERO's recordings go on for ten steps after success.
_HELD = 10


@dataclass
class Demonstration:
    """States (T, S), actions (T, 7), and what the collector sees in each state."""

    states: np.ndarray
    actions: np.ndarray
    frames: list[dict[str, Any]]


def record(scene: LiberoScene, placement: int, longest: int = 16 * FPS) -> Demonstration:
    """What the scripted policy of a scene does from one of the suite's placements."""
    apply_benchmark(scene, placement)
    policy = make_scripted_policy(scene)
    states, actions, frames, after = [], [], [], 0
    while after <= _HELD and len(states) < longest:
        # The simulator's positions are those of the last but one physics step until they are computed anew.
        scene.env.sim.forward()
        states.append(scene.control.get_sim_state())
        frames.append(scene.observation(depth=True))
        actions.append(policy.action() if not after else np.array([0.0] * 6 + [GRIPPER_OPEN]))
        after += scene.step(actions[-1])
    return Demonstration(np.stack(states), np.stack(actions).astype(np.float64), frames)


def write_source(folder: Path, scene: LiberoScene, demonstrations: list[Demonstration]) -> Path:
    """Write a task's file into a folder; returns its path. To be called while the scene's model is the last one built."""
    file = folder / f"{scene.task}_demo.hdf5"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as stream:
        data = stream.create_group("data")
        problem = {
            "problem_name": scene.control.problem_name,
            "domain_name": scene.control.domain_name,
            "language_instruction": scene.control.language_instruction,
        }
        bddl = scene.env.bddl_file_name
        settings = {"control_freq": FPS, "camera_heights": 128, "camera_widths": 128}
        data.attrs["problem_info"] = json.dumps(problem)
        data.attrs["env_args"] = json.dumps({"type": 1, "bddl_file": bddl, "env_kwargs": settings})
        data.attrs["bddl_file_name"] = bddl
        data.attrs["macros_image_convention"] = "opengl"
        for number, one in enumerate(demonstrations):
            group = data.create_group(f"demo_{number}")
            group["states"], group["actions"] = one.states, one.actions
            last = np.arange(len(one.states)) == len(one.states) - 1
            group["dones"] = group["rewards"] = last.astype(np.uint8)
            later = [*one.frames[1:], one.frames[-1]]
            for name, key in (("agentview_rgb", "image"), ("eye_in_hand_rgb", "image2")):
                images = np.stack([frame[f"observation.images.{key}"] for frame in later])
                group[f"obs/{name}"] = images[:, ::-1, ::-1]
            states = np.stack([frame["observation.state"] for frame in later])
            group["obs/ee_states"], group["obs/gripper_states"] = states[:, :6], states[:, 6:]
            group.attrs["num_samples"] = len(one.states)
            group.attrs["init_state"] = one.states[0]
            group.attrs["model_file"] = scene.env.sim.model.get_xml()
        data.attrs["num_demos"] = len(demonstrations)
        data.attrs["total"] = sum(len(one.states) for one in demonstrations)
    return file
