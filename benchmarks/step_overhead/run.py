"""What a training step costs beside the network passes it consists of.

    python benchmarks/step_overhead/run.py [--cases emoji,full,lora] [--device cuda] [--threads 2]
    python benchmarks/step_overhead/run.py --cases four --threads 1 --clock processor

A real training, as `dipp train` runs it, with its metrics and checkpoints, takes turns in one process with the bare
forward and backward passes of a step: the same networks, batch, dtypes, autocast and attention kernels, on tensors that
are there already. Cases are the emoji world with its recommended settings, and a PixArt-alpha network of 96 M
parameters trained whole (`full`) and by adapters on shared weights (`lora`). The ratio is the median over the turns.
Passes are also counted, in a real step, by hooks on the networks. `four` is the emoji world in float32 with four
rewards that are added up, whose bare passes hold one backward pass of the decoder. Writes results.json and results.md;
a case that is not measured keeps the numbers it had.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from benchmarks._shared import hundred_million
from benchmarks._shared.counting import Counter, counted
from benchmarks._shared.measuring import CLOCKS, PLAIN, Spread, Turns, choose, print_results, ran_on, write_results
from benchmarks._shared.passes import Passes
from dipp_toolkit import TrainConfig
from dipp_toolkit.objective.mixing.scale import MEASURED
from dipp_toolkit.training.run import TrainingLoop

HERE = Path(__file__).parent
LIMIT = 1.05
FOUR = {"emoji-preference": 1.0, "emoji-clip": 0.02, "colourfulness": 0.1, "sharpness": 0.1}
FOUR_LIMIT = 1.1
"""Of a step with four rewards, over its passes with one backward pass of the decoder and the updates."""


@dataclass
class Beside:
    """What takes turns with a training's steps.

    Attributes:
        counter: of the passes that the steps make.
        passes: the bare ones.
        prompts: that the rewards have read before the first turn.
        reading: seconds that it took them.
    """

    counter: Counter
    passes: Passes
    prompts: int
    reading: float

    def take(self) -> None:
        """At the beginning of a turn: what the steps before it made, and the passes decode as often."""
        self.counter.take()
        self.passes.decodes = len(self.counter.least.get("decoder", [0]))


def measure(config: TrainConfig, rounds: int, warm: int, block: int, clock: Callable[[], float]) -> dict[str, Any]:
    """One case. The rewards have read every prompt before the first turn; that is timed by itself."""
    held: list[Beside] = []

    def make(loop: TrainingLoop) -> dict[str, Callable[[], None]]:
        loop.step = MEASURED  # later than the updates that each measure every reward
        started, prompts = clock(), list(loop.parts.conditions.prompts)
        for reward in loop.parts.rewards.values():
            if hasattr(reward, "texts"):
                reward.model.to(loop.parts.device)
                reward.texts(prompts)
        reading = clock() - started
        passes, counter = Passes(loop, 1, clock), Counter.of(loop)
        held.append(Beside(counter, passes, len(prompts), reading))
        return {"take": held[0].take, "passes": passes.run, "updates": passes.update, "reset": counter.reset}

    turns = Turns(make, rounds, warm, block, clock=clock, saves=1).run(config)
    (beside,) = held
    passes, updates, steps = turns.seconds("passes"), turns.seconds("updates"), turns.seconds("step")
    both = [pass_ + other for pass_, other in zip(passes, updates, strict=True)]

    def ratio(base: list[float]) -> dict[str, float]:
        return vars(Spread.of([step / duration for step, duration in zip(steps, base, strict=True)]))

    return {
        "step": vars(Spread.of(steps)),
        "passes": vars(Spread.of(passes)),
        "updates": vars(Spread.of(updates)),
        "to_passes": ratio(passes),
        "to_passes_and_updates": ratio(both),
        "checkpoint": statistics.mean(turns.checkpoints),
        "checkpoints": turns.checkpoints,
        "each": beside.passes.one_by_one(warm * block),
        "counted": beside.counter.least,
        "rounds": turns.measured,
        "read": {"prompts": beside.prompts, "seconds": beside.reading},
        "settings": {name: getattr(config, name) for name in ("batch_size", "precision", "mode", "checkpoint_every")},
    }


def config_of(case: str, work: Path, device: torch.device, checkpoint_every: int) -> TrainConfig:
    """The settings of a case."""
    shared = PLAIN | {"device": str(device), "checkpoint_every": checkpoint_every, "out": work / f"run-{case}"}
    if case == "four":
        return TrainConfig(
            generator="emoji-onestep", **shared | {"guidance": 1.5, "precision": "fp32", "rewards": FOUR}
        )
    if case.startswith("emoji"):
        return TrainConfig(generator="emoji-onestep", **shared | {"guidance": 1.0 if case == "emoji-1" else 1.5})
    folder = str(hundred_million.write_pipeline(work / "pipeline"))
    prompts = hundred_million.write_prompts(work / "prompts.txt")
    settings = (
        hundred_million.SETTINGS | shared | {"prompts": str(prompts), "prompt_cache": work / "cache", "mode": case}
    )
    return TrainConfig(generator=folder, reference=folder, **settings)


NAMES = {"emoji": "emoji world", "full": "96 M network, all weights", "lora": "96 M network, adapters"}


def four_lines(result: Mapping[str, Any]) -> list[str]:
    """The step with four rewards, as Markdown."""
    step, passes, updates = (Spread(**result[key]).text() for key in ("step", "passes", "updates"))
    ratio = Spread(**result["to_passes_and_updates"])
    verdict = "met" if ratio.median <= FOUR_LIMIT else "not met"
    return [
        "",
        "## Four rewards",
        "",
        f"Measured on {result['ran_on']} Times of the {result['clock']}, {result['threads']} thread"
        f"{'s' * (result['threads'] > 1)}, {len(result['rounds'])} turns. The emoji world in float32 with "
        f"{', '.join(f'`{name}`' for name in FOUR)}, added up. The bare passes hold one forward and one backward "
        "pass of the decoder; of the real steps one in ten measures each reward, and has four.",
        "",
        "| real step | bare passes | optimisers, clipping, average | step / (passes + these) | limit |",
        "|---|---|---|---|---|",
        f"| {step} | {passes} | {updates} | **{ratio.text('', 1, 3)}** | {FOUR_LIMIT}, {verdict} |",
    ]


def page(results: Mapping[str, Any], about: str, clock: str) -> str:
    """The results as Markdown."""
    four = results.get("four")
    results = {case: result for case, result in results.items() if case != "four"}
    if not results:
        return "\n".join(["# What a step costs beside its network passes", *four_lines(four or {})]) + "\n"
    cases = {case: result for case, result in results.items() if case in NAMES}
    lines = [
        "# What a step costs beside its network passes",
        "",
        f"Measured on {about} The real step and the bare passes took turns in one process.",
        f"Times, of the {clock}, are medians, with quartiles in brackets; ratios are medians over the turns.",
        *step_lines(cases),
        *checkpoint_lines(cases),
    ]
    readings = [
        f"{result['read']['seconds']:.2f} s for {result['read']['prompts']} ({NAMES[case]})"
        for case, result in cases.items()
    ]
    lines += ["", f"Rewards read each prompt once in a run, outside of the steps measured here: {', '.join(readings)}."]
    for case, result in cases.items():
        lines += ["", f"{NAMES[case]}, pass by pass:", "", "| pass | time | share of the step |", "|---|---|---|"]
        whole = result["step"]["median"]
        times = result["each"] | {"optimisers, clipping, average": result["updates"]["median"]}
        times["everything else"] = whole - sum(times.values())
        lines += [f"| {name} | {1e3 * value:.1f} ms | {value / whole:.1%} |" for name, value in times.items()]
    lines += pass_lines(results)
    if four:
        lines += four_lines(four)
    return "\n".join(lines) + "\n"


def step_lines(cases: Mapping[str, Any]) -> list[str]:
    """The table of steps and passes, and whether the limit is met."""
    lines = [
        "",
        "| case | real step | bare passes | step / passes | optimisers, clipping, average | step / (passes + these) |",
        "|---|---|---|---|---|---|",
    ]
    for case, result in cases.items():
        step, passes, updates = (Spread(**result[key]).text() for key in ("step", "passes", "updates"))
        alone, together = (Spread(**result[key]) for key in ("to_passes", "to_passes_and_updates"))
        lines.append(
            f"| {NAMES[case]} | {step} | {passes} | {alone.text('', 1, 3)} | {updates} | {together.text('', 1, 3)} |"
        )
    verdicts = [
        f"{NAMES[case]} {'met' if result['to_passes']['median'] <= LIMIT else 'not met'} against the passes alone, "
        f"{'met' if result['to_passes_and_updates']['median'] <= LIMIT else 'not met'} with the updates"
        for case, result in cases.items()
    ]
    return [*lines, "", f"The limit is {LIMIT}: {', '.join(verdicts)}."]


def checkpoint_lines(cases: Mapping[str, Any]) -> list[str]:
    """What checkpoints add."""
    lines = [
        "",
        "The real step writes its row of metrics; the time of checkpoints is taken apart:",
        "",
        "| case | a checkpoint costs the training | a step, at one every 100 steps | step with it / passes |",
        "|---|---|---|---|",
    ]
    for case, result in cases.items():
        share = result["checkpoint"] / 100
        lines.append(
            f"| {NAMES[case]} | {1e3 * result['checkpoint']:.0f} ms | {1e3 * share:.1f} ms | "
            f"{result['to_passes']['median'] + share / result['passes']['median']:.3f} |"
        )
    return lines


def pass_lines(results: Mapping[str, Any]) -> list[str]:
    """How many forward passes a step makes, and of how many samples."""
    names = list(next(iter(results.values()))["counted"])
    lines = [
        "",
        "Forward passes counted in a real step, and the samples in each. Its prompts have been trained on before; the "
        "reference's text encoder is not in memory.",
        "",
        f"| case | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]
    for case, result in results.items():
        shown = [", ".join(map(str, result["counted"][name])) or "none" for name in names]
        lines.append(f"| {NAMES.get(case, 'emoji world, guidance 1')} | {' | '.join(shown)} |")
    return lines


def main() -> None:
    """Measure every case and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="emoji,full,lora", help="of emoji, full, lora and four")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU's operators")
    parser.add_argument("--rounds", type=int, default=20, help="turns on the emoji world")
    parser.add_argument("--large-rounds", type=int, default=5, help="turns on the 96 M network")
    parser.add_argument("--block", type=int, default=1, help="steps a turn; more than one on a fast device")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    words = parser.parse_args()
    device = choose(words.device, words.threads)
    path = HERE / "results.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results: dict[str, Any] = before.get("cases", {})
    cases = words.cases.split(",")
    about, clock = ran_on(device), words.clock
    if before and cases == ["four"]:  # the other cases' conditions stay as they were
        about, clock = before["ran_on"], before["clock"]
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            small = case in ("emoji", "four")
            rounds = words.rounds if small else words.large_rounds
            config = config_of(case, Path(scratch), device, checkpoint_every=max(4, rounds // 2) * words.block)
            results[case] = measure(config, rounds, 2 if small else 1, words.block, CLOCKS[words.clock])
            if case == "four":
                results[case] |= {"ran_on": ran_on(device), "clock": words.clock, "threads": words.threads}
            if case == "emoji":
                without = config_of("emoji-1", Path(scratch), device, checkpoint_every=10**6)
                results["emoji-1"] = {"counted": counted(without, Path(scratch))}
            numbers = {"ran_on": about, "clock": clock, "cases": results}
            write_results(HERE, numbers, page(results, about, clock))
    print_results(HERE)


if __name__ == "__main__":
    main()
