"""What a linear map reads of depth from the visual tokens of several arms of depth_helps.py, as a picture.

    python examples/depth_helps_probe.py --arms a c

writes probe.png into outputs/depth_helps/results/: unseen scenes, their depth, how the depth of each token's cell differs from that cell's mean over all
scenes (red is nearer, blue is farther), and what each arm's tokens tell of this to a linear map, which is fitted on other scenes.
"""

import argparse

import numpy as np
from depth_helps import ARMS, DEMONSTRATIONS, RESULTS, SETTINGS, Experiment
from depth_helps_measures import explained, read_linearly, visual_tokens
from runs import checkpoint

from lerobot_gem.storage.frames import open_depth_dataset
from lerobot_gem.storage.opening import DatasetOptions

# Odd frames: those that the map was not fitted on.
FRAMES = (1, 3, 5, 7)
# Of the colours: logarithm of depth.
LARGEST = 0.15


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--setting", choices=SETTINGS, default="plain")
    arguments.add_argument("--arms", choices=ARMS, nargs="+", default=["a", "c"])
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    experiment = Experiment(options.setting)
    data = experiment.data("held_out")
    columns = {}
    for arm in options.arms:
        name = f"{arm}_{max(DEMONSTRATIONS)}_s{options.seed}"
        camera, (features, depths) = next(
            iter(visual_tokens(checkpoint(experiment.output, name), data).items())
        )
        read, truth = read_linearly(features, depths)
        # It is the same for all arms, and hides what differs between scenes.
        mean = truth.mean(dim=0)
        columns["cells, less their mean"] = truth - mean
        columns[f"read from arm {arm}, R2 {explained(features, depths):.2f}"] = read - mean
    dataset = open_depth_dataset(DatasetOptions("local/held_out", data))
    figure, axes = plt.subplots(
        len(FRAMES), 2 + len(columns), figsize=(2.2 * (2 + len(columns)), 2.2 * len(FRAMES))
    )
    for row, frame in zip(axes, FRAMES, strict=True):
        item = dataset[frame]
        depth = np.log(item[f"{camera}_depth"][0].numpy())
        side = round(truth.shape[1] ** 0.5)
        row[0].imshow(item[camera].movedim(0, -1).numpy())
        row[1].imshow(depth, cmap="Spectral")
        for axis, values in zip(row[2:], columns.values(), strict=True):
            cells = values[frame // 2].reshape(side, side).numpy()
            axis.imshow(cells, cmap="RdBu", vmin=-LARGEST, vmax=LARGEST)
        for axis, title in zip(row, ("image", "depth", *columns), strict=True):
            axis.set_axis_off()
            if frame == FRAMES[0]:
                axis.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(RESULTS / "probe.png", dpi=80)


if __name__ == "__main__":
    main()
