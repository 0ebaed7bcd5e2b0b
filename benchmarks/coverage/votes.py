"""How often the intervals of ratings and of win rates hold the truth, where votes on one prompt go together.

    python benchmarks/coverage/votes.py

Three makers differ on every prompt by what they differ on average and by what is the prompt's own, so that votes on one
prompt go together. The truth is that of 40,000 prompts. Beside the toolkit's intervals stand the percentile bootstrap
over prompts and, for win rates, Wilson's over votes, which takes every vote for a prompt of its own. Writes votes.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from dipp_toolkit.evaluation.bradley_terry import ALPHA, ELO, PairVotes, bradley_terry, rate
from dipp_toolkit.evaluation.intervals import Interval, clustered_share_interval, share_interval
from dipp_toolkit.utils.atomic import write_text

RESULTS = Path(__file__).with_name("votes.md")
COUNTS, STRENGTHS, OWN = (8, 16, 64), (0.0, 0.4, 2.0), 1.0
RESAMPLES = 200


def drawn(prompts: int, each: int, random: torch.Generator) -> PairVotes:
    """Votes on random pairs of makers, about `each` a prompt, at least one."""
    strengths = torch.tensor(STRENGTHS) + OWN * torch.randn(prompts, 3, generator=random)
    asked = 1 + torch.poisson(torch.full((prompts,), each - 1.0), generator=random).long()
    prompt = torch.arange(prompts).repeat_interleave(asked)
    first = torch.randint(3, prompt.shape, generator=random)
    second = (first + torch.randint(1, 3, prompt.shape, generator=random)) % 3
    likely = torch.sigmoid(strengths[prompt, first] - strengths[prompt, second])
    outcomes = (torch.rand(likely.shape, generator=random) < likely).double()
    return PairVotes(["a", "b", "c"], first, second, outcomes, prompt)


def wins_of(votes: PairVotes, maker: int, other: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each prompt the votes between two makers that the first won, and all of them."""
    prompts = int(votes.prompts.max()) + 1
    won, asked = torch.zeros(prompts, dtype=torch.float64), torch.zeros(prompts, dtype=torch.float64)
    for one, two, outcomes in (
        (votes.first, votes.second, votes.outcomes),
        (votes.second, votes.first, 1 - votes.outcomes),
    ):
        met = (one == maker) & (two == other)
        won.index_add_(0, votes.prompts[met], outcomes[met])
        asked.index_add_(0, votes.prompts[met], torch.ones_like(outcomes[met]))
    return won, asked


def best_rating(votes: PairVotes) -> float:
    """The rating of the strongest maker."""
    return ELO * bradley_terry(votes.wins(), ALPHA)[2].item()


def bootstrap_rating(votes: PairVotes) -> Interval:
    """Percentiles over resampled prompts."""
    prompts = int(votes.prompts.max()) + 1
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(RESAMPLES):
        times = torch.bincount(torch.randint(prompts, (prompts,), generator=random), minlength=prompts)
        rows = torch.arange(len(votes.prompts)).repeat_interleave(times[votes.prompts])
        columns = (votes.first[rows], votes.second[rows], votes.outcomes[rows], votes.prompts[rows])
        found.append(best_rating(PairVotes(votes.names, *columns)))
    low, high = torch.quantile(torch.tensor(found, dtype=torch.float64), torch.tensor([0.025, 0.975]).double()).tolist()
    return Interval(best_rating(votes), low, high)


def bootstrap_share(votes: PairVotes, maker: int) -> Interval:
    """The same of a win rate over the first maker."""
    won, asked = wins_of(votes, maker, 0)
    won, asked = won[asked > 0], asked[asked > 0]
    rows = torch.randint(len(won), (1000, len(won)), generator=torch.Generator().manual_seed(0))
    shares = won[rows].sum(1) / asked[rows].sum(1)
    low, high = torch.quantile(shares, torch.tensor([0.025, 0.975]).double()).tolist()
    return Interval((won.sum() / asked.sum()).item(), low, high)


def votes_alone(votes: PairVotes, maker: int) -> Interval:
    """Wilson's, every vote for itself."""
    won, asked = (part.sum().int().item() for part in wins_of(votes, maker, 0))
    return share_interval(torch.tensor([1.0] * won + [0.0] * (asked - won)))


METHODS: dict[str, tuple[Callable[[PairVotes], float], Callable[[PairVotes], Interval], int]] = {
    "rating of the best of three: `rate`": (best_rating, lambda votes: rate(votes).interval(2), 1),
    "the same: bootstrap over prompts": (best_rating, bootstrap_rating, 10),
}
for _maker, _name in ((1, "near a half"), (2, "far from it")):
    METHODS |= {
        f"win rate {_name}: `win_rate`": (
            lambda votes, maker=_maker: votes_alone(votes, maker).mean,  # type: ignore[misc]
            lambda votes, maker=_maker: clustered_share_interval(*wins_of(votes, maker, 0)),  # type: ignore[misc]
            1,
        ),
        "the same: bootstrap over prompts" + " " * _maker: (
            lambda votes, maker=_maker: votes_alone(votes, maker).mean,  # type: ignore[misc]
            lambda votes, maker=_maker: bootstrap_share(votes, maker),  # type: ignore[misc]
            4,
        ),
        "the same: Wilson's over votes" + " " * _maker: (
            lambda votes, maker=_maker: votes_alone(votes, maker).mean,  # type: ignore[misc]
            lambda votes, maker=_maker: votes_alone(votes, maker),  # type: ignore[misc]
            1,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000, help="sets of votes for each number")
    sets = parser.parse_args().sets
    heads = [f"{count} prompts, {each} votes each" for each in (4, 20) for count in COUNTS]
    lines = [f"| interval | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, (truth_of, method, fewer) in METHODS.items():
        cells = []
        for each in (4, 20):
            truth = truth_of(drawn(40_000, each, torch.Generator().manual_seed(1)))
            for count in COUNTS:
                random = torch.Generator().manual_seed(count)
                held = sum(method(drawn(count, each, random)).contains(truth) for _ in range(sets // fewer))
                cells.append(f"{100 * held / (sets // fewer):.1f}")
        lines.append(f"| {name.strip()} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    note = (
        f"Per cent of {sets:,} sets of votes (the bootstrap: {sets // 10} "
        f"for ratings, {sets // 4} for win rates) whose 95 % interval holds the truth; so many votes a prompt on "
        f"average, on random pairs of three makers. Chance alone moves a number by "
        f"{196 * math.sqrt(0.0475 / sets):.1f}."
    )
    write_text(RESULTS, "\n".join(lines) + f"\n\n{note}\n")


if __name__ == "__main__":
    main()
