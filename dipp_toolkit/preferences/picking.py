"""Which two images to ask about next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from ..errors import RequestError
from ..utils.messages import quoted
from .order_information import order_worth
from .pair import Candidate, Comparison
from .rating_posterior import RatingPosterior

ADAPTIVE, RANDOM = "adaptive", "random"
WAYS = (ADAPTIVE, RANDOM)


class PairPicker:
    """Picks pairs of images of one prompt.

    `adaptive` asks about the pair whose order is least sure and about which a vote says most (`order_worth`), under the
    posterior of all votes so far (`rating_posterior`). Votes spread over the prompts by themselves, as an image that
    was asked about has a smaller variance, and what is known of the makers tells the pairs of untouched prompts apart.
    `random` asks about any pair.

    A pair is asked about a second time after all have been asked about once, and then those come first that the voter
    was not asked about. Equal pairs are told apart by random numbers of the seed and the number of votes, so that the
    seed and the history decide every pick, and the same question is picked until it is answered or avoided.

    Args:
        candidates: the images.
        comparisons: votes so far; of images that are not among the candidates they are left out.
        seed: of the random numbers, 0 or more.
        way: `adaptive` or `random`.
        worth: what a vote on a pair is worth, of the mean and the variance of the difference of its ratings.

    Raises:
        RequestError: the way is neither, or two images share an id.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        comparisons: Iterable[Comparison] = (),
        *,
        seed: int = 0,
        way: str = ADAPTIVE,
        worth: Callable[[np.ndarray, np.ndarray], np.ndarray] = order_worth,
    ):
        if way not in WAYS:
            raise RequestError(f"Pairs are picked {' or '.join(WAYS)}, not {quoted(way)}.")
        self.candidates, self.seed, self.way = list(candidates), seed, way
        self._position = {candidate.id: position for position, candidate in enumerate(self.candidates)}
        if len(self._position) < len(self.candidates):
            raise RequestError("Two images have one id; expected an id of its own for each.")
        self.posterior = RatingPosterior(
            [candidate.prompt for candidate in self.candidates], [candidate.maker for candidate in self.candidates]
        )
        self._worth_of = worth
        self._pairs = [np.triu_indices(block.index.shape[1], 1) for block in self.posterior.blocks]
        counts = [
            len(block.index) * len(one) for block, (one, _) in zip(self.posterior.blocks, self._pairs, strict=True)
        ]
        self._starts = [sum(counts[:number]) for number in range(len(counts))]
        blocks = zip(self.posterior.blocks, self._pairs, strict=True)
        ends = [(block.index[:, one].ravel(), block.index[:, other].ravel()) for block, (one, other) in blocks]
        self._ends = np.concatenate([np.stack(pair, 1) for pair in ends]) if ends else np.zeros((0, 2), dtype=int)
        self._asked = np.zeros(len(self._ends), dtype=bool)
        self._asked_of: dict[str, Counter[int]] = {}
        self._votes = 0
        for comparison in comparisons:
            self.add(comparison)

    def add(self, comparison: Comparison) -> None:
        """Learn of a vote; one that repeats the voter's own says nothing new of the images.

        Raises:
            RequestError: it compares images of two prompts.
        """
        first = self._position.get(comparison.first.id)
        second = self._position.get(comparison.second.id)
        if first is None or second is None:
            return
        row = self._row(first, second)
        if row is None:
            raise RequestError("A vote is between two images of one prompt.")
        self._votes += 1
        self._asked[row] = True
        self._asked_of.setdefault(comparison.voter, Counter())[row] += 1
        if not comparison.repeat:
            self.posterior.add(first, second, comparison.outcome)

    def pick(self, voter: str, avoid: Collection[frozenset[int]] = ()) -> tuple[int, int] | None:
        """The next pair for a voter, as the ids of two images of one prompt; which comes first is at random.

        Args:
            voter: who is asked.
            avoid: pairs of ids that are not asked about now, such as those that others are looking at.

        Returns:
            None where every pair is to be avoided, or there is none.
        """
        allowed = np.ones(len(self._ends), dtype=bool)
        for pair in avoid:
            places = [self._position[name] for name in pair if name in self._position]
            row = self._row(*places) if len(places) == 2 else None
            if row is not None:
                allowed[row] = False
        if not allowed.any():
            return None
        if (allowed & ~self._asked).any():
            allowed &= ~self._asked
        else:
            own = np.zeros(len(self._ends), dtype=int)
            for row, times in self._asked_of.get(voter, Counter()).items():
                own[row] = times
            allowed &= own == own[allowed].min()
        random = np.random.default_rng([self.seed, self._votes])
        rows = np.flatnonzero(allowed)
        if self.way == ADAPTIVE:
            worth = self._worth()[rows]
            # Rounding tells no pairs apart.
            rows = rows[worth >= worth.max() - 1e-9]
        first, second = random.permutation(self._ends[random.choice(rows)]).tolist()
        return self.candidates[first].id, self.candidates[second].id

    def _row(self, first: int, second: int) -> int | None:
        """Where a pair of positions stands among all pairs, which are too many for a table; None where it is none."""
        (block, prompt, one), (other_block, other_prompt, other) = (
            self.posterior.place(position) for position in (first, second)
        )
        if (block, prompt) != (other_block, other_prompt) or one == other:
            return None
        low, high = sorted((one, other))
        size = self.posterior.blocks[block].index.shape[1]
        before = low * (2 * size - low - 1) // 2  # pairs whose first image stands before this one's
        return self._starts[block] + prompt * (size * (size - 1) // 2) + before + high - low - 1

    def _worth(self) -> np.ndarray:
        parts = []
        for block, (one, other) in zip(self.posterior.blocks, self._pairs, strict=True):
            means, variances = self.posterior.differences(block)
            parts.append(self._worth_of(means[:, one, other], variances[:, one, other]).ravel())
        return np.concatenate(parts)
