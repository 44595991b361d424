"""The loss of answers, by sample."""

import torch

from lerobot_gem.policies.language_loss import language_logs, language_sums
from lerobot_gem.processing.steps import IGNORED, OBS_LABELS, OBS_ROW_SAMPLES


def test_each_answer_token_counts_for_the_sample_of_its_row(make_gem):
    policy, *_ = make_gem(stage="joint")
    torch.manual_seed(0)
    states = torch.randn(3, 4, policy.backbone.hidden_size)
    labels = torch.full((3, 4), IGNORED)
    labels[0, 2:], labels[2, 3] = 7, 9  # two tokens in a row of sample 1, one in a row of sample 0
    samples = torch.tensor([1, 1, 0])
    sums = language_sums(
        policy.backbone, states, {OBS_LABELS: labels, OBS_ROW_SAMPLES: samples}, batch_size=2
    )
    assert sums["language"].counts.tolist() == sums["accuracy"].counts.tolist() == [1, 2]
    scores = policy.backbone.logits(states).log_softmax(dim=-1)
    torch.testing.assert_close(
        sums["language"].sums, torch.stack([-scores[2, 2, 9], -scores[0, 1, 7] - scores[0, 2, 7]])
    )
    assert language_logs(sums).keys() == {"language_loss", "token_accuracy"}
