"""Each depth map is learned from the tokens of its own image, whatever shares its batch. The release mixes them up."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK
from torch import Tensor

from lerobot_gem.policies.base_options import BackboneConfig, CamerasConfig, DepthConfig, DepthSupervision
from lerobot_gem.policies.depth_loss import depth_losses
from lerobot_gem.processing.chat import IMAGE_TOKEN, VISION_END_TOKEN, VISION_START_TOKEN
from lerobot_gem.processing.depth_target import depth_target, rgb_target
from lerobot_gem.processing.prompt_dropout import draw_kept
from lerobot_gem.processing.steps import OBS_SHOWN
from lerobot_gem.processing.tokenizer import build_tiny_tokenizer
from lerobot_gem.training.draws import drawing_by
from tests.conftest import CAMERAS, SEED, build_policy, read_batch
from tests.policies.gem.test_modeling_gem import warm

FIRST, SECOND = CAMERAS
DEPTH = {camera: f"{camera}_depth" for camera in CAMERAS}
CROSSED = {FIRST: DEPTH[SECOND], SECOND: DEPTH[FIRST]}
SAMPLES = 5
# Without any valid pixel: all of a sample's, and one of another's.
BLANK = {(1, DEPTH[FIRST]), (1, DEPTH[SECOND]), (3, DEPTH[FIRST])}

Image = tuple[int, str]  # sample and camera


def about(camera: str | None, question: str) -> list[dict]:
    return [
        {"role": "user", "content": question, "camera": camera},
        {"role": "assistant", "content": "There."},
    ]


# What a question names comes last: in the first or the last sample, spans are not in the order of the cameras.
MESSAGES = [
    about(FIRST, "Where?"),
    [],
    [*about(SECOND, "Which mug is it that stands on the left of the basket?"), *about(FIRST, "What?")],
    about(None, "What should the robot do now?"),
    about(SECOND, "How many mugs are there?"),
]
TASKS = ["go", "a much longer task that pads the others", "pick up the milk", "lift", "stack the red cube"]


@dataclass(frozen=True)
class Case:
    """What is asked of a policy.

    Attributes:
        pairs: `depth.cameras`.
        names: `cameras.names`.
        wide: The second camera's images are twice as wide as high, and its depth maps half their size.
    """

    pairs: dict[str, str] | None = None
    names: tuple[str, str] = CAMERAS
    wide: bool = False

    @property
    def expected_pairs(self) -> dict[str, str]:
        return DEPTH if self.pairs is None else self.pairs

    def options(self) -> dict:
        return {
            "cameras": CamerasConfig(names=list(self.names)),
            "depth": DepthConfig(cameras=self.pairs, loss_weight=0.5),
        }

    def batch(self, root: Path) -> dict:
        raw = read_batch(root, (0, 3, 4, 13, 22), chunk_size=4)
        raw |= {"messages": [json.dumps(messages) for messages in MESSAGES], "task": TASKS}
        if self.wide:
            raw[SECOND] = torch.rand(SAMPLES, 3, 64, 128)
            raw[DEPTH[SECOND]] = torch.randint(300, 4500, (SAMPLES, 1, 32, 64))
        for sample, key in BLANK:
            raw[key] = raw[key].clone()
            raw[key][sample] = 0
        return raw


def pictures_of(
    batch: dict, pairs: dict[str, str], config: DepthConfig, blank: Collection[tuple[int, str]] = BLANK
) -> dict[Image, Tensor]:
    """What the generator must paint of each image that has depth."""
    return {
        (sample, camera): depth_target(
            batch[key][sample : sample + 1] / 1000,
            colormap=config.colormap,
            max_side=config.max_side,
            rgb_size=tuple(batch[camera].shape[-2:]),
        ).pictures[0]
        for camera, key in pairs.items()
        for sample in range(len(batch[camera]))
        if (sample, key) not in blank
    }


CASES = {
    "by name": Case(),
    "crossed": Case(pairs=CROSSED),
    "other order": Case(names=(SECOND, FIRST)),
    "one": Case(pairs={SECOND: DEPTH[SECOND]}),
    "two sizes": Case(wide=True),
    "two sizes, other order": Case(names=(SECOND, FIRST), wide=True),
}
# Those that have all there is in one; the others tell where it went wrong.
QUICK = ("crossed", "two sizes, other order")
every_case = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, case in CASES.items()
    ],
)


@pytest.fixture
def make_vla(make_gem, make_policy, depth_dataset_root: Path, tmp_path: Path):
    """A function that builds a `gem_vla` with depth loss, of which a `gem` checkpoint is the beginning."""

    def build(case: Case):
        for part in make_gem(stage="joint"):
            part.save_pretrained(tmp_path / "gem")
        backbone = BackboneConfig(pretrained=str(tmp_path / "gem"))
        return make_policy(depth_dataset_root, backbone=backbone, **case.options())

    return build


@torch.no_grad()
def own_spans(policy, batch: dict, prompts: list[tuple[int, tuple[str, ...]]]) -> dict[Image, Tensor]:
    """The states of each image's tokens, from one prompt at a time that holds nothing but its images."""
    tokenizer = build_tiny_tokenizer()
    spans = {}
    for sample, cameras in prompts:
        images = [batch[camera][sample] for camera in cameras]
        counts = [image[0].numel() // 32**2 for image in images]
        text = [VISION_START_TOKEN + IMAGE_TOKEN * count + VISION_END_TOKEN for count in counts]
        tokens = tokenizer("<|im_start|>user\n" + "".join(text), return_tensors="pt")["input_ids"]
        states = policy.backbone.final_states(
            tokens, torch.ones_like(tokens), *policy.config.images.patches_of(images)
        )
        own = states[tokens == policy.backbone.image_token_id].split(counts)
        spans |= {(sample, camera): span for camera, span in zip(cameras, own, strict=True)}
    return spans


def prompts_of_questions(case: Case) -> list[tuple[int, tuple[str, ...]]]:
    """Which images share a prompt for MESSAGES: what a question names stands alone."""
    alone = [(sample, (camera,)) for sample in (0, 2, 4) for camera in CAMERAS]
    return [*alone, (1, case.names), (3, case.names)]


def painted(policy, monkeypatch, inputs: dict) -> list[tuple[Tensor, Tensor]]:
    """The tokens' states and the picture of each image that the generator learned from."""
    rows = []

    def loss(conditioning: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        assert len(conditioning) == len(mask) == len(targets)
        rows.extend(
            (states[tokens], picture)
            for states, tokens, picture in zip(conditioning, mask, targets, strict=True)
        )
        return torch.zeros(len(targets))

    monkeypatch.setattr(policy.generator, "loss", loss)
    with torch.no_grad():
        policy(inputs)
    return rows


def check_pairing(
    rows: list[tuple[Tensor, Tensor]], spans: dict[Image, Tensor], pictures: dict[Image, Tensor]
) -> None:
    found = []
    for states, picture in rows:
        (image,) = (
            image
            for image, own in pictures.items()
            if own.shape == picture.shape and own.allclose(picture, atol=1e-5)
        )
        torch.testing.assert_close(
            states, spans[image], rtol=1e-3, atol=1e-4, msg=lambda text, image=image: f"{image}: {text}"
        )
        found.append(image)
    assert sorted(found) == sorted(pictures)


@every_case
@pytest.mark.parametrize("stage", ["generator", "joint"])
def test_a_depth_map_is_learned_from_its_own_image_among_questions(
    case, stage, make_gem, depth_dataset_root, monkeypatch
):
    policy, preprocess, _ = make_gem(stage=stage, **case.options())
    warm(policy).eval()
    raw = case.batch(depth_dataset_root)
    inputs = preprocess(raw)
    # As hard as it is meant to be: prompts of several lengths, spans in another order than samples and cameras.
    assert len(inputs[OBS_LANGUAGE_ATTENTION_MASK].sum(dim=1).unique()) > 3
    shown = inputs[OBS_SHOWN].tolist()
    assert sorted(shown) == [[sample, camera] for sample in range(SAMPLES) for camera in range(2)] != shown

    rows = painted(policy, monkeypatch, inputs)
    spans = own_spans(policy, raw, prompts_of_questions(case))
    check_pairing(rows, spans, pictures_of(raw, case.expected_pairs, policy.config.depth))


@every_case
def test_a_depth_map_is_learned_from_its_own_image_beside_actions(
    case, make_vla, depth_dataset_root, monkeypatch
):
    policy, preprocess, _ = make_vla(case)
    warm(policy).eval()
    raw = case.batch(depth_dataset_root)
    inputs = preprocess(raw)
    assert len(inputs[OBS_LANGUAGE_ATTENTION_MASK].sum(dim=1).unique()) == SAMPLES
    rows = painted(policy, monkeypatch, inputs)
    spans = own_spans(policy, raw, [(sample, case.names) for sample in range(SAMPLES)])
    check_pairing(rows, spans, pictures_of(raw, case.expected_pairs, policy.config.depth))


def test_a_camera_that_is_left_out_has_no_depth_loss_and_moves_no_others(
    make_vla, depth_dataset_root, monkeypatch
):
    case = CASES["two sizes, other order"]
    policy, preprocess, _ = make_vla(case)
    warm(policy).train()
    policy.config.camera_dropout = policy.config.instruction_dropout = 0.4
    raw = case.batch(depth_dataset_root)
    policy.config.built.steps_done = 5
    cpu = torch.device("cpu")
    with drawing_by(SEED, 5, 0, cpu):
        kept = draw_kept(SAMPLES, 2, camera_dropout=0.4, instruction_dropout=0.4, device=cpu)
    shown = {(sample, case.names[camera]): None for sample, camera in kept.cameras.nonzero().tolist()}
    assert SAMPLES < len(shown) < 2 * SAMPLES
    rows = painted(policy, monkeypatch, preprocess(raw))
    prompts = [
        (sample, tuple(name for name in case.names if (sample, name) in shown)) for sample in range(SAMPLES)
    ]
    pictures = pictures_of(raw, case.expected_pairs, policy.config.depth)
    check_pairing(
        rows,
        own_spans(policy, raw, prompts),
        {image: picture for image, picture in pictures.items() if image in shown},
    )


@pytest.mark.parametrize("policy_type", ["gem", "gem_vla"])
@every_case
def test_a_sample_carries_the_depth_losses_of_its_own_images(
    case, policy_type, make_gem, make_vla, depth_dataset_root, monkeypatch
):
    if policy_type == "gem":
        policy, preprocess, _ = make_gem(stage="joint", **case.options())
    else:
        policy, preprocess, _ = make_vla(case)
    policy.eval()
    raw = case.batch(depth_dataset_root)
    inputs = preprocess(raw)

    @torch.no_grad()
    def losses(scale: float) -> Tensor:
        torch.manual_seed(0)
        monkeypatch.setattr(
            policy.generator, "loss", lambda spans, mask, targets: scale * (2 + targets.mean(dim=(1, 2, 3)))
        )
        return policy(inputs, reduction="none")[0]

    pictures = pictures_of(raw, case.expected_pairs, policy.config.depth)
    expected = torch.zeros(SAMPLES)
    for (sample, _), picture in pictures.items():
        expected[sample] += (2 + picture.mean()) * SAMPLES / len(pictures)
    depth = (losses(1.0) - losses(0.0)) / policy.config.depth.loss_weight
    torch.testing.assert_close(depth, expected, rtol=1e-3, atol=1e-4)


@every_case
def test_generated_depth_is_that_of_each_cameras_own_image(case, make_gem, depth_dataset_root, monkeypatch):
    policy, preprocess, _ = make_gem(stage="joint", **case.options())
    warm(policy)
    raw = case.batch(depth_dataset_root)
    spans = own_spans(policy.eval(), raw, prompts_of_questions(case))

    def paint(states: Tensor) -> Tensor:
        """A colour that tells whose states these are."""
        return states.mean(dim=0)[:3]

    def sample(conditioning: Tensor, mask: Tensor, size: tuple[int, int], **_) -> Tensor:
        colours = [paint(states[tokens]) for states, tokens in zip(conditioning, mask, strict=True)]
        return torch.stack(colours)[:, :, None, None].expand(-1, 3, *size)

    monkeypatch.setattr(policy.generator, "sample", sample)
    depth = policy.generate_depth(preprocess({key: raw[key] for key in raw if key not in DEPTH.values()}))
    assert list(depth) == list(case.names)
    for camera, pictures in depth.items():
        height = 32 if case.wide and camera == SECOND else 64
        assert pictures.shape == (SAMPLES, 3, height, 64)
        for position in range(SAMPLES):
            torch.testing.assert_close(
                pictures[position, :, 0, 0], paint(spans[position, camera]), rtol=1e-3, atol=1e-4
            )


def test_the_control_learns_the_pictures_of_the_same_images(make_gem, depth_dataset_root, monkeypatch):
    """`depth.target` "rgb": what is painted differs, and nothing else; what has no depth is left out of both."""
    rows = {}
    raw = Case(wide=True).batch(depth_dataset_root)
    for target in ("depth", "rgb"):
        policy, preprocess, _ = make_gem(stage="joint", depth=DepthConfig(target=target, max_side=64))
        rows[target] = painted(warm(policy).eval(), monkeypatch, preprocess(raw))
    kept = [
        (sample, camera)
        for sample in range(SAMPLES)
        for camera in CAMERAS
        if (sample, DEPTH[camera]) not in BLANK
    ]
    assert len(rows["rgb"]) == len(rows["depth"]) == len(kept) == 7
    for (states, picture), (depth_states, depth_picture) in zip(rows["rgb"], rows["depth"], strict=True):
        assert states.equal(depth_states) and picture.shape == depth_picture.shape
    sizes = [tuple(picture.shape[1:]) for _, picture in rows["rgb"]]
    assert sizes.count((64, 64)) == 3 and sizes.count((32, 64)) == 4
    learned = [picture for _, picture in rows["rgb"]]
    for sample, camera in kept:
        image = raw[camera][sample : sample + 1]
        height, width = image.shape[-2:]
        own = rgb_target(image, (64 * height // max(height, width), 64 * width // max(height, width)))[0]
        assert sum(own.shape == other.shape and own.allclose(other, atol=1e-5) for other in learned) == 1


@pytest.mark.parametrize("policy_type", ["gem", "gem_vla"])
def test_the_control_teaches_the_backbone_and_its_checkpoint_goes_on(
    policy_type, make_gem, make_policy, depth_dataset_root, tmp_path, monkeypatch
):
    policy, preprocess, postprocess = make_gem(stage="joint", depth=DepthConfig(target="rgb"))
    raw = Case().batch(depth_dataset_root)
    if policy_type == "gem_vla":
        for part in (policy, preprocess, postprocess):
            part.save_pretrained(tmp_path / "gem")
        policy, preprocess, postprocess = make_policy(
            depth_dataset_root,
            backbone=BackboneConfig(pretrained=str(tmp_path / "gem")),
            depth=DepthConfig(target="rgb", loss_weight=0.1),
        )
    inputs = preprocess(raw)
    warm(policy).train()
    with monkeypatch.context() as patch:
        patch.setattr(type(policy.config), "loss_weights", property(lambda _: {"depth": 1.0}))
        policy(inputs)[0].backward()
    seen = policy.backbone.language_model.layers[-1].mlp.down_proj.weight.grad
    assert seen is not None and seen.abs().sum() > 0

    for part in (policy, preprocess, postprocess):
        part.save_pretrained(tmp_path / "saved")
    config = PreTrainedConfig.from_pretrained(tmp_path / "saved")
    assert config.depth.target == "rgb"
    config.pretrained_path = tmp_path / "saved"
    again, *_ = build_policy(config, depth_dataset_root)
    losses = []
    for one in (policy, again):
        torch.manual_seed(0)
        losses.append(one.eval()(inputs)[1]["depth_loss"])
    assert losses[0] == losses[1] > 0


def test_images_may_be_shown_in_any_order():
    config = DepthSupervision(CROSSED, unit="mm", colormap="spectral", max_side=64)
    torch.manual_seed(0)
    batch = {camera: torch.rand(3, 3, 64, 64) for camera in CAMERAS}
    batch |= {key: torch.randint(300, 4500, (3, 1, 64, 64)) for key in DEPTH.values()}
    shown = [(2, 1), (0, 0), (2, 0), (1, 1), (0, 1)]
    spans = torch.randn(len(shown), 4, 8)
    own = {(sample, CAMERAS[camera]): span for (sample, camera), span in zip(shown, spans, strict=True)}
    pictures = {
        image: picture for image, picture in pictures_of(batch, CROSSED, config, ()).items() if image in own
    }
    rows = []

    class Generator:
        def loss(self, conditioning: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
            rows.extend(zip(conditioning, targets, strict=True))
            return targets.mean(dim=(1, 2, 3))

    mask = torch.ones(spans.shape[:2], dtype=torch.bool)
    losses = depth_losses(Generator(), spans, mask, shown, batch, CAMERAS, config)
    check_pairing(rows, own, pictures)
    for sample in range(3):
        expected = [picture.mean() for (owner, _), picture in pictures.items() if owner == sample]
        torch.testing.assert_close(losses.per_image[losses.samples == sample].sum(), sum(expected))
