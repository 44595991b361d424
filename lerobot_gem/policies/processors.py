"""The one list of processor steps that both policies use."""

from dataclasses import asdict

import torch
from lerobot.processor import (
    PolicyProcessorPipeline,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from lerobot.utils.constants import OBS_STATE

from lerobot_gem.checkpoints.processor_files import load_tokenizer
from lerobot_gem.policies.base_configuration import BaseGemConfig
from lerobot_gem.processing.steps import CheckActionStep, CheckObservationStep, LanguageRowsStep, PromptStep


def make_gem_pipelines(
    config: BaseGemConfig,
    dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None,
    *,
    answers: bool,
    questions: bool = False,
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Build the pre- and post-processor of a policy whose features are settled.

    Args:
        config: Of a policy that was built.
        dataset_stats: Statistics for normalisation, by feature.
        answers: Prompts are questions with answers to be learned, instead of tasks to act on.
        questions: Questions with answers to be learned are beside the tasks to act on.
    """
    state = config.state_feature
    check = CheckObservationStep(
        state_sizes={OBS_STATE: state.shape[0]} if state else {}, checks_actions=not answers
    )

    default = make_default_policy_processor_steps(config, dataset_stats)
    return make_policy_processor_pipelines(
        input_steps=[
            default.rename_observations,
            *([LanguageRowsStep(tasks=answers)] if answers or questions else []),
            default.add_batch_dim,
            check,
            default.to_device,
            # Behind it, so that frames are resized and cut where they will be read.
            PromptStep(
                **asdict(config.images),
                tokenizer=load_tokenizer(config.sources.backbone),
                answers=answers,
                questions=questions,
            ),
            default.normalize,
        ],
        output_steps=[default.unnormalize, default.to_cpu, CheckActionStep()],
    )
