"""How many votes picked pairs save: the votes that reach an agreement, picked by what they say, and at random.

    python benchmarks/vote_picking/run.py

Images with hidden ratings, 40 prompts with 6 images each of 3 makers, are voted on until every pair was asked about
once (600 votes), or with 12 images each until as many votes are in. The hidden ratings are normal, or the scores of
`emoji-judge`; a voter errs on a tenth of the pairs, or as the ratings' logistic has it, and all ways of picking meet
the same voter. The agreement is the share of all pairs of images of a prompt that the ratings of one and the same
posterior (`dipp_toolkit.preferences.rating_posterior`), given the votes, order as the hidden ratings do. It is averaged
over seeds, the levels are what random picking has after 300, 450 and 600 votes, and the votes that a way needs are the
first count that reaches the level. Writes results.json and results.md; takes ten minutes on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.vote_picking.worlds import Voter, World, abstract, emoji, erring, logistic
from dipp_toolkit.evaluation.intervals import Interval, mean_interval
from dipp_toolkit.preferences.order_information import difference_information, order_information
from dipp_toolkit.preferences.pair import Comparison
from dipp_toolkit.preferences.picking import ADAPTIVE, RANDOM, PairPicker
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.device import environment

HERE = Path(__file__).parent
VOTES, LEVELS = 600, (300, 450, 600)
WAYS: dict[str, Callable[..., PairPicker]] = {
    "random": partial(PairPicker, way=RANDOM),
    "adaptive": partial(PairPicker, way=ADAPTIVE),
    "order": partial(PairPicker, way=ADAPTIVE, worth=order_information),
    "difference": partial(PairPicker, way=ADAPTIVE, worth=difference_information),
}
CASES: dict[str, tuple[Callable[[int], World], Callable[[World, int], Voter]]] = {
    "normal, a tenth wrong": (abstract, erring),
    "normal, logistic": (abstract, logistic),
    "normal, 12 images a prompt, a tenth wrong": (partial(abstract, images=12), erring),
    "`emoji-judge`, a tenth wrong": (emoji, erring),
    "`emoji-judge`, logistic": (emoji, logistic),
}


def agreements(
    world: World, vote: Voter, make: Callable[..., PairPicker], seed: int
) -> tuple[list[float], list[float]]:
    """After every vote the share of pairs in order, and how many milliseconds its pick took."""
    picker = make(world.candidates, seed=seed)
    one, other = np.array(world.pairs()).T
    better = world.hidden[one] > world.hidden[other]
    curve, waits = [], []
    for _ in range(VOTES):
        started = time.perf_counter()
        picked = picker.pick("voter")
        assert picked is not None
        first, second = picked
        waits.append(1000 * (time.perf_counter() - started))
        picker.add(Comparison(world.candidates[first], world.candidates[second], vote(first, second), "voter"))
        ratings = picker.posterior.ratings
        curve.append(float(((ratings[one] > ratings[other]) == better).mean()))
    return curve, waits


def votes_needed(curves: np.ndarray, level: float) -> float:
    """The first count at which the mean of curves `(seeds, votes)` reaches a level; infinite where it never does."""
    reached = np.flatnonzero(curves.mean(0) >= level)
    return float(reached[0] + 1) if len(reached) else math.inf


def ratio_of(curves: np.ndarray, at_random: np.ndarray, votes: int) -> float:
    """The votes needed for what random picking has after so many, as a share of those that it needs itself."""
    level = at_random.mean(0)[votes - 1]
    return votes_needed(curves, level) / votes_needed(at_random, level)


def jackknifed(curves: np.ndarray, at_random: np.ndarray, votes: int) -> dict[str, float]:
    """The ratio, with the interval that leaving out a seed at a time gives."""
    ratio, seeds = ratio_of(curves, at_random, votes), len(curves)
    left = [
        ratio_of(np.delete(curves, seed, 0), np.delete(at_random, seed, 0), votes) if seeds > 1 else ratio
        for seed in range(seeds)
    ]
    if not np.isfinite([ratio, *left]).all():
        return Interval(ratio, ratio, ratio).as_dict()
    values = ratio - (seeds - 1) * (np.array(left) - np.mean(left))
    return mean_interval(torch.from_numpy(values)).as_dict()


def measure(case: str, seeds: int) -> dict[str, Any]:
    """All ways of picking for all seeds."""
    make_world, make_voter = CASES[case]
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    waits: list[float] = []
    errors = []
    for seed in range(seeds):
        world = make_world(seed)
        vote = make_voter(world, seed)
        errors.append(np.mean([vote(a, b) != (world.hidden[a] > world.hidden[b]) for a, b in world.pairs()]))
        for way, make in WAYS.items():
            curve, took = agreements(world, vote, make, seed)
            found[way].append(curve)
            waits += took if way == "adaptive" else []
        print(f"{case}, seed {seed}", flush=True)
    curves = {way: np.array(own) for way, own in found.items()}
    levels = [
        {
            "votes": votes,
            "agreement": {way: float(own.mean(0)[votes - 1]) for way, own in curves.items()},
            "ratio": {way: jackknifed(own, curves["random"], votes) for way, own in curves.items() if way != "random"},
        }
        for votes in LEVELS
    ]
    return {
        "case": case,
        "wrong": float(np.mean(errors)),
        "levels": levels,
        "milliseconds": {"median": float(np.median(waits)), "most": float(np.max(waits))},
    }


def ratio_text(ratio: dict[str, float]) -> str:
    """In per cent, with the interval."""
    if math.isinf(ratio["mean"]):
        return "not reached"
    return f"{100 * ratio['mean']:.0f} % ({100 * ratio['low']:.0f} to {100 * ratio['high']:.0f})"


def table(results: list[dict[str, Any]], note: str) -> str:
    """The results as Markdown."""
    lines = [
        "| ratings and voter | votes at random | agreement | adaptive needs | order's bits | difference's bits |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        for level in result["levels"]:
            cells = [ratio_text(level["ratio"][way]) for way in WAYS if way != "random"]
            name = f"{result['case']} ({100 * result['wrong']:.0f} % of pairs)" if level["votes"] == LEVELS[0] else ""
            agreement = 100 * level["agreement"]["random"]
            lines.append(f"| {name} | {level['votes']} | {agreement:.1f} % | {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\n{note}\n"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    results = [measure(case, seeds) for case in CASES]
    about = environment(torch.device("cpu"))
    slowest = max(result["milliseconds"]["most"] for result in results)
    median = max(result["milliseconds"]["median"] for result in results)
    note = (
        f"Votes needed in per cent of random picking's, over {seeds} seeds, with 95 % intervals over seeds by the "
        "jackknife; in parentheses beside the voter the share of pairs that it is wrong on. *Adaptive*: `PairPicker`; "
        "beside it by the bits that a vote says of the order alone, and of the difference (Houlsby et al.). A pick "
        f"takes {median:.1f} ms, the median of the slowest case, and {slowest:.0f} at most. {about['device']}, python "
        f"{about['python']}, torch {about['torch']}."
    )
    text = table(results, note)
    write_text(HERE / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(HERE / "results.md", text)
    print(text)


if __name__ == "__main__":
    main()
