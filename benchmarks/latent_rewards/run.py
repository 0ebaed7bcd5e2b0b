"""A reward learned on latents against the reward itself, on the emoji world: the judge, and processor time in rewards.

    python benchmarks/latent_rewards/run.py --seeds 7 8 9 --work runs/latent-rewards

Copies of `emoji-onestep` are aligned with `emoji-preference` and `emoji-clip` as recommended, once with the rewards
evaluated on every sample, and with `latent=true` for both: one sample in three or four is scored, the last time with a
rank correlation required that noise hardly falls below. Nothing else differs but `noises_per_prompt`, which is 2 there.
`emoji-judge` is trained on by neither and judges on held-out prompts. Time in rewards is all processor time of them,
one thread: decoding, scores, the way back (one for both rewards together, where each is evaluated and neither has to be
measured), and what the stand-in learns and lends. Two runs at a time. Finished runs are not run again. Writes
results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import wraps
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.measuring import ran_on
from dipp_toolkit import train
from dipp_toolkit.config import make_config
from dipp_toolkit.objective import evaluate
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.utils.jsonl import whole_rows

HERE = Path(__file__).parent
REWARDS = ("emoji-preference", "emoji-clip")
LATENT = {"reward_options": {name: {"latent": True} for name in REWARDS}}
METHODS: dict[str, dict[str, Any]] = {
    "true": {},
    "latent-3": LATENT | {"latent_every": 3},
    "latent-4": LATENT | {"latent_every": 4},
    "latent-4r": LATENT | {"latent_every": 4, "latent_rank": -0.2},
}
JOINT = "differentiate_together"
"""What evaluates several rewards through one way back."""
MOMENTS = 4
"""Parts of the run that rank correlation and cosine are reported at the end of."""


def timed(method: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The method, its processor seconds added to the only number of `spent`."""

    @wraps(method)
    def call(*words: Any) -> Any:
        started = time.process_time()
        try:
            return method(*words)
        finally:
            spent[0] += time.process_time() - started

    return call


def run(method: str, seed: int, steps: int | None, work: Path) -> dict[str, Any]:
    """Train one, or take what an earlier call has trained."""
    torch.set_num_threads(1)
    out = work / f"{method}-{seed}"
    record = work / f"{method}-{seed}.json"
    if record.is_file():
        return dict(json.loads(record.read_text()))
    spent = [0.0]
    for name in ("__call__", "commit"):
        setattr(RewardTerm, name, timed(getattr(RewardTerm, name), spent))
    setattr(evaluate, JOINT, timed(getattr(evaluate, JOINT), spent))
    settings = {"generator": "emoji-onestep", "seed": seed, "out": out, "monitor_every": 0, "diagnose_every": 0}
    settings |= {} if steps is None else {"steps": steps}
    summary = train(make_config(settings | METHODS[method])).summary
    rows = whole_rows(out / "metrics.jsonl")
    result = {"method": method, "seed": seed, "judge": summary["judge"], "seconds": spent[0], "steps": len(rows)}
    for name in REWARDS if method != "true" else ():
        ends = [len(rows) * part // MOMENTS - 1 for part in range(1, MOMENTS + 1)]
        result[name] = {
            "used": statistics.mean(row[f"latent_used/reward/{name}"] for row in rows),
            "rank": [rows[end][f"latent_rank/reward/{name}"] for end in ends],
            "cosine": [rows[end][f"latent_cosine/reward/{name}"] for end in ends],
        }
    record.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def interval(judge: dict[str, float]) -> str:
    """A mean with its interval."""
    return f"{judge['mean']:.2f} [{judge['low']:.2f}, {judge['high']:.2f}]"


def every(result: dict[str, Any]) -> str:
    """Of how many samples one was scored, and the rank correlation that trust required where it is not the default."""
    settings = METHODS[result["method"]]
    rank = f", latent.rank={settings['latent_rank']}" if "latent_rank" in settings else ""
    return f"{settings['latent_every']}{rank}"


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    true = {result["seed"]: result for result in results if result["method"] == "true"}
    lines = [
        "| seed | scored, one sample in | judge, before | judge, after: true rewards | latent "
        "| latent within the interval of true | processor seconds in rewards: true | latent | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    latents = [result for result in results if result["method"] != "true"]
    for latent in latents:
        plain = true[latent["seed"]]
        after, lent = plain["judge"]["after"], latent["judge"]["after"]
        within = "yes" if after["low"] <= lent["mean"] <= after["high"] else "no"
        lines.append(
            f"| {latent['seed']} | {every(latent)} | {plain['judge']['before']['mean']:.2f} | {interval(after)} | "
            f"{interval(lent)} | {within} | {plain['seconds']:.1f} | {latent['seconds']:.1f} | "
            f"{latent['seconds'] / plain['seconds']:.2f} |"
        )
    lines += [
        "",
        "| seed | scored, one sample in | reward | share of samples not scored | rank correlation | cosine |",
        "|---|---|---|---|---|---|",
    ]
    for latent in latents:
        for name in REWARDS:
            own = latent[name]
            rank, cosine = (", ".join(f"{value:.2f}" for value in own[key]) for key in ("rank", "cosine"))
            lines.append(f"| {latent['seed']} | {every(latent)} | {name} | {own['used']:.2f} | {rank} | {cosine} |")
    lines += [
        "",
        f"{results[0]['steps']} steps of 32 samples; rank correlation and cosine, unseen, at the end of each quarter "
        f"of the run. {ran_on(torch.device('cpu'))}",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what has not been, two at a time, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--steps", type=int, help="generator updates; the recommended number by default")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--work", type=Path, default=Path("runs/latent-rewards"))
    words = parser.parse_args()
    torch.set_num_threads(1)
    words.work.mkdir(parents=True, exist_ok=True)
    # One run a process: the clock is put around the terms of a whole process.
    with ProcessPoolExecutor(words.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        tasks = [pool.submit(run, method, seed, words.steps, words.work) for seed in words.seeds for method in METHODS]
        results = [task.result() for task in tasks]
    text = table(results)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
