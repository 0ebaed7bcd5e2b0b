"""The many-step teacher of an emoji world: the guidance at which the judge likes it best, its images, and its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks._shared.emoji_columns import NOISES, SEEDS, scores_and_naming
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import Condition, load_prompts
from dipp_toolkit.models.sampling import sample_reference
from dipp_toolkit.protocols import Reference, texts
from dipp_toolkit.training.run_state.start_record import pipeline_digest
from dipp_toolkit.utils.fingerprint import digest_of

GUIDANCES = (1.0, 1.5, 2.0, 3.0, 4.5)
SEARCHED_WITH = 20
"""Sampling steps of the search for the best guidance."""
SEARCHED_ON = "emoji-train?count=88"
"""Prompts of the search: none of those that results are reported on, or the best of five would be best by chance."""
FORMAT = 2
"""Raised where this file measures in another way, so that numbers of before have another key."""


def best_guidance(judge: EmojiJudge, reference: Reference, steps: int = SEARCHED_WITH) -> dict[str, Any]:
    """The reference's guidance with the highest judged preference on training prompts, and all of the search."""
    prompts = texts(load_prompts(SEARCHED_ON))
    condition, scores = reference.encode(prompts), {}
    for guidance in GUIDANCES:
        images = sample_reference(reference, condition, 77, steps, guidance)
        scores[guidance] = scores_and_naming(judge, images[:, None], prompts)[0].mean().item()
    return {
        "preference_by_guidance": scores,
        "guidance": max(scores, key=lambda guidance: scores[guidance]),
        "prompts": SEARCHED_ON,
        "steps": steps,
    }


def teacher_column(
    reference: Reference, condition: Condition, steps: int, guidance: float, seeds: Sequence[int] = SEEDS
) -> Tensor:
    """The teacher's images, `(prompts, noises, 3, 64, 64)`, from the noises that every generator is given."""
    return torch.stack([sample_reference(reference, condition, seed, steps, guidance) for seed in seeds], dim=1)


def teacher_key(reference: Reference, judge: EmojiJudge, prompts: list[str], steps: int) -> str:
    """What the teacher's judged preference depends on, the machine's rounding left out."""
    return digest_of(
        {
            "format": FORMAT,
            "reference": pipeline_digest(cast(Any, reference).folder),
            "judge": pipeline_digest(judge.folder),
            "prompts": prompts,
            "steps": steps,
            "noises": NOISES,
            "guidances": [GUIDANCES, SEARCHED_WITH, SEARCHED_ON],
        }
    )
