"""What action_experts.py measures beside depth_helps_measures.py: what a chunk of actions costs on real pictures.

Tokens take as long as there are tokens, which depends on what is seen; random pictures would say little.
"""

import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from depth_helps_measures import frames, load, observation_of

CHUNKS = 20


def seconds_per_chunk(checkpoint: Path, data: Path) -> dict[str, Any]:
    """The median of some chunks after the first, each of one held-out frame, on one thread."""
    policy, preprocess, _ = load(checkpoint)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    for frame in islice(_one_by_one(data), CHUNKS + 1):
        prompts = preprocess(frame)
        start = time.process_time()
        policy.predict_action_chunk(prompts)
        seconds.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return {"cpu_s": median(seconds[1:]), "n": CHUNKS}


def _one_by_one(data: Path) -> Any:
    for batch in frames(data):
        for row in range(len(batch["task"])):
            observation = observation_of(batch)
            yield {key: value[row : row + 1] for key, value in observation.items()}
