"""Damaged files: 2,000 and more in the slow suite, the same in each run.

`PYTHONPATH=. python -m tests.fuzzing.test_fuzzing [MORE]` counts the outcomes, of MORE times as many.
"""

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from random import Random

import datasets
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from PIL import Image

from lerobot_gem.checkpoints.adapter_files import check_adapter_files
from lerobot_gem.checkpoints.formats import open_checkpoint
from lerobot_gem.checkpoints.processor_files import check_processor_files, load_tokenizer
from lerobot_gem.data.gem_jsonl.clips import clip_frames, clip_size
from lerobot_gem.data.gem_jsonl.images import image_size, read_depth, read_rgb
from lerobot_gem.data.gem_jsonl.letterbox import Letterbox
from lerobot_gem.data.gem_jsonl.plan import ImportPlan
from lerobot_gem.data.gem_jsonl.records import GemRecord, RecordError, record_of
from lerobot_gem.data.gem_jsonl.samples import SampleFormat, make_sample
from lerobot_gem.storage.opening import DatasetOptions, open_dataset
from tests.data.gem_jsonl.test_clips import write_clip
from tests.fuzzing.mutations import damaged, damaged_json
from tests.fuzzing.outcomes import Outcomes, little_memory

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
CHECKPOINT, GEM, DATASET = (ARTIFACTS / "0.1.0" / name for name in ("gem_vla", "gem", "dataset"))


def fuzz_records(folder: Path, count: int) -> Outcomes:
    """Mutated records are imported, or skipped and counted, all in one file; every tenth file is an array."""
    outcomes, random = Outcomes(), Random(1)
    Image.new("RGB", (32, 24), (200, 30, 90)).save(folder / "a.jpg")
    Image.new("RGB", (24, 24)).save(folder / "b.png")
    (folder / "depth").mkdir()
    Image.fromarray(np.full((24, 32), 700, np.uint16)).save(folder / "depth/a.png")
    record = {
        "id": 7,
        "image": ["a.jpg", "b.png"],
        "data_source": "spar",
        "conversations": [
            {"from": "human", "value": "<image>\n<image>\nWhere is the cup (0.1, 0.2)?"},
            {"from": "gpt", "value": '{"bbox_2d": [10, 20, 300, 400]}'},
        ],
    }
    single = {
        **record,
        "image": "a.jpg",
        "conversations": [{"role": "user", "content": "What?"}, record["conversations"][1]],
    }
    per_file = 50
    for number in range(count // per_file):
        is_array = number % 10 == 9
        base = single if number % 2 else record
        texts = [damaged_json(base, random) for _ in range(per_file)]
        if is_array:  # one damaged text would hide the others
            texts = [text for text in texts if _is_json(text)]
        texts = [text.replace("\n", " ") for text in texts]
        file = folder / ("records.json" if is_array else "records.jsonl")
        content = f"[{','.join(texts)}]" if is_array else "\n".join(texts) + "\n"
        file.write_text(content, errors="surrogateescape")
        outcomes.observe(partial(_import, folder, file, outcomes), f"records {number}")
        file.unlink()
    return outcomes


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _import(folder: Path, file: Path, outcomes: Outcomes) -> None:
    """Look at all records and make samples of those that are taken, as an import does, without LeRobot's writer."""
    with tempfile.TemporaryDirectory() as scratch, closing(ImportPlan(Path(scratch) / "plan.sqlite")) as plan:
        plan.look_at(file, None, unique_ids=False, outside_files=False, samples_per_episode=100)
        for skipped in plan.skipped():
            outcomes.counts[skipped.reason] += 1
            json.dumps(vars(skipped))
        if not plan.num_taken:
            return
        form = SampleFormat(plan.num_images, (32, 32), depth=True, stretch=False, depth_unit_mm=1.0)
        for episode in plan.episodes(range(plan.num_episodes)):
            for planned in episode.records:
                try:
                    sample = make_sample(planned.record, folder, form, Path(scratch), "sample")
                    assert json.loads(sample.messages)
                    outcomes.counts["imported"] += 1
                except RecordError as error:
                    outcomes.counts[error.reason] += 1


def fuzz_pictures(folder: Path, count: int) -> Outcomes:
    """Mutated pictures and depth maps."""
    outcomes, random = Outcomes(), Random(2)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    originals = []
    for form, options in (
        ("JPEG", {}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("PPM", {}),
        ("JPEG2000", {}),
    ):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, form, **options)
        originals.append((buffer.getvalue(), read_rgb))
    for values in (pixels[..., 0], pixels[..., 0].astype(np.uint16) * 9):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "PNG")
        originals.append((buffer.getvalue(), read_depth))
    file = folder / "picture"
    for number in range(count):
        data, read = originals[number % len(originals)]
        file.write_bytes(damaged(data, random))
        outcomes.observe(lambda read=read: (image_size(file), read(file)), f"picture {number}")
    return outcomes


def fuzz_clips(folder: Path, count: int) -> Outcomes:
    """Mutated clips."""
    outcomes, random = Outcomes(), Random(3)
    data = write_clip(folder / "good.mp4", 6).read_bytes()
    file = folder / "clip.mp4"
    for number in range(count):
        file.write_bytes(damaged(data, random))
        outcomes.observe(lambda: (clip_size(file), list(clip_frames(file, 2))), f"clip {number}")
    return outcomes


def _json_files(
    folder: Path, name: str, count: int, load: Callable[[Path], object], seed: int, original: Path
) -> Outcomes:
    outcomes, random = Outcomes(), Random(seed)
    shutil.copytree(original, folder, dirs_exist_ok=True)
    value = json.loads((original / name).read_text())
    for number in range(count):
        (folder / name).write_text(damaged_json(value, random), errors="surrogateescape")
        outcomes.observe(lambda: load(folder), f"{name} {number}")
    return outcomes


def fuzz_configs(folder: Path, count: int) -> Outcomes:
    """Mutated config.json of a policy, read by LeRobot's parser."""
    return _json_files(folder, "config.json", count, PreTrainedConfig.from_pretrained, 4, CHECKPOINT)


def fuzz_built_policies(folder: Path, count: int) -> Outcomes:
    """Policies built from a mutated config.json."""
    return _json_files(
        folder, "config.json", count, get_policy_class("gem_vla").from_pretrained, 5, CHECKPOINT
    )


def fuzz_processors(folder: Path, count: int) -> Outcomes:
    """Mutated pipelines: looked at, the tokenizer taken, and built by LeRobot."""
    return _json_files(folder, "policy_preprocessor.json", count, load_processors, 6, CHECKPOINT)


def load_processors(path: Path) -> None:
    check_processor_files(path)
    load_tokenizer(open_checkpoint(path))
    make_pre_post_processors(PreTrainedConfig.from_pretrained(CHECKPOINT), pretrained_path=str(path))


def fuzz_weights(folder: Path, count: int) -> Outcomes:
    """Mutated weights and states of steps."""
    outcomes, random = Outcomes(), Random(7)
    shutil.copytree(CHECKPOINT, folder, dirs_exist_ok=True)
    names = [file.name for file in sorted(CHECKPOINT.glob("*.safetensors"))]
    for number in range(count):
        name = names[number % len(names)]
        data = (CHECKPOINT / name).read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        # Numbers among the weights are as good as others: damage is done to what says where they are, or to the length.
        changed = damaged(data[:header], random) + data[header:] if number % 4 else damaged(data, random)
        (folder / name).write_bytes(changed)
        load = load_processors if "policy" in name else get_policy_class("gem_vla").from_pretrained
        outcomes.observe(partial(load, folder), f"{name} {number}")
        shutil.copy(CHECKPOINT / name, folder / name)
    return outcomes


def fuzz_adapters(folder: Path, count: int) -> Outcomes:
    """Mutated adapter_config.json."""
    original = folder / "original"
    original.mkdir()
    (original / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": 4,
                "lora_alpha": 8,
                "target_modules": ["q_proj"],
                "base_model_name_or_path": "x",
            }
        )
    )
    from safetensors.numpy import save_file

    save_file(
        {"base.q_proj.lora_A.weight": np.zeros((4, 8), np.float32)}, original / "adapter_model.safetensors"
    )
    return _json_files(folder / "adapter", "adapter_config.json", count, check_adapter_files, 8, original)


def fuzz_datasets(folder: Path, count: int) -> Outcomes:
    """Mutated metadata and data of a dataset: opened, and a frame read."""
    outcomes, random = Outcomes(), Random(9)
    datasets.disable_progress_bars()
    files = [
        path.relative_to(DATASET)
        for path in sorted(DATASET.rglob("*"))
        if path.suffix in (".json", ".parquet")
    ]
    files = [path for path in files if path.name != "collection.json"]
    for number in range(count):
        root = folder / f"{number}"
        shutil.copytree(DATASET, root)
        file = files[number % len(files)]
        data = (DATASET / file).read_bytes()
        if file.suffix == ".json":
            text = damaged_json(json.loads(data), random)
            (root / file).write_text(text, errors="surrogateescape")
        else:
            (root / file).write_bytes(damaged(data, random))
        outcomes.observe(
            lambda root=root: open_dataset(DatasetOptions("local/x", root))[0], f"{file} {number}"
        )
        shutil.rmtree(root)
    return outcomes


TARGETS: dict[Callable[[Path, int], Outcomes], int] = {
    fuzz_records: 1000,
    fuzz_pictures: 500,
    fuzz_clips: 60,
    fuzz_configs: 300,
    fuzz_built_policies: 60,
    fuzz_processors: 200,
    fuzz_weights: 60,
    fuzz_adapters: 200,
    fuzz_datasets: 90,
}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_damaged_files_load_or_end_with_a_clear_error(
    target: Callable[[Path, int], Outcomes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "files").mkdir()
    with little_memory():
        outcomes = target(tmp_path / "files", TARGETS[target])
    assert outcomes.total >= TARGETS[target] * 0.9
    assert not outcomes.bad, "\n".join(outcomes.bad[:20])
    assert "loads" in outcomes.counts or "imported" in outcomes.counts, "some damage does no harm"


_words = st.text(max_size=30) | st.sampled_from(("<image>", "<image>\nWhat?", "(0.1, 0.2)", "[1, 2, 3, 4]"))
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=8,
)
_turn = st.fixed_dictionaries({"from": st.sampled_from(("human", "gpt", "system")), "value": _words | _json})
_records = st.fixed_dictionaries(
    {"image": st.just("a.jpg") | _json, "conversations": st.lists(_turn, max_size=4) | _json},
    optional={"id": _json, "data_source": _json, "images": _json, "video": _json, "messages": _json},
)
_numbers = st.text(alphabet='0123456789., \n()[]<>%"xpe-', max_size=200)
_thousandths = st.integers(0, 1000)
_place = st.tuples(*[_thousandths] * 2).map(list) | st.tuples(*[_thousandths] * 4).map(list)


@pytest.mark.slow
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(_records)
def test_a_record_is_refused_or_comes_back_equal(record: dict) -> None:
    with suppress(RecordError):
        parsed = GemRecord.parse(record)
        assert GemRecord.from_json(parsed.to_json()) == parsed
        images = parsed.images or ("frame.jpg",)
        written = GemRecord.parse(record_of(parsed.messages(None), images))
        assert (written.turns, written.images) == (parsed.turns, images)


@pytest.mark.slow
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(_numbers, _place, st.just("") | _numbers, st.booleans())
@example("", [100, 200], "", False)
@example("", [100, 200, 300, 400], "", False)
@example("2000 px ", [100, 200], "", True)
def test_a_text_is_moved_or_refused(before: str, place: list[int], after: str, stretch: bool) -> None:
    def text(numbers: list[int]) -> str:
        return f'{before}"{"point" if len(numbers) == 2 else "bbox"}_2d": {numbers}{after}'

    assert Letterbox((64, 48), (64, 48)).text(text(place)) == text(place)
    # Bars take an eighth of the height, above and below.
    expected = [round(125 + n * 0.75) if index % 2 and not stretch else n for index, n in enumerate(place)]
    try:
        moved = Letterbox((64, 48), (48, 48), stretch).text(text(place))
    except RecordError:
        assert before or after or (len(place) == 4 and not stretch)  # a box may be turned
    else:
        assert moved == text(expected)


@pytest.mark.slow
@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(_numbers, st.booleans())
def test_a_text_without_known_coordinates_stays_or_is_refused(text: str, stretch: bool) -> None:
    with suppress(RecordError):
        assert Letterbox((64, 48), (48, 48), stretch).text(text) == text


def main() -> None:
    import time

    more = float(sys.argv[1]) if len(sys.argv) > 1 else 1
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    for target, count in TARGETS.items():
        if only not in target.__name__:
            continue
        with tempfile.TemporaryDirectory() as folder, little_memory():
            datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
            (Path(folder) / "files").mkdir()
            before = time.process_time()
            outcomes = target(Path(folder) / "files", round(count * more))
        print(
            f"{target.__name__}: {outcomes.total} in {time.process_time() - before:.1f} CPU-seconds, {dict(outcomes.counts)}"
        )
        for line in outcomes.bad:
            print("  BAD", line)


if __name__ == "__main__":
    main()
