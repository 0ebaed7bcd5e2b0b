"""The many-step teacher of an emoji world: the guidance at which the judge likes it best, its images, and its key."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from benchmarks._shared.emoji_columns import NOISES
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import Condition
from dipp_toolkit.models.sampling import sample_reference
from dipp_toolkit.protocols import Reference
from dipp_toolkit.training.run_state.start_record import pipeline_digest
from dipp_toolkit.utils.fingerprint import digest_of

GUIDANCES = (1.0, 1.5, 2.0, 3.0, 4.5)
SEARCHED_WITH = 20
"""Sampling steps of the search for the best guidance."""
FORMAT = 1
"""Raised where this file measures in another way, so that numbers of before have another key."""


def best_guidance(
    judge: EmojiJudge, reference: Reference, condition: Condition, prompts: list[str], steps: int = SEARCHED_WITH
) -> dict[str, Any]:
    """The reference's guidance with the highest judged preference, on every fourth prompt."""
    rows = list(range(0, len(prompts), 4))
    chosen = [prompts[row] for row in rows]
    scores = {}
    for guidance in GUIDANCES:
        images = sample_reference(reference, condition[rows], 77, steps, guidance)
        with torch.no_grad():
            scores[guidance] = judge(images, chosen).mean().item()
    return {"preference_by_guidance": scores, "guidance": max(scores, key=lambda guidance: scores[guidance])}


def teacher_column(reference: Reference, condition: Condition, steps: int, guidance: float) -> Tensor:
    """The teacher's images, `(prompts, NOISES, 3, 64, 64)`, from the noises that every generator is given."""
    sets = [sample_reference(reference, condition, 100 + k, steps, guidance) for k in range(NOISES)]
    return torch.stack(sets, dim=1)


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
            "guidances": [GUIDANCES, SEARCHED_WITH],
        }
    )
