"""Folders of pictures of the same prompts against each other, prompt by prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch

from ...evaluation.scoring import ScoredFile
from .paired_tests import Comparison, compare_values, holm


def compare_groups(scored: Sequence[ScoredFile], rewards: Sequence[str]) -> tuple[list[Comparison], list[str]]:
    """Every pair of groups by every reward: paired difference, test and win rate, corrected for all of them together.

    A prompt is a pair, by the mean over its images on either side. Where all images have one prompt, images of the same
    file name are pairs.

    Args:
        scored: images of two or more groups.
        rewards: names.

    Returns:
        The comparisons, and a sentence for each pair of groups that cannot be compared.
    """
    groups: dict[str, list[ScoredFile]] = defaultdict(list)
    for row in scored:
        groups[row.file.group].append(row)
    several = len({row.file.prompt for row in scored}) > 1
    comparisons: list[Comparison] = []
    notices = []
    for a, b in combinations(groups, 2):
        first, second = (_by_pair(groups[name], several) for name in (a, b))
        if set(first) != set(second):
            what = "prompts" if several else "file names"
            notices.append(f"{a} and {b} hold pictures of different {what}, so they are not compared pair by pair.")
            continue
        for name in rewards:
            values = [
                torch.tensor([_mean(side[key], name) for key in first], dtype=torch.float64) for side in (first, second)
            ]
            comparisons.append(compare_values(a, b, name, values[0], values[1]))
    adjusted = holm([pair.p_value for pair in comparisons])
    return [replace(pair, p_adjusted=value) for pair, value in zip(comparisons, adjusted, strict=True)], notices


def _by_pair(scored: Sequence[ScoredFile], by_prompt: bool) -> Mapping[str, list[ScoredFile]]:
    pairs: dict[str, list[ScoredFile]] = defaultdict(list)
    for row in scored:
        pairs[row.file.prompt if by_prompt else row.file.path.name].append(row)
    return pairs


def _mean(scored: Sequence[ScoredFile], reward: str) -> float:
    return sum(row.scores[reward] for row in scored) / len(scored)
