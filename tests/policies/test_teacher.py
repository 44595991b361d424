"""One-step distillation: who learns, what is saved, and which teachers are refused."""

import json
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from safetensors.torch import load_file

from lerobot_gem.policies.expert_options import DistillationConfig, ExpertConfig
from lerobot_gem.policies.gem_vla.modeling_gem_vla import GemVLAPolicy
from tests.conftest import ACTION_DIM, build_policy, write_dataset
from tests.policies.gem.test_modeling_gem import save, warm
from tests.policies.gem_vla.test_modeling_gem_vla import grads
from tests.policies.test_adapters import LORA, save_adapter


@pytest.fixture
def teacher(make_policy, tmp_path: Path) -> Path:
    """A checkpoint that acts in five steps."""
    policy, *processors = make_policy()
    return Path(save(tmp_path / "teacher", warm(policy), *processors))


@pytest.fixture
def student_of(make_policy):
    """A function that builds (policy, preprocessor, postprocessor) that learn from a teacher, starting as it is."""

    def build(teacher: Path, **overrides):
        return make_policy(
            **{
                "pretrained_path": teacher,
                "distillation": DistillationConfig(teacher=str(teacher)),
                **overrides,
            }
        )

    return build


def gap(policy, inputs, taught, noise) -> float:
    """Mean distance of the chunks that a policy acts by to the teacher's."""
    return (policy.predict_action_chunk(inputs, noise=noise) - taught).square().mean().item()


def test_one_step_of_the_student_comes_close_to_the_teachers_five(teacher, student_of, batch):
    student, preprocess, _ = student_of(teacher)
    assert student.config.expert.num_inference_steps == 1
    inputs = preprocess(batch)
    noise = torch.randn(4, 4, ACTION_DIM)
    taught = GemVLAPolicy.from_pretrained(teacher).predict_action_chunk(inputs, noise=noise)
    before = gap(student, inputs, taught, noise)
    loss, logs = student(inputs, noise=noise)
    assert logs["action_loss"] == pytest.approx(before, rel=1e-4)
    optimizer = torch.optim.Adam(student.get_optim_params(), lr=1e-3)
    for _ in range(20):
        loss, _ = student(inputs, noise=noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert gap(student, inputs, taught, noise) < 0.2 * before


def test_the_student_alone_has_gradients_and_the_teacher_stays(teacher, student_of, batch):
    student, preprocess, _ = student_of(teacher)
    student(preprocess(batch))[0].backward()
    assert grads(student).keys() == {name for name, _ in student.named_parameters()}
    [teaching] = [student._teacher._policy]
    assert not grads(teaching) and not teaching.training
    stored = load_file(teacher / "model.safetensors")
    weights = teaching.state_dict()
    assert weights.keys() == stored.keys()
    assert all(weight.equal(stored[name]) for name, weight in weights.items())
    trained = {id(weight) for weight in student.parameters()}
    assert not trained & {id(weight) for weight in teaching.parameters()}


def test_only_what_is_trained_is_logged_as_trainable(teacher, student_of, batch, caplog):
    """Neither the teacher nor a policy that was loaded to act."""
    with caplog.at_level("INFO"):
        student, preprocess, _ = student_of(teacher)
        assert caplog.text.count("expert: ") == 1
        caplog.clear()
        student(preprocess(batch))
        GemVLAPolicy.from_pretrained(teacher)
    assert "trainable" not in caplog.text and "frozen" not in caplog.text


def test_micro_batches_give_the_same_gradients(teacher, student_of, batch):
    gradients = []
    for size in (None, 1):
        student, preprocess, _ = student_of(
            teacher, micro_batch_size=size, expert=ExpertConfig(flow_samples=2)
        )
        torch.manual_seed(3)
        student(preprocess(batch))[0].backward()
        gradients.append(grads(student))
    whole, parts = gradients
    assert all(torch.allclose(parts[name], whole[name], atol=1e-5, rtol=1e-4) for name in whole)


def test_the_checkpoint_is_an_ordinary_one_without_the_teacher(teacher, student_of, tmp_path):
    student, *processors = student_of(teacher)
    folder = Path(save(tmp_path / "student", student, *processors))
    assert load_file(folder / "model.safetensors").keys() == load_file(teacher / "model.safetensors").keys()
    written = json.loads((folder / "config.json").read_text())
    assert written["distillation"]["teacher"] is None and written["expert"]["num_inference_steps"] == 1
    assert student.config.distillation.teacher == str(teacher)
    assert GemVLAPolicy.from_pretrained(folder)._teacher is None


def test_a_student_acts_in_one_step_alone(teacher, student_of, dataset_root, tmp_path, caplog):
    folder = save(tmp_path / "student", *student_of(teacher))
    config = PreTrainedConfig.from_pretrained(folder)
    config.expert.num_inference_steps = 5
    with pytest.raises(
        ValueError, match="num_inference_steps=5, but this policy was distilled to act in one step"
    ):
        GemVLAPolicy.from_pretrained(folder, config=config)
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    policy, *_ = build_policy(config, dataset_root)
    assert "was distilled to act in one step, and learns demonstrated actions now" in caplog.text
    assert not policy.config.built.one_step


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"chunk_size": 5}, r"chunk_size 4 there, 5 here"),
        ({"expert": ExpertConfig(use_state=False)}, r"numbers of the state 8 there, None here"),
    ],
)
def test_a_teacher_of_other_dimensions_is_refused(teacher, student_of, overrides, message):
    with pytest.raises(ValueError, match=message):
        student_of(teacher, pretrained_path=None, **overrides)


def test_all_that_differs_is_named_in_one_error(teacher, student_of, tmp_path):
    root = write_dataset(tmp_path / "other", action_dim=ACTION_DIM + 1, state_dim=3)
    with pytest.raises(
        ValueError, match=r"numbers of an action 7 there, 8 here; numbers of the state 8 there, 3"
    ):
        student_of(teacher, pretrained_path=None, root=root)


def test_a_teacher_of_other_data_is_refused(teacher, student_of, tmp_path):
    root = write_dataset(tmp_path / "other")
    file = root / "meta" / "stats.json"
    stats = json.loads(file.read_text())
    stats["action"]["max"] = [2 * value for value in stats["action"]["max"]]
    file.write_text(json.dumps(stats))
    with pytest.raises(ValueError, match="was trained on data whose action has another 'max'"):
        student_of(teacher, root=root)


@pytest.mark.parametrize("missing", ["/no/such/folder", "nobody/nothing", "."])
def test_a_teacher_that_is_not_there_is_named(student_of, missing):
    with pytest.raises(
        FileNotFoundError, match=f"distillation.teacher='{missing}' is no policy that can be read"
    ):
        student_of(missing, pretrained_path=None)


def test_what_cannot_teach_is_refused(make_gem, student_of, tmp_path):
    save(tmp_path / "gem", *make_gem())
    with pytest.raises(ValueError, match="is a 'gem' policy: expected 'gem_vla'"):
        student_of(tmp_path / "gem", pretrained_path=None)


@pytest.mark.parametrize("on_the_hub", [False, True], ids=["folder", "hub"])
def test_an_adapter_cannot_teach(on_the_hub, make_policy, teacher, student_of, tmp_path, monkeypatch):
    """Nor can it be loaded as a whole policy."""
    policy, *processors = make_policy(pretrained_path=teacher)
    adapted = policy.wrap_with_peft(peft_cli_overrides=LORA)
    cache = tmp_path / "cache" / "models--me--lora"
    folder = cache / "snapshots" / ("1" * 40)
    save_adapter(folder, adapted, *processors)
    if on_the_hub:
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(folder.name)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    adapter = "me/lora" if on_the_hub else str(folder)
    message = "is an adapter: expected a whole policy here. Merge it"
    with pytest.raises(ValueError, match=f"^distillation.teacher='{adapter}' {message}"):
        student_of(adapter, pretrained_path=None)
    with pytest.raises(ValueError, match=f"^{adapter} {message}"):
        GemVLAPolicy.from_pretrained(adapter)


def test_a_frozen_expert_cannot_be_taught():
    from lerobot_gem.policies.gem_vla.configuration_gem_vla import GemVLAConfig

    with pytest.raises(Exception, match="expert.freeze=true with distillation.teacher='x'"):
        GemVLAConfig(preset="tiny", distillation=DistillationConfig("x"), expert=ExpertConfig(freeze=True))
