"""Checkpoints of ours on the Hub, by LeRobot's unmodified commands and the real client."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from tests.conftest import write_video
from tests.hub.conftest import BIN, TINY, Run
from tests.hub.local_hub import LocalHub
from tests.results.test_eval_info import write_eval_info

pytestmark = pytest.mark.slow

VLA, GEM = (f"--config_path={TINY / name}.yaml" for name in ("gem_vla_tiny", "gem_tiny_stage1"))
PUSH = "--policy.push_to_hub=true"

# Chunks of actions of two checkpoints, or of a checkpoint and an adapter, on the same frames and noise.
CHUNKS = """
import sys, torch
import lerobot_policy_gem
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.policies.factory import make_policy, make_pre_post_processors
from tests.conftest import read_batch
from pathlib import Path
torch.set_num_threads(1)
root = Path({root!r})
meta = LeRobotDatasetMetadata("local/noise", root=root)
chunks = []
for path in {paths!r}:
    config = PreTrainedConfig.from_pretrained(path)
    config.pretrained_path = path
    policy = make_policy(config, ds_meta=meta)
    preprocessor, postprocessor = make_pre_post_processors(config, pretrained_path=path)
    batch = preprocessor(read_batch(root, (0, 3)))
    chunks.append(postprocessor(policy.predict_action_chunk(batch, noise=torch.ones(2, 8, 7))))
print("SAME", torch.equal(chunks[0], chunks[1]))
"""


# From Python: a policy from the Hub goes back to it. And what `lerobot-rollout` does before it looks for a robot.
ROUND_TRIP = """
import sys
import draccus
import lerobot_policy_gem
from lerobot.configs import parser
from lerobot.robots import so_follower
from lerobot.rollout.configs import RolloutConfig
from lerobot.rollout.context import _load_pretrained_policy
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
GemVLAPolicy.from_pretrained("me/policy").push_to_hub("me/again")
options = ["--robot.type=so101_follower", "--robot.port=none", "--policy.path=me/policy"]
sys.argv = ["lerobot-rollout", *options]
config = draccus.parse(RolloutConfig, args=parser.filter_path_args(["policy"], options))
_load_pretrained_policy(config.policy)
print("RATE", config.fps)
"""


@pytest.fixture(scope="module")
def published(hub: LocalHub, train: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training run that pushed me/policy: its output folder."""
    output = tmp_path_factory.mktemp("published") / "run"
    status, said = train(VLA, PUSH, "--policy.repo_id=me/policy", f"--output_dir={output}")
    assert status == 0 and "Model pushed to" in said, said[-3000:]
    return output


def files_of(hub: LocalHub, name: str) -> dict[str, bytes]:
    return hub.repositories[name].files()[1]


def config_of(hub: LocalHub, name: str) -> dict:
    return json.loads(files_of(hub, name)["config.json"])


def newest(output: Path) -> Path:
    return output / "checkpoints" / "last" / "pretrained_model"


def test_a_checkpoint_carries_what_a_stranger_needs(hub: LocalHub, published: Path) -> None:
    config = config_of(hub, "me/policy")
    built = config["built"]
    assert built["fps"] == 5 and built["stages_done"] == ["action"] and config["chunk_size"] == 8
    assert built["images"]["cameras"] == ["observation.images.image", "observation.images.image2"]
    assert config["input_features"]["observation.images.image"]["shape"] == [3, 64, 64]
    assert config["dtype"] == "float32" and built["versions"].keys() >= {"lerobot_policy_gem", "lerobot"}
    card = ModelCard(files_of(hub, "me/policy")["README.md"].decode())
    assert "# Model Card for me/policy" in card.text and "--policy.path=me/policy" in card.text
    assert "--env.fps=5" in card.text and card.data.library_name == "lerobot"


def test_a_checkpoint_does_not_carry_where_it_was_pushed(hub: LocalHub, published: Path) -> None:
    saved = json.loads((newest(published) / "config.json").read_text())
    for config in (config_of(hub, "me/policy"), saved):
        assert (config["push_to_hub"], config["repo_id"], config["private"]) == (False, None, None)
    resumed = json.loads((newest(published) / "train_config.json").read_text())["policy"]
    assert (resumed["push_to_hub"], resumed["repo_id"]) == (True, "me/policy")


def test_a_published_policy_acts_as_the_saved_one(
    hub: LocalHub, published: Path, run: Run, dataset_root: Path
) -> None:
    paths = ["me/policy", str(newest(published))]
    status, said = run(code=CHUNKS.format(root=str(dataset_root), paths=paths))
    assert status == 0 and "SAME True" in said, said[-3000:]


def test_from_python_and_in_a_rollout(hub: LocalHub, published: Path, run: Run) -> None:
    status, said = run(code=ROUND_TRIP)
    assert status == 0 and "RATE 5.0" in said, said[-3000:]
    again, first = files_of(hub, "me/again"), files_of(hub, "me/policy")
    assert again["model.safetensors"] == first["model.safetensors"]


@pytest.mark.libero
def test_a_published_policy_is_evaluated(hub: LocalHub, published: Path, run: Run, tmp_path: Path) -> None:
    episode = (
        "--env.task_ids=[0]",
        "--env.fps=5",
        "--env.episode_length=3",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
    )
    size = ("--env.observation_height=64", "--env.observation_width=64")
    env = ("--env.type=libero", "--env.task=libero_object", *episode, *size)
    status, said = run(BIN / "lerobot-eval", "--policy.path=me/policy", *env, f"--output_dir={tmp_path}")
    assert status == 0 and (tmp_path / "eval_info.json").is_file(), said[-3000:]


@pytest.mark.parametrize("old", [False, True], ids=["of today", "that says where its author pushed it"])
def test_fine_tuning_a_published_policy_pushes_nothing(
    old: bool, hub: LocalHub, published: Path, train: Run, tmp_path: Path
) -> None:
    files = files_of(hub, "me/policy")
    if old:
        config = {**config_of(hub, "me/policy"), "push_to_hub": True, "repo_id": "me/of_old"}
        files = {**files, "config.json": json.dumps(config).encode()}
    name = "me/of_old" if old else "me/of_today"
    commit = hub.publish(name, files)
    before = hub.writes()
    status, said = train(f"--policy.path={name}", f"--output_dir={tmp_path / 'run'}")
    assert status == 0, said[-3000:]
    assert hub.writes() == before and "Model pushed" not in said
    built = json.loads((newest(tmp_path / "run") / "config.json").read_text())["built"]
    assert (built["base_model"], built["base_revision"]) == (name, commit)


def test_resuming_goes_on_pushing_with_what_was_found_since(
    hub: LocalHub, published: Path, train: Run
) -> None:
    """Of a finished run: nothing is left to train."""
    write_eval_info(published / "eval", {("libero_object", 9): [True] * 26 + [False] * 4})
    write_video(published / "eval" / "videos" / "libero_object_9" / "eval_episode_0.mp4")
    before = len(hub.repositories["me/policy"].commits)
    config = newest(published) / "train_config.json"
    status, said = train(f"--config_path={config}", "--resume=true")
    assert status == 0 and "Model pushed to" in said, said[-3000:]
    assert len(hub.repositories["me/policy"].commits) > before
    files = files_of(hub, "me/policy")
    assert b"| eval | libero_object | 9 | 30 | 86.7% | 70.3% to 94.7% |" in files["README.md"]
    assert b"(assets/rollout.png)" in files["README.md"] and files["assets/rollout.png"].startswith(
        b"\x89PNG"
    )


def test_a_run_goes_on_from_the_hub_on_another_machine(hub: LocalHub, train: Run, tmp_path: Path) -> None:
    """One whose checkpoints were pushed as they were saved."""
    pushed = ("--save_checkpoint_to_hub=true", "--policy.repo_id=me/interrupted")
    status, said = train(VLA, *pushed, f"--output_dir={tmp_path / 'first'}")
    assert status == 0, said[-3000:]
    assert "checkpoints/000001/pretrained_model/config.json" in files_of(hub, "me/interrupted")
    again = ("--config_path=me/interrupted", "--resume=true", "--steps=2", "--save_freq=2")
    status, said = train(*again, f"--output_dir={tmp_path / 'second'}")
    assert status == 0, said[-3000:]
    files = files_of(hub, "me/interrupted")
    assert "checkpoints/000002/pretrained_model/model.safetensors" in files and "config.json" not in files


def test_an_adapter_is_pushed_where_the_command_line_says(
    hub: LocalHub, published: Path, train: Run, run: Run, dataset_root: Path, tmp_path: Path
) -> None:
    adapter = ("--policy.path=me/policy", "--peft.r=2", PUSH, "--policy.repo_id=me/adapter")
    status, said = train(*adapter, f"--output_dir={tmp_path / 'run'}")
    assert status == 0 and "Model pushed to" in said, said[-3000:]
    files = files_of(hub, "me/adapter")
    assert "adapter_model.safetensors" in files and "model.safetensors" not in files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/policy"
    assert config_of(hub, "me/adapter")["repo_id"] is None
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.base_model_relation) == ("me/policy", "adapter")
    assert "An adapter (LoRA) for [me/policy]" in card.text
    paths = ["me/adapter", str(newest(tmp_path / "run"))]
    status, said = run(code=CHUNKS.format(root=str(dataset_root), paths=paths))
    assert status == 0 and "SAME True" in said, said[-3000:]


def test_gem_goes_to_the_hub_and_becomes_a_policy_that_acts(
    hub: LocalHub, train: Run, depth_dataset_root: Path, tmp_path: Path
) -> None:
    status, said = train(
        GEM, PUSH, "--policy.repo_id=me/gem", f"--output_dir={tmp_path / 'gem'}", data=depth_dataset_root
    )
    assert status == 0, said[-3000:]
    card = ModelCard(files_of(hub, "me/gem")["README.md"].decode())
    assert "lerobot-rollout" not in card.text and "--policy.stage=generator" in card.text
    before = hub.writes()
    status, said = train(VLA, "--policy.backbone.pretrained=me/gem", f"--output_dir={tmp_path / 'vla'}")
    assert status == 0 and hub.writes() == before, said[-3000:]
    built = json.loads((newest(tmp_path / "vla") / "config.json").read_text())["built"]
    assert built["base_model"] == "me/gem" and built["stages_done"] == ["connector", "action"]
    ours, theirs = load_file(newest(tmp_path / "vla") / "model.safetensors"), tmp_path / "gem.safetensors"
    theirs.write_bytes(files_of(hub, "me/gem")["model.safetensors"])
    assert any(name in load_file(theirs) for name in ours)


def test_a_wrong_token_ends_the_run_and_leaves_the_checkpoint(
    hub: LocalHub, train: Run, tmp_path: Path
) -> None:
    options = (VLA, PUSH, "--policy.repo_id=me/refused", f"--output_dir={tmp_path / 'run'}")
    status, said = train(*options, token="hf_wrong")
    assert status != 0 and "Invalid credentials" in said, said[-3000:]
    assert "me/refused" not in hub.repositories and (newest(tmp_path / "run") / "model.safetensors").is_file()


def test_a_missing_repository_is_named(train: Run, tmp_path: Path) -> None:
    status, said = train("--policy.path=me/nothing", f"--output_dir={tmp_path / 'run'}")
    assert status != 0 and re.search(r"config.json not found on the HuggingFace Hub in me/nothing", said), (
        said[-3000:]
    )


# -- what a stranger's files could do ------------------------------------------------------------------------------------


def add_step(files: dict[str, bytes], victim: Path) -> dict[str, bytes]:
    pipeline = json.loads(files["policy_preprocessor.json"])
    pipeline["steps"].append({"class": "subprocess.Popen", "config": {"args": ["touch", str(victim)]}})
    return {**files, "policy_preprocessor.json": json.dumps(pipeline).encode()}


def enlarge(files: dict[str, bytes], victim: Path) -> dict[str, bytes]:
    config = json.loads(files["config.json"])
    config["built"]["backbone"]["text_config"]["vocab_size"] = 2_000_000_000
    return {**files, "config.json": json.dumps(config).encode()}


def pickle_weights(files: dict[str, bytes], victim: Path) -> dict[str, bytes]:
    import pickle

    class Touch:
        def __reduce__(self):
            return (Path.touch, (victim,))

    # Not even fetched, since the repository has other files in safetensors' format.
    rest = {name: content for name, content in files.items() if name != "model.safetensors"}
    return {**rest, "pytorch_model.bin": pickle.dumps({"weight": Touch()})}


@pytest.mark.parametrize(
    ("option", "harm", "message"),
    [
        ("--policy.path", add_step, "names a step by the path of a class"),
        ("--policy.backbone.pretrained", add_step, "names a step by the path of a class"),
        ("--policy.path", enlarge, "asks for a model that is far larger than the weights beside it"),
        (
            "--policy.backbone.pretrained",
            pickle_weights,
            "No weights: none of",
        ),
    ],
    ids=["step", "step of a backbone", "size", "pickle"],
)
def test_a_strangers_policy_is_refused(
    option: str, harm: Callable, message: str, hub: LocalHub, published: Path, train: Run, tmp_path: Path
) -> None:
    victim = tmp_path / "ran"
    name = f"me/harmful_{harm.__name__}"
    hub.publish(name, harm(files_of(hub, "me/policy"), victim))
    others = () if option == "--policy.path" else (VLA,)
    status, said = train(*others, f"{option}={name}", f"--output_dir={tmp_path / 'run'}")
    assert status != 0 and re.search(message, said), said[-3000:]
    assert not victim.exists()
