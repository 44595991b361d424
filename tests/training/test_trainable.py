"""Freezing and the optimiser's groups (whole policies: tests/policies)."""

import pytest
from torch import nn

from lerobot_gem.training.muon import MATRICES
from lerobot_gem.training.trainable import (
    freeze_all_but,
    log_parts,
    parameter_groups,
    trainable_parameters,
)


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expert = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.backbone = nn.Module()
        self.backbone.model = nn.Module()
        self.backbone.model.language_model = nn.ModuleDict(
            {"embed": nn.Embedding(4, 2), "proj": nn.Linear(2, 2)}
        )


def test_only_the_named_parts_are_trainable(caplog: pytest.LogCaptureFixture):
    policy = Policy()
    with caplog.at_level("INFO"):
        freeze_all_but(policy, {"expert"})
        assert not caplog.text
        log_parts(policy)
    assert len(trainable_parameters(policy.expert)) == 4
    assert not trainable_parameters(policy.backbone)
    assert "expert: 0.00 M parameters, trainable" in caplog.text
    assert "language_model: 0.00 M parameters, frozen" in caplog.text


def test_nothing_trainable_is_an_error_that_names_what_this_policy_can_unfreeze():
    policy = Policy()
    with pytest.raises(
        ValueError,
        match="the policy has language_model, expert, but stage and freeze flags train merger, connector. Expected a part in common: "
        "--policy.backbone.freeze_language_model=false or --policy.expert.freeze=false.$",
    ):
        freeze_all_but(policy, {"connector", "merger"})
    del policy.expert
    with pytest.raises(
        ValueError, match="has language_model, but .* train no part.*: --policy.*language_model=false.$"
    ):
        freeze_all_but(policy, set())


@pytest.mark.parametrize("lr_backbone", [None, 0.1])
def test_groups_have_rates_and_leave_out_what_is_frozen(lr_backbone: float | None):
    policy = Policy()
    policy.expert[1].requires_grad_(False)
    groups = parameter_groups(
        policy.expert, backbone=policy.backbone, lr=0.5, lr_backbone=lr_backbone, muon=False
    )
    assert [(group["lr"], len(group["params"])) for group in groups] == [(0.5, 2), (lr_backbone or 0.5, 3)]


def test_muon_takes_weights_of_linear_layers_alone():
    policy = Policy()
    groups = parameter_groups(policy.expert, backbone=policy.backbone, lr=0.5, lr_backbone=None, muon=True)
    matrices = [weight for group in groups if group[MATRICES] for weight in group["params"]]
    language = policy.backbone.model.language_model
    assert {id(weight) for weight in matrices} == {id(policy.expert[0].weight), id(language["proj"].weight)}
    assert sum(len(group["params"]) for group in groups) == len(list(policy.parameters()))
