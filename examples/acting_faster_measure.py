"""CPU seconds of a chunk of actions and the peak of memory, of one policy in a process of its own.

python examples/acting_faster_measure.py outputs/vla/checkpoints/last/pretrained_model measured.json quantization=int8
"""

import json
import resource
import sys
import time
from pathlib import Path
from statistics import median

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors

import lerobot_policy_gem  # noqa: F401, registers the policies
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy

CHUNKS = 20


def measure(folder: str, options: list[str]) -> dict[str, float | int]:
    """Medians after the first chunk; pictures are random, which costs what others cost."""
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=[f"--{option}" for option in options])
    policy = GemVLAPolicy.from_pretrained(folder, config=config)
    preprocess, _ = make_pre_post_processors(config, pretrained_path=folder)
    seconds = []
    for _ in range(CHUNKS + 1):
        features = {name: torch.rand(feature.shape)[None] for name, feature in config.input_features.items()}
        batch = preprocess({**features, "task": ["pick up the milk and place it in the basket"]})
        start = time.process_time()
        policy.predict_action_chunk(batch)
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"chunk_s": median(seconds[1:]), "peak_mb": peak, "n": CHUNKS}


def main() -> None:
    folder, output, *options = sys.argv[1:]
    torch.set_num_threads(1)
    found = measure(folder, options)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
