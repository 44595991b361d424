"""What acting saves by running only what the action needs.

Compares, with the same random weights and in one run,

* the release's way: all decoder layers, the language head over all tokens, the expert's keys and values and
  modulations computed anew at each denoising step;
* ours: decoder layers up to the last one the expert reads, keys, values and modulations once per observation.

Both give the same actions; the script checks that. Times are CPU seconds, since wall seconds on a shared machine
say little; the two ways take turns, so that disturbances meet both.

    python benchmarks/acting.py --repeats=7 --threads=1
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from lerobot_gem.models.action_expert import ActionExpert
from lerobot_gem.models.backbone import GemBackbone
from lerobot_gem.models.conditioning import Conditioning
from lerobot_gem.models.presets import ExpertArchitecture, get_preset

# The proportions of GEM-2B (half of the decoder is read, a language head over a large vocabulary) at about a tenth
# of its size.
DECODER_LAYERS, EXPERT_BLOCKS = 28, 14
WIDTH, ACTIONS, ACTION_DIM, STEPS = 512, 32, 7, 5
CAMERAS, IMAGE_SIZE, TEXT_TOKENS = 2, 256, 24


def build() -> tuple[Qwen3VLForConditionalGeneration, GemBackbone, ActionExpert]:
    """The whole model, the truncated backbone with the same weights, and the expert."""
    values = dict(get_preset("2b").backbone)
    values["text_config"] = values["text_config"] | {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": DECODER_LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "rope_parameters": values["text_config"]["rope_parameters"] | {"mrope_section": [12, 10, 10]},
    }
    values["vision_config"] = values["vision_config"] | {
        "depth": 6,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_heads": 8,
        "out_hidden_size": WIDTH,
        "deepstack_visual_indexes": [1, 3, 5],
    }
    config = Qwen3VLConfig(**values)
    whole = Qwen3VLForConditionalGeneration(config).eval()
    backbone = GemBackbone(config, num_layers=EXPERT_BLOCKS - 1).eval()
    kept = backbone.state_dict()
    backbone.load_state_dict({name: weight for name, weight in whole.state_dict().items() if name in kept})
    architecture = ExpertArchitecture(hidden_size=256, depth=EXPERT_BLOCKS, num_heads=4, num_kv_heads=2)
    expert = ActionExpert(
        architecture, conditioning_dim=WIDTH, action_dim=ACTION_DIM, state_dim=8, chunk_size=ACTIONS
    ).eval()
    for parameter in expert.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return whole, backbone, expert


def observe(config: Qwen3VLConfig) -> dict[str, Tensor]:
    """One random observation, tokenised."""
    vision = config.vision_config
    side = IMAGE_SIZE // vision.patch_size
    tokens = (side // vision.spatial_merge_size) ** 2
    image = [config.vision_start_token_id, *[config.image_token_id] * tokens, config.vision_end_token_id]
    ids = torch.tensor([[*image * CAMERAS, *range(1000, 1000 + TEXT_TOKENS)]])
    patch_dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(CAMERAS * side**2, patch_dim),
        "image_grid_thw": torch.tensor([[1, side, side]] * CAMERAS),
    }


def act_like_the_release(
    whole: Qwen3VLForConditionalGeneration,
    expert: ActionExpert,
    observation: dict[str, Tensor],
    state: Tensor,
    noise: Tensor,
) -> Tensor:
    types = (observation["input_ids"] == whole.config.image_token_id).int()
    output = whole(**observation, mm_token_type_ids=types, output_hidden_states=True, use_cache=False)
    states = torch.stack(output.hidden_states[:EXPERT_BLOCKS], dim=1)
    adapted = expert.conditioning_adaptor(states).unbind(1)
    mask = observation["attention_mask"].bool()[:, None, None]
    actions = noise
    for step in range(STEPS):
        projected = tuple(
            block(conditioning=tokens) for block, tokens in zip(expert.blocks, adapted, strict=True)
        )
        actions = (
            actions
            + expert(actions, torch.tensor([step / STEPS]), Conditioning(projected, mask), state) / STEPS
        )
    return actions


def act(
    backbone: GemBackbone, expert: ActionExpert, observation: dict[str, Tensor], state: Tensor, noise: Tensor
) -> Tensor:
    states = backbone(**observation, layers=range(EXPERT_BLOCKS), convention="hidden_states")
    conditioning = expert.encode_conditioning(states, observation["attention_mask"])
    return expert.sample(conditioning, state, noise, STEPS)


def measure(call: Callable[[], Tensor]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    whole, backbone, expert = build()
    observation = observe(whole.config)
    state, noise = torch.randn(1, 8), torch.randn(1, ACTIONS, ACTION_DIM)
    ways: dict[str, Callable[[], Tensor]] = {
        "release": lambda: act_like_the_release(whole, expert, observation, state, noise),
        "ours": lambda: act(backbone, expert, observation, state, noise),
        "vision tower alone": lambda: (
            backbone.model.get_image_features(
                observation["pixel_values"], observation["image_grid_thw"]
            ).last_hidden_state
        ),
    }
    deviation = (ways["release"]() - ways["ours"]()).abs().max().item()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, call in ways.items():
            times[name].append(measure(call))

    parameters = {
        "release": [*whole.parameters(), *expert.parameters()],
        "ours": [*backbone.parameters(), *expert.parameters()],
    }
    print(
        f"sequence {observation['input_ids'].shape[1]}, {CAMERAS} images of {IMAGE_SIZE} px, {STEPS} steps, float32"
    )
    for name, seconds in times.items():
        weights = (
            f", {sum(p.numel() for p in parameters[name]) / 1e6:.0f} M parameters"
            if name in parameters
            else ""
        )
        print(
            f"{name:>18}: {statistics.median(seconds):.3f} CPU s "
            f"(min {min(seconds):.3f}, max {max(seconds):.3f}, n={len(seconds)}){weights}"
        )
    ratio = statistics.median(times["release"]) / statistics.median(times["ours"])
    print(f"ratio release / ours: {ratio:.2f}; largest difference of an action: {deviation:.1e}")


if __name__ == "__main__":
    main()
