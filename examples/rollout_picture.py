"""A moving picture of one rollout: the scene, and beside it what the policy sees, its depth, and the depth that GEM paints.

    python examples/rollout_picture.py --acting=<gem_vla checkpoint> --painting=<gem checkpoint of stage 3> --output=rollout.webp

Layouts are tried in the order of their seeds until the policy solves one. Both checkpoints are of `make demo` or of
examples/depth_helps.py: they know one LIBERO-Object task, in pictures of 128 px, at 5 Hz. The acting policy paints nothing.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.factory import make_env, make_env_pre_post_processors
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.scripts.lerobot_eval import rollout
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from runs import EPISODE_LENGTH, FPS, IMAGE_SIZE, SUITE
from torch import Tensor

from lerobot_gem.envs.configuration_libero_wide import LiberoWideEnvConfig
from lerobot_gem.policies.gem.modeling_gem import GemPolicy
from lerobot_gem.processing.depth_target import depth_target
from lerobot_gem.simulation.rendering import Renderer, flip

TASK_ID = 9
CAMERAS = {"observation.images.image": "agentview", "observation.images.image2": "robot0_eye_in_hand"}
PAINTED = "observation.images.image"
SCENE_SIZE, CAPTION, GAP = 224, 22, 6
TRIES = 10


@dataclass(frozen=True)
class Moment:
    """One step of a rollout.

    Attributes:
        scene: (S, S, 3) uint8, drawn for people.
        seen: Camera -> (1, 3, H, W) in [0, 1], what the policy sees.
        depth: (1, 1, H, W) in metres, of the painted camera.
    """

    scene: NDArray[np.uint8]
    seen: dict[str, Tensor]
    depth: Tensor


def acted(path: Path, seed: int) -> list[Moment]:
    """The moments of the first layout from a seed on that the policy solves.

    Args:
        path: A gem_vla checkpoint.
        seed: Of the first layout.

    Raises:
        RuntimeError: It solves none of `TRIES`.
    """
    config = PreTrainedConfig.from_pretrained(path)
    config.pretrained_path = path
    env_config = LiberoWideEnvConfig(
        task=SUITE,
        task_ids=[TASK_ID],
        fps=FPS,
        episode_length=EPISODE_LENGTH,
        observation_height=IMAGE_SIZE,
        observation_width=IMAGE_SIZE,
    )
    env = make_env(env_config, n_envs=1)[SUITE][TASK_ID]
    policy = make_policy(cfg=config, env_cfg=env_config).eval()
    preprocess, postprocess = make_pre_post_processors(config, pretrained_path=str(path))
    env_preprocess, env_postprocess = make_env_pre_post_processors(env_cfg=env_config, policy_cfg=config)
    moments: list[Moment] = []
    drawing: list[Renderer] = []

    def look(vector_env: Any) -> None:
        scene = vector_env.envs[0].unwrapped._scene_now()
        if not drawing:
            drawing.append(Renderer(scene.env.sim, SCENE_SIZE, SCENE_SIZE, multisampling=True))
        frames = {camera: scene.renderer.render(name, depth=True) for camera, name in CAMERAS.items()}
        seen = {
            camera: torch.from_numpy(flip(frame.rgb)).movedim(2, 0)[None] / 255
            for camera, frame in frames.items()
        }
        metres = torch.from_numpy(flip(frames[PAINTED].depth))[None, None]
        moments.append(Moment(flip(drawing[0].render("agentview").rgb), seen, metres))

    for number in range(seed, seed + TRIES):
        moments.clear()
        torch.manual_seed(number)
        found = rollout(
            env,
            policy,
            env_preprocess,
            env_postprocess,
            preprocess,
            postprocess,
            seeds=[number],
            render_callback=look,
        )
        solved = bool(found["success"].any())
        print(f"Layout {number}: {'solved' if solved else 'not solved'}, {len(moments)} moments")
        if solved:
            drawing[0].close()
            env.close()
            return moments
    raise RuntimeError(f"{path} solves none of the layouts {seed} to {seed + TRIES - 1}.")


def painted(path: Path, moments: list[Moment]) -> list[tuple[Tensor, Tensor]]:
    """For each moment the picture of true depth and the painted one, (3, h, w) in [0, 1].

    Args:
        path: A gem checkpoint.
        moments: Of a rollout.
    """
    policy = GemPolicy.from_pretrained(str(path))
    preprocess, _ = make_pre_post_processors(policy.config, pretrained_path=str(path))
    supervision = policy.config.depth_supervision
    noise = torch.Generator().manual_seed(0)
    pictures = []
    for moment in moments:
        true = depth_target(moment.depth, colormap=supervision.colormap, max_side=supervision.max_side)
        generated = policy.generate_depth(preprocess(dict(moment.seen)), generator=noise)
        pictures.append((true.pictures[0] / 2 + 0.5, generated[PAINTED][0].float().cpu()))
    return pictures


def sheet(moment: Moment, true: Tensor, generated: Tensor) -> Image.Image:
    """One picture of the film."""
    tiles = {
        "rollout": Image.fromarray(moment.scene),
        f"what the policy sees ({IMAGE_SIZE} px)": as_image(moment.seen[PAINTED][0]),
        "its depth": as_image(true),
        "depth that GEM paints": as_image(generated),
    }
    width = len(tiles) * (SCENE_SIZE + GAP) - GAP
    film = Image.new("RGB", (width, SCENE_SIZE + CAPTION), "white")
    font = ImageFont.load_default(14)
    for number, (caption, tile) in enumerate(tiles.items()):
        left = number * (SCENE_SIZE + GAP)
        film.paste(tile.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.BICUBIC), (left, CAPTION))
        ImageDraw.Draw(film).text((left + SCENE_SIZE // 2, 3), caption, "#1c2733", font, anchor="ma")
    return film


def as_image(picture: Tensor) -> Image.Image:
    """(3, h, w) in [0, 1]."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().movedim(0, 2).numpy())


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--acting", type=Path, required=True, help="pretrained_model of a gem_vla policy")
    arguments.add_argument("--painting", type=Path, required=True, help="pretrained_model of stage 3")
    arguments.add_argument("--seed", type=int, default=1000, help="of the first layout")
    arguments.add_argument("--output", type=Path, default=Path("rollout.webp"))
    options = arguments.parse_args()
    moments = acted(options.acting, options.seed)
    films = [
        sheet(moment, *pictures)
        for moment, pictures in zip(moments, painted(options.painting, moments), strict=True)
    ]
    durations = [1000 // FPS] * (len(films) - 1) + [1500]
    films[0].save(
        options.output,
        save_all=True,
        append_images=films[1:],
        duration=durations,
        loop=0,
        quality=80,
        method=6,
    )
    print(f"{options.output}: {len(films)} moments, {options.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
