"""The whole preflight on an emulated arm: what it catches, and that it writes nothing to a motor."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from safetensors.torch import load_file, save_file

from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import build_policy
from tests.policies.gem.test_modeling_gem import save
from tests.robots.conftest import FPS, NAMES, PLUGIN, TASK, save_policy, write_arm_dataset
from tests.robots.feetech_bus import MOTORS, PRESENT, TORQUE, FeetechBus

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    import lerobot_camera_pictures  # noqa: F401


@pytest.fixture
def bus() -> Iterator[FeetechBus]:
    """An arm that nothing may be written to."""
    with FeetechBus() as bus:
        for servo in bus.servos.values():
            servo.table[TORQUE] = 1  # it holds itself, and goes on doing so
        yield bus
        assert bus.writes == []


@pytest.fixture
def fly(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arm_options: Callable,
    bus: FeetechBus,
) -> Callable[..., tuple[int, str]]:
    """A function that runs the command, and returns its exit code and what it printed."""

    def run(policy: Path, *options: str, fps: int = FPS, task: str = TASK, **arm: str) -> tuple[int, str]:
        from lerobot_gem.scripts import preflight

        arguments = [f"--policy.path={policy}", f"--fps={fps}", f"--task={task}", "--device=cpu"]
        arguments += [*arm_options(bus.port, **arm), *options]
        monkeypatch.setattr(sys, "argv", ["lerobot-gem-preflight", *arguments])
        with pytest.raises(SystemExit) as end:
            preflight.main()
        said, code = capsys.readouterr(), end.value.code
        # Python itself prints a reason, and exits with 1.
        return int(bool(code)), said.out + said.err + (code if isinstance(code, str) else "")

    return run


def errors(said: str) -> list[str]:
    """What the lines with errors are about."""
    return sorted(
        {
            line.removeprefix("  ERROR").strip().split("  ")[0]
            for line in said.splitlines()
            if line.startswith("  ERROR")
        }
    )


def test_an_arm_as_it_was_recorded_is_ready_but_for_the_untrained_policy(
    fly, arm_policy: Path, tmp_path: Path
):
    code, said = fly(arm_policy, f"--html={tmp_path / 'page.html'}")
    # Noise is no picture of a camera, and an untrained policy's actions are noise.
    assert set(errors(said)) <= {"actions"}, said
    assert code == (1 if errors(said) else 0)
    assert f"{arm_policy} on so100_follower or so101_follower at " in said
    assert "10 Hz, as in the training data" in said
    assert "shoulder_pan.pos, shoulder_lift.pos" in said
    assert "Within the range of the training data" in said
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "front, in the training data" in page


@pytest.mark.parametrize(
    ("options", "subject", "text"),
    [
        ({"fps": 30}, "fps", "3 times as fast. Give --fps=10"),
        ({"cameras": "{top: {type: pictures}}"}, "cameras", "'observation.images.front' is missing"),
        ({"cameras": "{front: {type: pictures, width: 96}}"}, "cameras", "another shape"),
        ({"cameras": "{front: {type: pictures, frames: 0}}"}, "cameras", "gives no picture"),
        ({"cameras": "{front: {type: pictures, brightness: 0}}"}, "pictures", "single colour"),
    ],
    ids=["rate", "name", "shape", "no picture", "covered"],
)
def test_traps_of_options(fly, arm_policy: Path, options: dict, subject: str, text: str):
    code, said = fly(arm_policy, **options)
    assert code == 1
    assert subject in errors(said)
    assert text in said


def test_tokens_are_not_guided(fly, arm_policy: Path):
    config = PreTrainedConfig.from_pretrained(arm_policy)
    config.action_tokens.act = "tokens"
    with pytest.raises(
        ValueError, match="Expected --policy.action_tokens.act=flow, or .*--inference.type=sync"
    ):
        config.check_guided()
    _, said = fly(arm_policy, "--inference.type=rtc")
    assert "inference" not in errors(said)


def test_a_renamed_camera_is_found(fly, arm_policy: Path):
    renamed = '--rename_map={"observation.images.top": "observation.images.front"}'
    _, said = fly(arm_policy, renamed, cameras="{top: {type: pictures}}")
    assert "cameras" not in errors(said)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([*NAMES[1:], NAMES[0]], "values would go to the wrong joints"),
        ([f"joint_{number}.pos" for number in range(6)], "the policy was trained with joint_0.pos"),
    ],
    ids=["order", "names"],
)
def test_motors_of_another_order_or_name(fly, tmp_path: Path, names: list[str], text: str):
    policy = save_policy(write_arm_dataset(tmp_path / "data", names=names), tmp_path / "policy")
    code, said = fly(policy)
    assert code == 1
    assert {"names of the action", "names of the state"} <= set(errors(said))
    assert text in said


def test_no_task_where_there_are_two(fly, tmp_path: Path):
    policy = save_policy(write_arm_dataset(tmp_path / "data", tasks=("a", "b")), tmp_path / "policy")
    code, said = fly(policy, task="")
    assert code == 1
    assert "task" in errors(said)
    _, said = fly(policy, task="c")
    assert "none of the 2 task(s)" in said


def test_one_task_is_the_default(fly, arm_policy: Path):
    _, said = fly(arm_policy, task="")
    assert f"the policy acts on {TASK!r}" in said
    assert "task" not in errors(said)


def test_an_arm_in_another_place(fly, arm_policy: Path, bus: FeetechBus):
    bus.servos[2].table[PRESENT : PRESENT + 2] = (3000).to_bytes(2, "little")
    code, said = fly(arm_policy)
    assert code == 1
    assert "shoulder_lift.pos 83" in said


def test_a_motor_that_does_not_answer(fly, arm_policy: Path, bus: FeetechBus):
    bus.servos[4].answers = False
    code, said = fly(arm_policy)
    assert code == 1
    assert "motors" in errors(said)


def test_what_was_found_is_printed_when_the_robot_can_not_be_made(fly, arm_policy: Path, calibration: Path):
    (calibration / "test.json").write_text("{")
    code, said = fly(arm_policy)
    assert code == 1
    assert errors(said) == ["preflight"]
    assert "It ended early" in said and "10 Hz, as in the training data" in said


@pytest.mark.parametrize("names", [NAMES[:5], [*NAMES, "base.pos"]], ids=["fewer", "more"])
def test_another_number_of_action_names_than_actions(fly, arm_policy: Path, tmp_path: Path, names: list[str]):
    policy = shutil.copytree(arm_policy, tmp_path / "policy")
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps({**config, "action_feature_names": names}))
    (policy / "train_config.json").unlink()
    code, said = fly(policy)
    assert code == 1
    assert errors(said) == ["actions", "names of the action"]
    assert f"An action has 6 numbers, {len(names)} names" in said


def test_another_calibration(fly, arm_policy: Path, bus: FeetechBus):
    bus.servos[1].table[9:11] = (1).to_bytes(2, "little")
    code, said = fly(arm_policy)
    assert code == 1
    assert "run lerobot-calibrate" in said


def test_real_time_chunking_has_its_own_threshold(fly, arm_policy: Path):
    _, said = fly(arm_policy, "--inference.type=rtc", "--inference.queue_threshold=0")
    assert "Give --inference.queue_threshold=" in said


@pytest.mark.parametrize("inference", ["rtc", "sync"])
def test_the_chunks_that_are_timed_are_guided_where_a_rollouts_are(
    fly, arm_policy: Path, monkeypatch: pytest.MonkeyPatch, inference: str
):
    predict, asked = GemVLAPolicy.predict_action_chunk, []

    def predict_and_note(policy: GemVLAPolicy, batch: dict, **options: Any) -> torch.Tensor:
        chunk = predict(policy, batch, **options)
        asked.append((policy.rtc_processor is not None and policy._rtc_enabled(), options, chunk))
        return chunk

    monkeypatch.setattr(GemVLAPolicy, "predict_action_chunk", predict_and_note)
    _, said = fly(arm_policy, f"--inference.type={inference}")
    assert "A chunk of 8 takes" in said
    assert len(asked) == 5
    assert [is_guided for is_guided, *_ in asked] == [inference == "rtc"] * 5
    for (_, _, before), (_, options, _) in pairwise(asked):
        assert bool(options) == (inference == "rtc")
        if options:
            assert options["prev_chunk_left_over"] is before and options["inference_delay"] >= 1


def test_what_a_rollout_compiles_is_compiled(fly, arm_policy: Path):
    options = ("--policy.action_tokens.act=tokens", "--use_torch_compile=true")
    code, said = fly(arm_policy, *options)
    assert code == 1
    assert "compile_model=true with action_tokens.act='tokens'" in said


def test_the_task_is_that_of_the_dataset_which_a_rollout_records(
    fly, arm_policy: Path, monkeypatch: pytest.MonkeyPatch
):
    from lerobot_gem.robots import preflight

    prepare, acted_on = preflight.prepare_observation_for_inference, []

    def prepare_and_note(frame: dict, device: torch.device, task: str, robot: str) -> dict:
        acted_on.append(task)
        return prepare(frame, device, task, robot)

    monkeypatch.setattr(preflight, "prepare_observation_for_inference", prepare_and_note)
    recording = ("--strategy.type=sentry", "--dataset.repo_id=me/rollout_x", "--dataset.single_task=pour")
    _, said = fly(arm_policy, *recording, "--dataset.streaming_encoding=true", task=TASK)
    assert "'pour' is none of the 1 task(s)" in said
    assert set(acted_on) == {"pour"}


def test_the_checkpoint_alone_is_enough(fly, arm_policy: Path, tmp_path: Path):
    policy = tmp_path / "policy"
    shutil.copytree(arm_policy, policy)
    (policy / "train_config.json").unlink()
    _, said = fly(policy)
    assert "give --training_data=" in said
    assert "Within the range of the training data" in said
    assert len(MOTORS) == 6


def test_a_checkpoint_without_statistics_says_what_is_not_compared(fly, arm_policy: Path, tmp_path: Path):
    policy = shutil.copytree(arm_policy, tmp_path / "policy")
    [file] = policy.glob("policy_preprocessor_*_normalizer_processor.safetensors")
    save_file({name: value for name, value in load_file(file).items() if not name.endswith(".min")}, file)
    _, said = fly(policy)
    rows = [line.split()[:2] for line in said.splitlines() if "Not compared" in line]
    assert rows == [["warning", "state"], ["warning", "actions"]], said


def test_an_adapter_is_loaded_with_its_base(fly, arm_policy: Path, arm_dataset: Path, tmp_path: Path):
    config = PreTrainedConfig.from_pretrained(arm_policy)
    config.pretrained_path = arm_policy
    policy, *processors = build_policy(config, arm_dataset)
    adapted = policy.wrap_with_peft(peft_cli_overrides={"method_type": "LORA", "r": 2})
    adapter = save(tmp_path / "adapter", adapted, adapted.config, *processors)
    _, said = fly(Path(adapter))
    assert set(errors(said)) <= {"actions"}, said
    assert "A chunk of 8 takes" in said


def test_another_policy_is_refused(fly, make_gem, tmp_path: Path):
    policy, preprocess, postprocess = make_gem()
    for part in (policy, preprocess, postprocess):
        part.save_pretrained(tmp_path / "gem")
    code, said = fly(tmp_path / "gem")
    assert code == 1
    assert (
        "expected a checkpoint of 'gem_vla'. A `gem` policy is pre-trained to see and to answer, not to act."
        in said
    )
