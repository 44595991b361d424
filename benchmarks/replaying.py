"""What a recorded demonstration that is shown again costs, beside one that the scripted policy makes.

Both in one process and one scene, at 20 Hz and 128 px with two cameras and depth, as
`lerobot-gem-libero-demos` makes them with one worker. Times are CPU seconds, without building the scene. The file is made here, in LIBERO's
layout, from the scripted policy's states; ten frames of each demonstration are no-ops, which are left out.

    python -m benchmarks.replaying --demonstrations=3
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lerobot_gem.data.libero_demos.attempt_files import Attempt
from lerobot_gem.data.libero_demos.attempts import open_scene, scene_of
from lerobot_gem.data.libero_demos.collecting import run_attempt
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.questions.questions_config import QuestionsConfig
from lerobot_gem.storage.output_folder import OutputDataset
from lerobot_gem.storage.recorded_episodes import episode_length
from tests.data.libero_demos.recorded_source import record, write_source


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--suite", default="libero_object")
    options.add_argument("--demonstrations", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        simulated = LiberoDemosConfig(OutputDataset(root / "set"), suite=given.suite, placement="benchmark")
        scene = scene_of(simulated, Attempt(0, 0))
        recorded = [record(scene, number) for number in range(given.demonstrations)]
        write_source(root / "source", scene, recorded)
        replayed = replace(simulated, source=root / "source")
        print("| job | CPU-seconds per demonstration | frames | frames per CPU-second | with questions |")
        print("|---|---|---|---|---|")
        for job, config in (("scripted policy", simulated), ("replayed", replayed)):
            rates, seconds = [], []
            for qa in (None, QuestionsConfig()):
                staging = root / f"{job}, {'questions' if qa else 'none'}"
                staging.mkdir()
                attempts = [Attempt(0, number) for number in range(given.demonstrations)]
                start = time.process_time()
                for attempt in attempts:
                    run_attempt(replace(config, qa=qa), attempt, staging)
                seconds.append((time.process_time() - start) / len(attempts))
                folders = [staging / attempt.name for attempt in attempts]
                frames = sum(episode_length(one) for one in folders) / len(folders)
                rates.append(frames / seconds[-1])
            print(f"| {job} | {seconds[0]:.1f} | {frames:.0f} | {rates[0]:.1f} | {rates[1]:.1f} |")
        open_scene.close()


if __name__ == "__main__":
    main()
