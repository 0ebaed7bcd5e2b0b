"""The toolkit against other implementations of the same step: speed on the emoji world, memory at 96 M parameters.

    python benchmarks/naive_baseline/run.py [--device cuda] [--threads 2]
    python benchmarks/naive_baseline/run.py --only dmd2 --threads 1 --clock processor

`baseline.py` says what is naive about it. Speed: a real training and the naive one take turns in one process, on the
same networks, batch and autocast. The bounds say what a comparison can show at all: one from the floating-point
operations of both, as torch counts them, and one from the time that our network passes take by themselves. Memory: each
in a process of its own, stepped a few times. `dmd2.py` is the same step in the order of DMD2's loop, as fast as it can
be made: it takes turns with trainings in float32 without rewards and with two, with fresh samples for the assistant and
with `reuse_samples`, eager and with compiled blocks. Writes results.json and results.md; what is not measured keeps the
numbers it had.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._shared import hundred_million
from benchmarks._shared.counting import counted
from benchmarks._shared.measuring import CLOCKS, Spread, Turns, choose, print_results, ran_on, write_results
from benchmarks._shared.passes import Passes
from benchmarks.naive_baseline.baseline import NaiveTrainer
from benchmarks.naive_baseline.dmd2 import DMD2Trainer
from benchmarks.naive_baseline.rewards import PlainReward
from benchmarks.step_overhead.run import config_of
from dipp_emoji import WEIGHTS
from dipp_toolkit import TrainConfig, load_prompts, load_reward
from dipp_toolkit.objective.mixing.scale import MEASURED
from dipp_toolkit.protocols import texts
from dipp_toolkit.training.run import TrainingLoop
from dipp_toolkit.utils.precision import PRECISIONS

HERE = Path(__file__).parent
MIB = 2**20
LORA = {"mode": "lora", "frozen_precision": "bf16"}
THRIFTY = {"recompute_generator": True, "gradient_checkpointing": True, "decode_checkpointing": True, "reward_batch": 1}
MODES: dict[str, dict[str, Any]] = {
    "full": {"mode": "full"},
    "lora": {"mode": "lora"},
    "lora-bf16": LORA,
    "lora-thrifty": LORA | THRIFTY,
}
WORDS = {
    "naive": "naive: three copies and an average, float32",
    "full": "the toolkit, `mode=full`",
    "lora": "the toolkit, `mode=lora`, frozen weights in float32",
    "lora-bf16": "the toolkit, `mode=lora`, `frozen_precision=bf16`, as the README trains PixArt",
    "lora-thrifty": "the same with " + ", ".join(f"`{key}={value}`" for key, value in THRIFTY.items()),
}
REWARDS: dict[str, dict[str, Any]] = {"no rewards": {"rewards": {}}, "two rewards": {}}
"""Settings of the trainings beside DMD2's loop: the emoji world's own rewards are two."""
COMPILED: dict[str, Any] = {"compile": "on"}
SAMPLES: dict[str, dict[str, Any]] = {
    "fresh": {}, "reused": {"reuse_samples": True},
    "fresh, compiled": COMPILED, "reused, compiled": COMPILED | {"reuse_samples": True},
}  # fmt: skip
AIMS = {
    ("no rewards", "fresh"): 1.05, ("no rewards", "reused"): 0.95,
    ("two rewards", "fresh"): 1.05, ("two rewards", "reused"): 0.90,
}  # fmt: skip
WARM = 5
"""Turns of a compiled training before those that count: blocks are compiled in the first ones."""
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(2**18), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
"""Tells glibc to give freed blocks back to the system, so that resident memory is what is in use."""


def naive_on(config: TrainConfig, generator: Path, reference: Path, fake: Path | None, readout: float) -> NaiveTrainer:
    """The naive training with a configuration's settings."""
    rewards = [(load_reward(name), config.alpha_rew * weight) for name, weight in config.rewards.items()]
    for reward, _ in rewards:
        reward.model.to(config.device)  # type: ignore[attr-defined]
    return NaiveTrainer(
        generator, reference, [(PlainReward(reward), weight) for reward, weight in rewards], fake=fake, readout=readout,
        guidance=config.guidance, learning_rate=config.learning_rate, fake_learning_rate=config.assistant_learning_rate,
        precision=PRECISIONS[config.precision], device=config.device,
    )  # fmt: skip


def batches(config: TrainConfig) -> Callable[[], list[list[str]]]:
    """Gives the prompts of a step: a batch for each update."""
    prompts, position = texts(load_prompts(config.prompts or "")), 0

    def take() -> list[list[str]]:
        nonlocal position
        position += 2 * config.batch_size
        chosen = [prompts[index % len(prompts)] for index in range(position, position + 2 * config.batch_size)]
        return [chosen[: config.batch_size], chosen[config.batch_size :]]

    return take


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations by torch's counter; attention by matrix products, so that it is counted as well."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def speed(config: TrainConfig, rounds: int, block: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds a step of both, and operations."""
    decodes = len(counted(config, (config.out or HERE).parent)["decoder"])
    operations = {"ours": flops_of_a_step(config)}

    def make(loop: TrainingLoop) -> dict[str, Callable[[], Any]]:
        loop.step = MEASURED  # later than the updates that each measure every reward
        settings = loop.config
        naive = naive_on(
            settings, WEIGHTS / "onestep", WEIGHTS / "reference", WEIGHTS / "onestep" / "assistant", readout=1.0
        )
        take = batches(settings)
        operations["naive"] = flops(lambda: naive.step(take()))
        passes = Passes(loop, decodes, clock)

        def step(attention: Any) -> None:
            naive.graph_attention = attention
            naive.step(take())

        return {
            "naive": lambda: step(nullcontext),
            "same_kernels": lambda: step(loop.parts.engine.attention),
            "passes": passes.run,
        }

    turns = Turns(make, rounds, block=block, clock=clock).run(config)

    def ratio(name: str, base: str = "step") -> dict[str, float]:
        pairs = zip(turns.seconds(name), turns.seconds(base), strict=True)
        return vars(Spread.of([step / other for step, other in pairs]))

    return {
        "seconds": {name: vars(Spread.of(turns.seconds(name))) for name in ("step", "naive", "same_kernels")},
        "ratios": {name: ratio(name) for name in ("naive", "same_kernels")},
        "operations": operations,
        "operation_bound": operations["naive"] / operations["ours"],
        "pass_bounds": {name: ratio(name, "passes")["median"] for name in ("naive", "same_kernels")},
        "rounds": turns.measured,
    }


def dmd2(config: TrainConfig, rounds: int, block: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds a step of trainings and of DMD2's loop, and their ratios, by rewards and samples."""
    return {
        rewards: {
            samples: beside_dmd2(
                _changed(config, REWARDS[rewards] | SAMPLES[samples], f"{number}-{samples}"), rounds, block, clock
            )
            for samples in SAMPLES
        }
        for number, rewards in enumerate(REWARDS)
    }


def _changed(config: TrainConfig, update: Mapping[str, Any], name: str) -> TrainConfig:
    given = {"precision": "fp32", "out": Path(f"{config.out}-{name}")}
    return TrainConfig(**(config.model_dump(exclude_unset=True) | given | update))


def beside_dmd2(config: TrainConfig, rounds: int, block: int, clock: Callable[[], float]) -> dict[str, Any]:
    """One training and DMD2's loop on the same networks, prompts, rewards and settings, turn by turn."""

    def make(loop: TrainingLoop) -> dict[str, Callable[[], Any]]:
        loop.step = MEASURED  # later than the updates that each measure every reward
        settings, prompts = loop.config, list(loop.parts.conditions.prompts)
        rewards = [(load_reward(name), settings.alpha_rew * weight) for name, weight in settings.rewards.items()]
        for reward in [*loop.parts.rewards.values(), *(reward for reward, _ in rewards)]:
            reward.model.to(loop.parts.device)  # type: ignore[attr-defined]
            reward.texts(prompts)  # type: ignore[attr-defined] -- every prompt is read before the first turn
        other = DMD2Trainer(
            WEIGHTS / "onestep", WEIGHTS / "reference", rewards, prompts, fake=WEIGHTS / "onestep" / "assistant",
            guidance=settings.guidance, learning_rate=settings.learning_rate,
            fake_learning_rate=settings.assistant_learning_rate, precision=PRECISIONS[settings.precision],
            device=settings.device, ema=settings.ema, clip=settings.max_grad_norm,
        )  # fmt: skip
        take = batches(settings)
        return {"dmd2": lambda: other.step(take())}

    warm = WARM if config.compile == "on" else 2
    turns = Turns(make, rounds, warm, block=block, clock=clock).run(config)
    ours, theirs = turns.seconds("step"), turns.seconds("dmd2")
    ratios = [step / other for step, other in zip(ours, theirs, strict=True)]
    return {
        "step": vars(Spread.of(ours)), "dmd2": vars(Spread.of(theirs)), "ratio": vars(Spread.of(ratios)),
        "rounds": turns.measured,
    }  # fmt: skip


def flops_of_a_step(config: TrainConfig) -> int:
    """Operations of the training's first step."""
    counts: list[int] = []
    counter = FlopCounterMode(display=False)

    def make(loop: TrainingLoop) -> dict[str, Callable[[], None]]:
        def work() -> None:
            counts.append(counter.get_total_flops())

        return {"read": work}

    with sdpa_kernel(SDPBackend.MATH), counter:
        Turns(make, rounds=1, warm=1).run(config.model_copy(update={"out": Path(f"{config.out}-operations")}))
    return counts[1] - counts[0]


def memory_of(which: str, steps: int, work: Path, device: torch.device) -> dict[str, float]:
    """Peak memory of a few steps at 96 M parameters in this process, bytes, and what was there before."""
    config = config_of("lora", work, device, checkpoint_every=10**6)
    torch.randn(64, 64, device=device).matmul(torch.randn(64, 64, device=device))
    import peft  # noqa: F401 -- imports are no part of what is measured

    before = peak(device, fresh=True)
    if which == "naive":
        folder = Path(config.reference or "")
        naive, take = naive_on(config, folder, folder, None, config.readout or 1.0), batches(config)
        for _ in range(steps):
            naive.step(take())
    else:
        update = MODES[which] | {"out": work / f"memory-{which}"}
        Turns(lambda loop: {}, rounds=steps, warm=0).run(config.model_copy(update=update))
    return {"before": before, "peak": peak(device)}


def peak(device: torch.device, fresh: bool = False) -> float:
    """The most memory so far, in bytes: allocated on a GPU, else resident. A fresh one counts from now on."""
    if device.type == "cuda":
        if fresh:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(status["VmHWM"].split()[0]) * 1024


def memory(steps: int, work: Path, words: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of each, every one in a process of its own."""
    results = {}
    for which in ("naive", *MODES):
        command = [sys.executable, __file__, "--one", which, "--work", str(work), "--device", words.device]
        command += ["--threads", str(words.threads), "--memory-steps", str(steps)]
        environment = os.environ | RETURNED | {"DIPP_CACHE": str(work / "cache")}
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            sys.stderr.write(f"{which} failed; its row is left out.\n")
            continue
        results[which] = json.loads(done.stdout.splitlines()[-1])
        results[which]["above"] = results[which]["peak"] - results[which]["before"]
    return results


def speed_lines(speeds: Mapping[str, Any]) -> list[str]:
    """The step beside the naive one, as Markdown."""
    seconds = {name: Spread(**one).text("s", 1, 3) for name, one in speeds["seconds"].items()}
    ratios = {name: Spread(**one).text("", 1, 2) for name, one in speeds["ratios"].items()}
    count, bounds = speeds["operations"], speeds["pass_bounds"]
    return [
        "",
        f"Emoji world with its recommended settings; times of the {speeds['clock']}, medians of "
        f"{len(speeds['rounds'])} turns in one process, with quartiles in brackets.",
        "",
        "| | a step | naive / the toolkit | operations of a step |",
        "|---|---|---|---|",
        f"| the toolkit | {seconds['step']} | | {count['ours'] / 1e9:.1f} GFLOP |",
        f"| naive | {seconds['naive']} | **{ratios['naive']}** | {count['naive'] / 1e9:.1f} GFLOP |",
        f"| naive, with the toolkit's choice of attention kernels | {seconds['same_kernels']} | "
        f"{ratios['same_kernels']} | the same |",
        "",
        f"What the ratio could be: {speeds['operation_bound']:.2f} if time were proportional to operations; "
        f"{bounds['naive']:.2f} ({bounds['same_kernels']:.2f} with the same kernels) if the toolkit's step took "
        "the time of its bare network passes and no more.",
    ]


def memory_lines(memories: Mapping[str, Any]) -> list[str]:
    """Peak memory beside the naive one's, as Markdown."""
    peaks = memories["peaks"]
    naive, on_gpu = peaks["naive"]["above"], memories["device"].startswith("cuda")
    kind = "allocated on the GPU" if on_gpu else "resident memory (VmHWM) above the imports'"
    lines = [
        "",
        f"Peak memory at 96 M parameters, batch {hundred_million.BATCH}, after a few steps in a fresh process: "
        f"{kind}. On a CPU, glibc gives freed blocks back (`MALLOC_MMAP_THRESHOLD_`). No checkpoint is written.",
        "",
        "| | peak | share of naive |",
        "|---|---|---|",
    ]
    lines += [
        f"| {WORDS[which]} | {one['above'] / MIB:.0f} MiB | {one['above'] / naive:.2f} |"
        for which, one in peaks.items()
    ]
    verdicts = []
    for which in ("lora", "lora-bf16"):
        share = peaks[which]["above"] / naive
        verdicts.append(f"{'met' if share <= 0.5 else 'not met'} by {WORDS[which]} ({share:.2f})")
    return [*lines, "", f"At most half in LoRA-shared mode: {'; '.join(verdicts)}."]


def dmd2_lines(result: Mapping[str, Any]) -> list[str]:
    """The step beside DMD2's loop, as Markdown."""
    lines = [
        "",
        "## Against DMD2's loop",
        "",
        f"Measured on {result['ran_on']}",
        "",
        f"Emoji world in float32, {result['threads']} thread{'s' * (result['threads'] > 1)}; times of the "
        f"{result['clock']}, medians of {result['turns']} turns in one process, with quartiles in brackets. Below 1 "
        "the toolkit is faster. DMD2's loop makes no pass of the generator for the fake score alone; with "
        "`reuse_samples` the toolkit makes none either. Compiled are the toolkit's blocks (`compile=on`), after the "
        "steps in which they are compiled; DMD2's loop is the same in every row.",
        "",
        "| rewards | the assistant's samples | the toolkit | DMD2's loop | the toolkit / DMD2's loop | aim |",
        "|---|---|---|---|---|---|",
    ]
    for rewards, by_samples in result["cases"].items():
        for samples, case in by_samples.items():
            ours, theirs = (Spread(**case[name]).text("s", 1, 3) for name in ("step", "dmd2"))
            ratio, aim = Spread(**case["ratio"]), AIMS[rewards, samples.split(",")[0]]
            verdict = "met" if ratio.median <= aim else "not met"
            lines.append(
                f"| {rewards} | {samples} | {ours} | {theirs} | **{ratio.text('', 1, 2)}** | {aim:.2f}, {verdict} |"
            )
    return lines


def page(numbers: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    lines, about = ["# Against a naive implementation"], ""
    for section, shown in (("speed", speed_lines), ("memory", memory_lines)):
        result = numbers.get(section)
        if not result:
            continue
        if result["ran_on"] != about:
            about = result["ran_on"]
            lines += ["", f"Measured on {about}"]
        lines += shown(result)
    if numbers.get("dmd2"):
        lines += dmd2_lines(numbers["dmd2"])
    return "\n".join(lines) + "\n"


def recorded() -> dict[str, Any]:
    """What was measured before, by section."""
    path = HERE / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main() -> None:
    """Measure what was asked for and write it beside what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU's operators")
    parser.add_argument("--rounds", type=int, default=None, help="turns on the emoji world; 20, and 12 beside dmd2")
    parser.add_argument("--block", type=int, default=1, help="steps a turn; more than one on a fast device")
    parser.add_argument("--memory-steps", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--only", choices=["speed", "memory", "dmd2"], default=None)
    parser.add_argument("--work", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    words = parser.parse_args()
    device = choose(words.device, words.threads)
    if words.one:
        sys.stdout.write(json.dumps(memory_of(words.one, words.memory_steps, words.work, device)) + "\n")
        return
    numbers, clock = recorded(), CLOCKS[words.clock]
    conditions = {"ran_on": ran_on(device), "clock": words.clock, "threads": words.threads}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if words.only in (None, "speed"):
            config = config_of("emoji", work, device, checkpoint_every=10**6)
            numbers["speed"] = conditions | speed(config, words.rounds or 20, words.block, clock)
        if words.only in (None, "memory"):
            config_of("lora", work, device, checkpoint_every=10**6)
            peaks = memory(words.memory_steps, work, words)
            numbers["memory"] = conditions | {"device": words.device, "peaks": peaks}
        if words.only in (None, "dmd2"):
            config = config_of("emoji", work, device, checkpoint_every=10**6)
            rounds = words.rounds or 12
            cases = dmd2(config, rounds, words.block, clock)
            numbers["dmd2"] = conditions | {"turns": rounds, "cases": cases}
    write_results(HERE, numbers, page(numbers))
    print_results(HERE)


if __name__ == "__main__":
    main()
