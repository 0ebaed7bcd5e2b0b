"""The toolkit against a naive implementation of the same step: speed on the emoji world, memory at 96 M parameters.

    python benchmarks/naive_baseline/run.py [--device cuda] [--threads 2]

`baseline.py` says what is naive about it. Speed: a real training and the naive one take turns in one process, on the
same networks, batch and autocast. The bounds say what a comparison can show at all: one from the floating-point
operations of both, as torch counts them, and one from the time that our network passes take by themselves. Memory: each
in a process of its own, stepped a few times. Writes results.json and results.md.
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
from benchmarks.naive_baseline.rewards import PlainReward
from benchmarks.step_overhead.run import config_of
from dipp_emoji import WEIGHTS
from dipp_toolkit import TrainConfig, load_prompts, load_reward
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


def page(speeds: Mapping[str, Any] | None, memories: Mapping[str, Any] | None, about: str, words: Any) -> str:
    """The results as Markdown."""
    lines = ["# Against a naive implementation", "", f"Measured on {about}"]
    if speeds:
        seconds = {name: Spread(**one).text("s", 1, 3) for name, one in speeds["seconds"].items()}
        ratios = {name: Spread(**one).text("", 1, 2) for name, one in speeds["ratios"].items()}
        count, bounds = speeds["operations"], speeds["pass_bounds"]
        lines += [
            "",
            f"Emoji world with its recommended settings; times of the {words.clock}, medians of "
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
    if memories:
        naive = memories["naive"]["above"]
        kind = (
            "allocated on the GPU" if words.device.startswith("cuda") else "resident memory (VmHWM) above the imports'"
        )
        lines += [
            "",
            f"Peak memory at 96 M parameters, batch {hundred_million.BATCH}, after a few steps in a fresh process: "
            f"{kind}. On a CPU, glibc gives freed blocks back (`MALLOC_MMAP_THRESHOLD_`). No checkpoint is written.",
            "",
            "| | peak | share of naive |",
            "|---|---|---|",
        ]
        for which, memory in memories.items():
            lines.append(f"| {WORDS[which]} | {memory['above'] / MIB:.0f} MiB | {memory['above'] / naive:.2f} |")
        verdicts = []
        for which in ("lora", "lora-bf16"):
            share = memories[which]["above"] / naive
            verdicts.append(f"{'met' if share <= 0.5 else 'not met'} by {WORDS[which]} ({share:.2f})")
        lines += ["", f"At most half in LoRA-shared mode: {'; '.join(verdicts)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure both and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU's operators")
    parser.add_argument("--rounds", type=int, default=20, help="turns on the emoji world")
    parser.add_argument("--block", type=int, default=1, help="steps a turn; more than one on a fast device")
    parser.add_argument("--memory-steps", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--only", choices=["speed", "memory"], default=None)
    parser.add_argument("--work", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    words = parser.parse_args()
    device = choose(words.device, words.threads)
    if words.one:
        sys.stdout.write(json.dumps(memory_of(words.one, words.memory_steps, words.work, device)) + "\n")
        return
    speeds = memories = None
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if words.only != "memory":
            config = config_of("emoji", work, device, checkpoint_every=10**6)
            speeds = speed(config, words.rounds, words.block, CLOCKS[words.clock])
        if words.only != "speed":
            config_of("lora", work, device, checkpoint_every=10**6)
            memories = memory(words.memory_steps, work, words)
    about = ran_on(device)
    numbers = {"ran_on": about, "clock": words.clock, "speed": speeds, "memory": memories}
    write_results(HERE, numbers, page(speeds, memories, about, words))
    print_results(HERE)


if __name__ == "__main__":
    main()
