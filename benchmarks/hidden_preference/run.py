"""A voter with a preference of their own: 300 votes, a reward fitted to them, a training by it, and its outcome.

    python benchmarks/hidden_preference/run.py --seeds 3 --work runs/hidden_preference

The voter prefers the warmer of two images (`taste.py`), which no reward of the toolkit looks at, and errs in one vote
of ten. Votes are given by `dipp vote`'s own session on images of the start generator and of its reference, `dipp reward
fit` makes a reward of them, `dipp train` trains the start by it, and the voter compares new and old on prompts of the
held-out set: a round of `dipp align`. Reported are how often the fitted reward agrees with the preference itself,
without its errors, on prompts that were never voted on; how warm the images became there, and in how many the new one
is the warmer; and whether the images still show what they should, by the judge's naming. Finished parts are not done
again. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.hidden_preference.taste import warmth
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import load_prompts, load_reward
from dipp_toolkit.config import make_config
from dipp_toolkit.evaluation.intervals import mean_interval, paired_interval, share_interval
from dipp_toolkit.experiments.alignment.rounds import Voters, align
from dipp_toolkit.experiments.alignment.settings import AlignSettings
from dipp_toolkit.experiments.bench.entries import BenchEntry
from dipp_toolkit.experiments.bench.run import Silent
from dipp_toolkit.experiments.voting.session import Session
from dipp_toolkit.experiments.voting.simulation import answer_all
from dipp_toolkit.preferences.simulated import SimulatedVoter
from dipp_toolkit.rewards.loading import FunctionReward
from dipp_toolkit.utils.device import environment

HERE = Path(__file__).parent
START, REFERENCE, HELD_OUT = "emoji-onestep", "emoji-reference", "emoji-heldout"
NOISES = (1, 2)
"""Of every held-out prompt."""
NOISE = 0.1


class Simulated(Voters):
    """The voter."""

    def __init__(self, seed: int):
        self.voter = SimulatedVoter(FunctionReward("warmth", warmth), NOISE, seed)

    def ask(self, session: Session, what: str) -> None:
        """Answer all."""
        answer_all(session, self.voter)


class Progress(Silent):
    """Says which part of a round is at work."""

    def stage(self, number: int, what: str) -> None:
        """Print it."""
        print(f"round {number}: {what}", flush=True)


def settings(seed: int, work: Path, arguments: argparse.Namespace) -> AlignSettings:
    """A round of the loop."""
    base = make_config(
        {"generator": START, "seed": seed, "pull": arguments.pull, "precision": "fp32", "eval_count": 32,
         "monitor_every": 0, "diagnose_every": 0}
    )  # fmt: skip
    return AlignSettings(
        base=base,
        out=work / f"seed-{seed}",
        rounds=1,
        votes=arguments.votes,
        prompts=arguments.prompts,
        per_prompt=4,
        beside=[BenchEntry("reference", REFERENCE), BenchEntry("unet", "emoji-unet-onestep")]
        if arguments.beside
        else [],
        fit={"backbone": "emoji-clip"},
        voters=f"warmth, erring in {NOISE:g} of the votes",
        seed=seed,
    )


def drawn(name: str, prompts: Sequence[str]) -> Tensor:
    """Images of held-out prompts: `(noises, prompts, 3, H, W)`."""
    source = BenchEntry("any", name).source(torch.device("cpu"))
    source.prepare(prompts)
    images = [
        torch.cat(
            [
                source.images(prompts[at : at + 32], [seed] * len(prompts[at : at + 32]))
                for at in range(0, len(prompts), 32)
            ]
        )
        for seed in NOISES
    ]
    gc.collect()
    return torch.stack(images)


@torch.no_grad()
def measure(seed: int, work: Path, arguments: argparse.Namespace, before: dict[str, Tensor]) -> dict[str, Any]:
    """Go through the round, and measure what nobody in it could."""
    record = work / f"seed-{seed}.json"
    if record.is_file():
        return dict(json.loads(record.read_text()))
    with torch.enable_grad():
        result = align(settings(seed, work, arguments), Simulated(seed), Progress())
    found, prompts = result.rounds[0], [prompt.text for prompt in load_prompts(HELD_OUT).prompts]
    judge = EmojiJudge()
    start, after = before[START], drawn(found.generator, prompts)
    warm = [torch.stack([warmth(images, prompts) for images in of]).mean(0).double() for of in (start, after)]
    warmer = torch.stack(
        [(warmth(a, prompts) > warmth(b, prompts)).double() for a, b in zip(after, start, strict=True)]
    )
    naming = [
        float(torch.tensor([judge.naming_accuracy(images, prompts) for images in of]).mean()) for of in (start, after)
    ]
    judged = [torch.stack([judge(images, prompts) for images in of]).mean(0).double() for of in (start, after)]
    fitted = load_reward(str(result.folder / "round-1" / "reward"))
    agreed = agreement(fitted, before, prompts)
    out = {
        "votes": found.votes,
        "agreement": agreed,
        "held_out_votes": found.accuracy.as_dict(),
        "warmth": [mean_interval(values).as_dict() for values in warm],
        "change": paired_interval(*warm).as_dict(),
        "warmer": share_interval(warmer.mean(0)).as_dict(),
        "win_rate": found.win_rate.as_dict(),
        "naming": naming,
        "judge": [mean_interval(values).as_dict() for values in judged],
    }
    record.write_text(json.dumps(out, indent=1))
    return out


def agreement(reward: Any, images: dict[str, Tensor], prompts: Sequence[str]) -> dict[str, float]:
    """How often a reward prefers what the voter would without errors, over all pairs of images of a held-out prompt."""
    every = torch.cat(list(images.values()))
    scores = torch.stack([reward(one, prompts) for one in every])
    truth = torch.stack([warmth(one, prompts) for one in every])
    shares = [((scores[a] > scores[b]) == (truth[a] > truth[b])).double() for a in range(len(every)) for b in range(a)]
    return share_interval(torch.stack(shares).mean(0)).as_dict()


def table(results: Sequence[dict[str, Any]], note: str) -> str:
    """The results as Markdown."""
    lines = [
        "| seed | votes | the fitted reward agrees with the preference | red less blue, before | after | the new image "
        "is the warmer | win rate by votes | naming, before | after | judge, before | after |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def share(interval: dict[str, float]) -> str:
        return "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * interval[name] for name in ("mean", "low", "high")))

    for seed, one in enumerate(results):
        warm = [f"{100 * interval['mean']:.1f}" for interval in one["warmth"]]
        naming = [f"{100 * value:.1f} %" for value in one["naming"]]
        judged = [f"{interval['mean']:.2f}" for interval in one["judge"]]
        lines.append(
            f"| {seed} | {one['votes']} | {share(one['agreement'])} | {warm[0]} | {warm[1]} | {share(one['warmer'])} | "
            f"{share(one['win_rate'])} | {naming[0]} | {naming[1]} | {judged[0]} | {judged[1]} |"
        )
    return "\n".join(lines) + f"\n\n{note}\n"


def main() -> None:
    """Go through what has not been done, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--votes", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=75)
    parser.add_argument("--pull", type=float, default=0.3)
    parser.add_argument("--beside", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--work", type=Path, default=Path("runs/hidden_preference"))
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    prompts = [prompt.text for prompt in load_prompts(HELD_OUT).prompts]
    before = {name: drawn(name, prompts) for name in (START, "emoji-unet-onestep")}
    results = [measure(seed, arguments.work, arguments, before) for seed in range(arguments.seeds)]
    machine = environment(torch.device("cpu"))
    note = (
        f"{len(prompts)} held-out prompts, {len(NOISES)} noises each; intervals are over prompts. Red less blue is in "
        f"percent of the range. Pull {arguments.pull:g}. Measured on {machine['device']}."
    )
    text = table(results, note)
    print(text)
    if arguments.write:
        (HERE / "results.json").write_text(json.dumps({"environment": machine, "results": results}, indent=1) + "\n")
        (HERE / "results.md").write_text(text)


if __name__ == "__main__":
    main()
