"""Whether the rewards of a section prefer what its judges prefer, pair of generators by pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch

from ...evaluation.rank_agreement import PairAgreement, pairwise_agreement
from ..bench.rows import Row
from .board import Section


@dataclass(frozen=True)
class PairOfRows:
    """Two rows, and for every reward and judge on how many prompts both prefer the same one.

    Attributes:
        a, b: labels.
        shares: by reward and judge; a combination is missing where the two cannot be compared or nothing is decided.
    """

    a: str
    b: str
    shares: Mapping[tuple[str, str], PairAgreement]


def agreements(section: Section) -> list[PairOfRows]:
    """Every pair of rows of a section; none where it has no judge or no reward."""
    kinds = [(reward, judge) for reward in section.named("reward") for judge in section.named("judge")]
    pairs = []
    for a, b in combinations(section.rows, 2):
        shares = {}
        for reward, judge in kinds:
            share = _share(a, b, reward, judge)
            if share is not None:
                shares[reward, judge] = share
        if shares:
            pairs.append(PairOfRows(a.label, b.label, shares))
    return pairs


def _share(a: Row, b: Row, reward: str, judge: str) -> PairAgreement | None:
    values = []
    for name in (reward, judge):
        for row in (a, b):
            figure = row.figures.get(name)
            if figure is None or figure.per_prompt is None:
                return None
            values.append(torch.tensor(figure.per_prompt, dtype=torch.float64))
        if a.protocol.versions.get(name) != b.protocol.versions.get(name):
            return None
    decided = ((values[0] != values[1]) & (values[2] != values[3])).any()
    return pairwise_agreement(values[0], values[1], values[2], values[3]) if decided else None
