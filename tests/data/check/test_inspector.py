"""What an inspection finds, and that its errors are those that training raises."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.configs.default import DatasetConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.transforms import ImageTransformsConfig
from PIL import Image

from lerobot_gem.data.check.inspector import CheckConfig, _Inspector, inspect, spread
from lerobot_gem.data.check.stage_checks import TrainingView
from lerobot_gem.policies.base_options import CamerasConfig, DepthConfig
from lerobot_gem.policies.expert_options import ExpertConfig
from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig
from lerobot_gem.validation import ConfigurationError
from tests.conftest import (
    CAMERAS,
    EPISODES,
    FRAMES,
    TASKS,
    build_policy,
    read_batch,
    write_dataset,
)
from tests.data.check.conftest import edit_cell, edit_feature, gem

FRONT, WRIST = CAMERAS
DEPTH = f"{FRONT}_depth"
TOTAL = EPISODES * FRAMES


def check(root: Path, policy=None, *, dataset: dict | None = None, **options):
    data = DatasetConfig(
        **{"repo_id": "local/noise", "root": str(root), "video_backend": "pyav", **(dataset or {})}
    )
    return inspect(CheckConfig(dataset=data, policy=policy, **options))


def gem_vla(**settings) -> GemVLAConfig:
    return GemVLAConfig(
        **{"preset": "tiny", "device": "cpu", "dtype": "float32", "chunk_size": 4, **settings}
    )


@pytest.fixture
def copy(depth_dataset_root: Path, tmp_path: Path) -> Path:
    """A dataset with depth and language rows that a test may spoil."""
    return shutil.copytree(depth_dataset_root, tmp_path / "copy")


def test_a_dataset_with_depth_and_language_is_described_as_it_is(depth_dataset_root: Path):
    found = check(depth_dataset_root)
    assert (found.episodes, found.frames, found.sampled) == (EPISODES, TOTAL, TOTAL)
    assert found.errors == []
    assert [(camera.key, camera.size, camera.depth) for camera in found.cameras] == [
        (camera, (64, 64), f"{camera}_depth") for camera in CAMERAS
    ]
    for depth in found.depth:
        low, median, high = depth.distances
        assert 0.3 <= low < 0.31 and 2.2 < median < 2.6 and 4.49 < high < 4.5
        assert depth.invalid == pytest.approx(0.1, abs=0.01)
        assert (depth.unit, depth.empty) == ("mm", 0)
    # Frame 0 has a question about each camera, frame 3 one about the second; the others learn the task.
    rows = {(row.style, row.role, row.camera): row.count for row in found.language}
    assert rows == {
        ("vqa", role, camera): n
        for role in ("user", "assistant")
        for camera, n in zip(CAMERAS, (1, 2), strict=True)
    }
    prompts = {prompts.policy: prompts for prompts in found.prompts}
    assert prompts["gem"].questions == {FRONT: 1, WRIST: 2, None: TOTAL - 2}
    assert prompts["gem"].task_only == TOTAL - 2
    # Frame 0 and 3 need a prompt for each camera.
    assert (prompts["gem"].prompts, prompts["gem_vla"].prompts) == (TOTAL + 2, TOTAL)
    assert prompts["gem"].image_tokens == [4, 4]
    assert {task.text: (task.episodes, task.frames) for task in found.tasks} == {
        TASKS[0]: (2, 2 * FRAMES),
        TASKS[1]: (1, FRAMES),
    }
    shares = {stage.name: (stage.depth, stage.language, stage.action) for stage in found.stages}
    assert shares == {
        "connector": (1, None, None),
        "generator": (1, None, None),
        "joint": (1, 1, None),
        "action": (1, 1, 1),
    }


def test_prompt_lengths_are_those_of_the_batches_that_training_reads(depth_dataset_root: Path):
    found = check(depth_dataset_root, gem(stage="joint"))
    policy, preprocess, _ = build_policy(gem(stage="joint"), depth_dataset_root)
    lengths = preprocess(read_batch(depth_dataset_root, range(TOTAL)))[
        "observation.language.attention_mask"
    ].sum(1)
    [prompts] = [prompts for prompts in found.prompts if prompts.policy == "gem"]
    assert prompts.lengths == (np.median(lengths), np.percentile(lengths, 95), lengths.max())
    assert prompts.context == policy.config.built.backbone["text_config"]["max_position_embeddings"]


def test_what_the_dataset_is_not_made_for_is_no_error(dataset_root: Path):
    found = check(dataset_root, num_frames=2)
    assert found.errors == []
    assert {stage.name: stage.lacking for stage in found.stages} == {
        "connector": "no depth",
        "generator": "no depth",
        "joint": "no depth",
        "action": None,
    }
    assert [prompts.task_only for prompts in found.prompts if prompts.policy == "gem"] == [TOTAL]


def unflag(root: Path) -> None:
    edit_feature(DEPTH, info={"depth_unit": "mm"})(root)


def forget_unit(root: Path) -> None:
    edit_feature(DEPTH, info={"is_depth_map": True})(root)


def say_other_size(root: Path) -> None:
    edit_feature(DEPTH, shape=[64, 32, 1])(root)


def zero_statistics(root: Path) -> None:
    file = root / "meta" / "stats.json"
    stats = json.loads(file.read_text())
    stats[DEPTH]["max"] = np.zeros_like(stats[DEPTH]["max"]).tolist()
    file.write_text(json.dumps(stats))


def name_unknown_camera(root: Path) -> None:
    change = edit_cell(
        "language_events", 3, lambda rows: [{**row, "camera": "observation.images.top"} for row in rows]
    )
    change(root)


def drop_answer(root: Path) -> None:
    edit_cell("language_events", 3, lambda rows: rows[:1])(root)


def write_nan(root: Path) -> None:
    edit_cell("observation.state", 3, lambda values: [float("nan"), *values[1:]])(root)


def forget_task(root: Path) -> None:
    file = root / "meta" / "tasks.parquet"
    tasks = pq.read_table(file).to_pandas()
    tasks.index = [" " if task == TASKS[1] else task for task in tasks.index]
    tasks.to_parquet(file)


def of_another_robot() -> GemVLAConfig:
    config = gem_vla()
    config.built.action_dim = 6
    return config


def training_error(root: Path, config) -> str:
    """What training raises: when the policy is built, or at a batch with the frames that are spoiled."""
    chunk_size = config.chunk_size if isinstance(config, GemVLAConfig) else 0
    with pytest.raises(ValueError) as caught:
        policy, preprocess, _ = build_policy(config, root)
        policy.forward(preprocess(read_batch(root, (3, FRAMES), chunk_size=chunk_size)))
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "config", "message"),
    [
        (unflag, gem, "is not flagged as depth"),
        (forget_unit, gem, "The unit of 'observation.images.image_depth' is unknown"),
        (say_other_size, gem, "expected one aspect ratio"),
        (zero_statistics, gem, "is zero in the whole dataset"),
        (name_unknown_camera, gem, "Unknown camera(s) ['observation.images.top']"),
        (drop_answer, gem, "frame 3: A frame has 1 vqa question(s) and 0 answer(s)"),
        (write_nan, gem_vla, "observation.state[0] is nan"),
        (forget_task, gem_vla, "frame 10: No task text"),
        (
            None,
            lambda: gem(cameras=CamerasConfig(names=["observation.images.top"])),
            "cameras.names has unknown entries",
        ),
        (
            None,
            lambda: gem(depth=DepthConfig(cameras={FRONT: "x"})),
            "depth.cameras names 'x', which the dataset lacks",
        ),
        (None, of_another_robot, "Actions have 7 numbers here"),
    ],
)
def test_errors_are_the_words_of_training(copy: Path, spoil, config, message):
    if spoil is not None:
        spoil(copy)
    found = check(copy, config(), num_frames=2)
    assert any(message in error for error in found.errors), found.errors
    raised = training_error(copy, config())
    quoted = [error.split(": ", 1)[1] if error.startswith("frame ") else error for error in found.errors]
    if spoil is not forget_task:  # which names all tasks of the batch
        assert raised in quoted


def test_a_broken_message_is_found_in_whichever_frame_it_is(tmp_path: Path):
    good = '[{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]'
    root = write_dataset(tmp_path / "data", depth=True, action_dim=0, state_dim=0, messages=good)
    for frame in (11, 12, 13, 17):
        edit_cell("messages", frame, lambda _: "Where?")(root)
    found = check(root, num_frames=4)
    assert found.messages == TOTAL
    assert [error.split(":")[0] for error in found.errors] == [
        "frame 11",
        "frame 12",
        "frame 13",
        "and the like at 1 more frame(s)",
    ]
    with pytest.raises(ValueError) as caught:
        _, preprocess, _ = build_policy(gem(), root)
        preprocess(read_batch(root, [17]))
    assert str(caught.value) == found.errors[0].removeprefix("frame 11: ")


def test_depth_in_another_unit_than_the_policy_reads_is_an_error(depth_dataset_root: Path):
    found = check(depth_dataset_root, gem(), dataset={"depth_output_unit": "m"}, num_frames=8)
    assert "which can't be mm: expected depth in mm (--policy.depth.unit)" in found.errors[0]
    assert found.depth[0].distances[2] == pytest.approx(
        4.5, abs=0.05
    )  # what was measured is right all the same
    metres = gem(depth=DepthConfig(unit="m"))
    fits = check(depth_dataset_root, metres, dataset={"depth_output_unit": "m"}, num_frames=8)
    assert fits.errors == []


def test_an_image_that_cannot_be_decoded_is_an_error_that_names_its_frame(copy: Path):
    edit_cell(FRONT, 7, lambda cell: {**cell, "bytes": b"broken"})(copy)
    found = check(copy)
    assert found.errors == ["frame 7: " + found.errors[0].removeprefix("frame 7: ")]
    assert "image" in found.errors[0]
    assert found.sampled == TOTAL - 1


def test_images_of_several_sizes_are_an_error(copy: Path):
    picture = io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "PNG")
    edit_cell(FRONT, 7, lambda cell: {**cell, "bytes": picture.getvalue()})(copy)
    assert check(copy).errors == [
        f"frame 7: A picture of '{FRONT}' is 32 x 32 pixels, meta/info.json says 64 x 64: expected one size. Correct "
        "features.shape in meta/info.json, or the picture."
    ]


def test_nan_in_actions_is_an_error_for_the_stage_that_learns_them(copy: Path):
    edit_cell("action", 5, lambda values: [float("inf"), *values[1:]])(copy)
    [error] = check(copy, gem_vla()).errors  # once, though the chunks of four frames hold it
    assert error.startswith("action[0] is inf in frame 5 (episode 0): expected finite numbers")
    assert check(copy, gem(), num_frames=2).errors == []


def test_a_dataset_without_actions_is_an_error_only_if_they_are_asked_for(tmp_path: Path):
    root = write_dataset(tmp_path / "data", depth=True, action_dim=0)
    assert check(root, num_frames=2).errors == []
    assert any("No 'action' feature" in error for error in check(root, gem_vla(), num_frames=2).errors)


def test_an_empty_dataset_is_an_error(tmp_path: Path):
    image = {"dtype": "image", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    LeRobotDataset.create(
        "local/noise", root=tmp_path / "data", fps=5, use_videos=False, features={FRONT: image}
    )
    found = check(tmp_path / "data", gem_vla())
    assert found.frames == 0
    assert found.errors


@pytest.mark.parametrize(
    ("version", "advice"), [("v2.1", "--push-to-hub=false`."), ("v2.0", "bring it to v2.1")]
)
def test_an_older_format_is_an_error_that_names_the_converter(copy: Path, version, advice):
    file = copy / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"codebase_version": version}))
    with pytest.raises(ValueError, match="lerobot.scripts.convert_dataset_v21_to_v30") as caught:
        check(copy)
    assert version in str(caught.value) and advice in str(caught.value)


def test_a_folder_without_dataset_is_an_error_and_stays_as_it_is(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="No dataset in"):
        check(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_vectors_that_no_policy_reads_are_told_of(tmp_path: Path):
    image = {"dtype": "image", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (3,), "names": None}
    dataset = LeRobotDataset.create(
        "local/noise",
        root=tmp_path / "data",
        fps=5,
        use_videos=False,
        features={FRONT: image, "extra": image, "observation.joints": vector, "action": vector},
    )
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for frame in range(4):
        joints = np.full(3, np.nan if frame == 2 else frame, dtype=np.float32)
        other = np.full(3, frame, dtype=np.float32)
        values = {FRONT: picture, "extra": picture, "observation.joints": joints, "action": other}
        dataset.add_frame({**values, "task": "look"})
    dataset.save_episode()
    dataset.finalize()
    found = check(tmp_path / "data", num_frames=1)
    assert (found.outside, found.state_like) == (["extra"], ["observation.joints"])
    assert found.unread == {"observation.joints": 1}
    blind = gem_vla(expert=ExpertConfig(use_state=False))
    assert check(tmp_path / "data", blind, num_frames=1).state_like == []


def test_image_transforms_that_move_pixels_are_an_error_beside_depth(depth_dataset_root: Path):
    moving = {"image_transforms": ImageTransformsConfig(enable=True)}
    found = check(depth_dataset_root, gem(), dataset=moving, num_frames=2)
    assert any("image_transforms moves pixels (affine), but depth stays" in error for error in found.errors)
    assert check(depth_dataset_root, gem_vla(), dataset=moving, num_frames=2).errors == []
    colours = {name: kind for name, kind in ImageTransformsConfig().tfs.items() if name != "affine"}
    still = {"image_transforms": ImageTransformsConfig(enable=True, tfs=colours)}
    assert check(depth_dataset_root, gem(), dataset=still, num_frames=2).errors == []


def shift_rows(root: Path) -> None:
    for frame in range(TOTAL):
        edit_cell("index", frame, lambda index: index + 100)(root)


def test_rows_that_are_elsewhere_than_the_metadata_says_are_the_error_of_training(copy: Path):
    shift_rows(copy)
    [error] = check(copy, gem_vla(), num_frames=2).errors
    with pytest.raises(ValueError) as caught:
        build_policy(gem_vla(), copy)
    assert str(caught.value) == error
    assert "has index=100 in episode 0" in error


def test_rows_that_cannot_be_inspected_are_an_error_and_no_traceback(copy: Path):
    edit_cell("task_index", 29, lambda _: 7)(copy)
    found = check(copy)
    assert (found.frames, found.sampled) == (TOTAL, 0)
    assert len(found.errors) == 1 and "Row 29" in found.errors[0] and "task_index=7" in found.errors[0]


def test_two_cameras_may_not_be_renamed_to_one(dataset_root: Path):
    with pytest.raises(ValueError, match="gives two features one name"):
        check(dataset_root, rename_map={FRONT: "observation.images.top", WRIST: "observation.images.top"})


def test_another_policy_is_refused(depth_dataset_root: Path):
    from lerobot.policies.act.configuration_act import ACTConfig

    with pytest.raises(ValueError, match="policy.type='act': expected 'gem' or 'gem_vla'"):
        check(depth_dataset_root, ACTConfig())


def test_samples_are_seeded_and_episodes_can_be_chosen(depth_dataset_root: Path):
    found = check(depth_dataset_root, dataset={"episodes": [1]}, num_frames=4, num_texts=6)
    assert (found.episodes, found.frames, found.sampled) == (1, FRAMES, 4)
    assert [prompts.frames for prompts in found.prompts] == [6, 6]
    assert [task.text for task in found.tasks] == [TASKS[1]]


def test_spread_draws_one_of_each_part():
    drawn = spread(1000, 10, np.random.default_rng(0))
    assert [position // 100 for position in drawn] == list(range(10))
    assert drawn == spread(1000, 10, np.random.default_rng(0)) != spread(1000, 10, np.random.default_rng(1))
    assert spread(3, 10, np.random.default_rng(0)) == [0, 1, 2]


def test_frames_to_look_at_are_those_with_text(depth_dataset_root: Path, tmp_path: Path):
    found = check(depth_dataset_root, num_frames=2, html=tmp_path / "page.html")
    assert [frame.index for frame in found.shown] == [0, 3]
    first, second = found.shown
    assert [message["content"] for message in second.messages] == [f"Where is it in {WRIST}?", "There."]
    picture = first.views[0]
    raw = read_batch(depth_dataset_root, [0])
    assert np.array_equal(picture.rgb, (raw[FRONT][0].movedim(0, -1) * 255).round().byte().numpy())
    assert picture.depth.shape == (64, 64, 3)
    assert picture.depth_range == pytest.approx((0.3, 4.5), abs=0.05)


def test_tasks_check_the_vectors_of_all_frames_once(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each of them again; a frame that is at fault is known to all of them."""
    edit_cell("action", 1, lambda cell: [float("nan")] * len(cell))(copy)
    data = DatasetConfig(repo_id="local/noise", root=str(copy), video_backend="pyav")
    config = CheckConfig(dataset=data, num_frames=4, num_texts=8, tasks=2)
    checked, check_vectors = [], TrainingView.check_vectors

    def counted(view: TrainingView, *read):
        checked.append(type(view.config).__name__)
        return check_vectors(view, *read)

    monkeypatch.setattr(TrainingView, "check_vectors", counted)
    for phase in ("read_texts", "read_images"):
        for rank in range(2):
            getattr(_Inspector(config, tmp_path), phase)(rank, 2)
    found = _Inspector(config, tmp_path).finish()
    assert sorted(checked) == ["GemConfig", "GemVLAConfig"]
    [action] = [stage for stage in found.stages if stage.name == "action"]
    assert any("frame 1" in error for error in action.errors), action.errors


def test_no_frame_that_can_be_read_is_no_share_of_frames_with_depth(copy: Path) -> None:
    for frame in range(TOTAL):
        edit_cell(FRONT, frame, lambda cell: {**cell, "bytes": b"broken"})(copy)
    found = check(copy, num_frames=2, num_texts=2)
    assert found.sampled == 0 and {stage.depth for stage in found.stages} == {None}


@pytest.mark.slow
def test_tasks_find_what_one_finds(copy: Path) -> None:
    """Errors in texts and unreadable pictures included, in their order."""
    for frame in (1, TOTAL - 1):
        edit_cell("action", frame, lambda cell: [float("nan")] * len(cell))(copy)
    one, two = (check(copy, batch_size=3, num_frames=12, tasks=tasks) for tasks in (1, 2))
    assert one.errors and one.errors == two.errors
    assert one.prompts == two.prompts and one.depth == two.depth and one.cameras == two.cameras
    assert [(s.name, s.errors, s.depth, s.language, s.action) for s in one.stages] == [
        (s.name, s.errors, s.depth, s.language, s.action) for s in two.stages
    ]
    assert one.sampled == two.sampled


def test_a_cluster_needs_a_place_for_what_tasks_find() -> None:
    with pytest.raises(ConfigurationError, match="executor=ray without html: expected the page's file"):
        CheckConfig(dataset=DatasetConfig("local/noise"), executor="ray", tasks=2)
