"""Shared fixtures: a small LeRobot dataset with LIBERO's keys, and policies on it."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

# Before LeRobot and huggingface_hub are imported: no test may reach the Hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from lerobot_gem.storage.language_columns import add_language_columns, row  # noqa: E402

# The models of the tests are too small to share among threads, which would mostly wait for each other.
torch.set_num_threads(1)

CAMERAS = ("observation.images.image", "observation.images.image2")
STATE_DIM = 8
ACTION_DIM = 7
EPISODES = 3
FRAMES = 10
SEED = 0  # of torch when a policy is built, by which it draws in training
TASKS = ("pick up the milk and place it in the basket", "stack the red cube")


@pytest.fixture(autouse=True)
def ordinary_priority() -> None:
    """Undo what SVT-AV1 does, with which LeRobot encodes videos: it gives root's thread the highest real-time priority, and
    what that thread starts then takes a core for itself."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="module")
def quick_parsers() -> Iterator[None]:
    """draccus reads the sources of all classes for the text of --help, and forgets them, since LeRobot has more than 100."""
    from functools import cache

    from draccus.wrappers import docstring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docstring, "_get_class_source", cache(docstring._get_class_source.__wrapped__))
        patch.setattr(docstring, "get_attribute_docstring", cache(docstring.get_attribute_docstring))
        yield


def write_video(
    file: Path, *, frames: int = EPISODES * FRAMES, size: tuple[int, int] = (64, 64), fps: int = 5
) -> None:
    """A video in MPEG-4, which is encoded in no time."""
    import av

    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 40 + number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())


def write_dataset(
    root: Path,
    *,
    size: int = 64,
    state_dim: int = STATE_DIM,
    action_dim: int = ACTION_DIM,
    depth: bool = False,
    depth_range: tuple[int, int] = (300, 4500),
    messages: str | None = None,
    storage: str = "image",
):
    """Write a dataset of seeded noise with two cameras, a state, actions and two tasks.

    Args:
        root: Where.
        size: Side of the images.
        state_dim: Numbers in a state; 0 for none.
        action_dim: Numbers in an action; 0 for none.
        depth: With a depth camera beside each camera, in millimetres; a tenth of its pixels is invalid.
        depth_range: From where to where, in millimetres.
        messages: What the string column `messages` holds in every frame; None for no such column.
        storage: Of the cameras: "image", or "video".
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    names = ["height", "width", "channels"]
    image = {"dtype": storage, "shape": (size, size, 3), "names": names}
    depth_image = {**image, "shape": (size, size, 1), "info": {"is_depth_map": True}}
    vectors = {"observation.state": state_dim, "action": action_dim}
    vectors = {name: dim for name, dim in vectors.items() if dim}
    dataset = LeRobotDataset.create(
        repo_id="local/noise",
        root=root,
        fps=5,
        use_videos=storage == "video",
        features={
            **dict.fromkeys(CAMERAS, image),
            **{f"{camera}_depth": dict(depth_image) for camera in CAMERAS if depth},
            **{name: {"dtype": "float32", "shape": (dim,), "names": None} for name, dim in vectors.items()},
            **({"messages": {"dtype": "string", "shape": (1,), "names": None}} if messages else {}),
        },
    )
    random = np.random.default_rng(0)
    for episode in range(EPISODES):
        for _ in range(FRAMES):
            frame = {camera: random.integers(0, 255, (size, size, 3), dtype=np.uint8) for camera in CAMERAS}
            for camera in CAMERAS if depth else ():
                values = random.integers(*depth_range, (size, size, 1), dtype=np.uint16)
                frame[f"{camera}_depth"] = values * (random.random(values.shape) > 0.1).astype(np.uint16)
            for name, dim in vectors.items():
                frame[name] = random.uniform(-1, 1, dim).astype(np.float32)
            if messages:
                frame["messages"] = messages
            dataset.add_frame({**frame, "task": TASKS[episode % len(TASKS)]})
        dataset.save_episode()
    dataset.finalize()
    return root


def blank_depth(root: Path, key: str, episodes: Iterable[int]) -> Path:
    """Replace a camera's depth by zeros in some episodes of a dataset; its statistics stay as they are."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    for file in (root / "data").glob("*/*.parquet"):
        table = pq.read_table(file)
        images = table.column(key).to_pylist()
        blank = io.BytesIO()
        size = Image.open(io.BytesIO(images[0]["bytes"])).size
        Image.new("I;16", size).save(blank, format="PNG")
        for position, episode in enumerate(table.column("episode_index").to_pylist()):
            if episode in episodes:
                images[position] = {"bytes": blank.getvalue(), "path": None}
        field = table.schema.field(key)
        column = pa.array(images, type=field.type)
        pq.write_table(table.set_column(table.column_names.index(key), field, column), file)
    return root


def vqa(question: str, answer: str, camera: str = CAMERAS[0]) -> list[dict]:
    """The rows of a question about a camera, and of its answer."""
    return [row("user", question, "vqa", camera), row("assistant", answer, "vqa", camera)]


def add_language_rows(root: Path, persistent: list[dict], events: dict[int, list[dict]]) -> Path:
    """Add language columns to a dataset, as lerobot-annotate does: `persistent` to all episodes, `events` by frame."""
    import json

    frames = json.loads((root / "meta" / "info.json").read_text())["total_frames"]
    add_language_columns(root, [persistent] * frames, [events.get(index, []) for index in range(frames)])
    return root


@pytest.fixture(scope="session")
def libero(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """LIBERO made ready in a folder of its own; the user's configuration plays no part."""
    from lerobot_gem.simulation.libero_setup import setup_libero

    folder = tmp_path_factory.mktemp("libero")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIBERO_CONFIG_PATH", str(folder))
        report = setup_libero()
        assert report.ready, report.problems
        yield folder


@pytest.fixture(scope="session")
def scene(libero: Path):
    """libero_object task 0 at 5 Hz and 128 px: the one real scene of all tests, since building it takes ten seconds."""
    from lerobot_gem.simulation.scene import LiberoScene

    scene = LiberoScene("libero_object", 0, control_freq=5)
    yield scene
    scene.close()


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small dataset; tests must not change it."""
    return write_dataset(tmp_path_factory.mktemp("data") / "noise")


@pytest.fixture(scope="session")
def depth_dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with depth and language rows: a question about each camera in frame 0, about one in frame 3."""
    root = write_dataset(tmp_path_factory.mktemp("data") / "noise", depth=True)
    about = {
        camera: [
            row("user", f"Where is it in {camera}?", "vqa", camera),
            row("assistant", "There.", "vqa", camera),
        ]
        for camera in CAMERAS
    }
    events = {0: [*about[CAMERAS[0]], *about[CAMERAS[1]]], 3: about[CAMERAS[1]]}
    return add_language_rows(root, [], events)


def build_policy(config, root: Path):
    """(policy, preprocessor, postprocessor) for the dataset in `root`, as lerobot-train builds them."""
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.policies.factory import make_policy, make_pre_post_processors

    meta = LeRobotDatasetMetadata("local/noise", root=root)
    torch.manual_seed(SEED)
    policy = make_policy(config, ds_meta=meta)
    pretrained = config.pretrained_path and str(config.pretrained_path)
    return policy, *make_pre_post_processors(config, pretrained_path=pretrained, dataset_stats=meta.stats)


def read_batch(root: Path, indices, *, chunk_size: int = 0):
    """A raw training batch as LeRobot's DataLoader collates it."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.utils.collate import lerobot_collate_fn

    delta = {"action": [i / 5 for i in range(chunk_size)]} if chunk_size else None
    dataset = LeRobotDataset("local/noise", root=root, delta_timestamps=delta)
    return lerobot_collate_fn([dataset[i] for i in indices])


@pytest.fixture
def make_policy(dataset_root: Path):
    """A function that builds (policy, preprocessor, postprocessor) for the small dataset."""

    def build(root: Path = dataset_root, **overrides):
        from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig

        config = GemVLAConfig(
            **{"preset": "tiny", "device": "cpu", "dtype": "float32", "chunk_size": 4, **overrides}
        )
        return build_policy(config, root)

    return build


@pytest.fixture
def make_gem(depth_dataset_root: Path):
    """The same for `gem`, on the dataset with depth."""

    def build(root: Path = depth_dataset_root, **overrides):
        from lerobot_gem.policies.gem.configuration_gem import GemConfig

        config = GemConfig(
            **{"preset": "tiny", "device": "cpu", "dtype": "float32", "allow_untrained": True, **overrides}
        )
        return build_policy(config, root)

    return build


@pytest.fixture
def batch(dataset_root: Path):
    """A raw training batch of four frames; the last reaches past the end of its episode (chunk_size 4)."""
    return read_batch(dataset_root, (0, 3, FRAMES, 2 * FRAMES - 2), chunk_size=4)


@pytest.fixture
def depth_batch(depth_dataset_root: Path):
    """A raw training batch of three frames: questions about both cameras, about one, about none."""
    return read_batch(depth_dataset_root, (0, 3, 4), chunk_size=4)
