"""Votes as a fit takes them: decided ones, each image once, and prompts held out whole."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import RequestError
from ...utils.fingerprint import digest_of
from ..pair import Candidate, Comparison, fitted_on

LEAST_HELD = 2
"""Prompts on each side of the split: of a single one there is no interval."""


@dataclass(frozen=True)
class Votes:
    """Votes that say which image is better, as rows of a table of images.

    Attributes:
        images: all that were voted on, each once, in the order of the votes.
        chosen: rows of the preferred images, one a vote.
        rejected: rows of the others.
        held: of each vote, whether its prompt is held out.
        ties: votes that said neither, which the fit leaves out.
        repeats: questions that were asked again, likewise.
    """

    images: tuple[Candidate, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    held: tuple[bool, ...]
    ties: int
    repeats: int

    @property
    def prompts(self) -> list[str]:
        """Those that were voted on, each once."""
        return list(dict.fromkeys(image.prompt for image in self.images))

    def rows(self, held: bool) -> list[int]:
        """Which votes are held out, or which are not."""
        return [row for row, out in enumerate(self.held) if out == held]

    def prompt_of(self, vote: int) -> str:
        """The prompt of a vote."""
        return self.images[self.chosen[vote]].prompt


def votes_from(comparisons: Sequence[Comparison], held_out: float, seed: int) -> Votes:
    """Votes for a fit.

    Args:
        comparisons: as they were said.
        held_out: the share of prompts that is held out, 0 for none.
        seed: of the split.

    Raises:
        RequestError: there are none, all are ties, or there are too few prompts to hold any out.
    """
    if not comparisons:
        raise RequestError("There are no votes to fit a reward to. Collect some with: dipp vote")
    if not 0 <= held_out < 1:
        raise RequestError(f"--held-out is {held_out:g}; expected a share of the prompts, from 0 to less than 1.")
    counted = fitted_on(list(comparisons))
    decided = [comparison for comparison in counted if comparison.winner is not None]
    if not decided:
        raise RequestError(
            f"All {len(counted)} votes are ties, which say nothing of which image is better; a fit needs votes for one "
            "of two images."
        )
    images = {image.id: image for vote in decided for image in (vote.first, vote.second)}
    row_of = {identity: row for row, identity in enumerate(images)}
    out = _held_prompts([vote.first.prompt for vote in decided], held_out, seed)
    winners = [vote.winner or vote.first for vote in decided]
    losers = [vote.loser or vote.second for vote in decided]
    return Votes(
        images=tuple(images.values()),
        chosen=tuple(row_of[image.id] for image in winners),
        rejected=tuple(row_of[image.id] for image in losers),
        held=tuple(vote.first.prompt in out for vote in decided),
        ties=len(counted) - len(decided),
        repeats=len(comparisons) - len(counted),
    )


def _held_prompts(prompts: Sequence[str], share: float, seed: int) -> frozenset[str]:
    different = sorted(set(prompts))
    if share == 0:
        return frozenset()
    if len(different) < 2 * LEAST_HELD:
        raise RequestError(
            f"The votes are on {len(different)} prompt{'s' * (len(different) != 1)}, too few to hold any out; expected "
            f"{2 * LEAST_HELD} or more. Vote on more prompts, or fit all votes without measuring it: --held-out 0"
        )
    count = min(max(LEAST_HELD, round(share * len(different))), len(different) - LEAST_HELD)
    return frozenset(random.Random(f"held out {seed}").sample(different, count))


def data_digest(votes: Votes, comparisons: Sequence[Comparison]) -> str:
    """SHA-256 of what was said of which images, the images by their files' bytes.

    Raises:
        RequestError: an image is missing.
    """
    files = {image.id: hashlib.sha256(image.picture.encoded()).hexdigest() for image in votes.images}
    return digest_of(
        [
            [said.first.prompt, files.get(said.first.id), files.get(said.second.id), said.outcome, said.repeat]
            for said in comparisons
        ]
    )
