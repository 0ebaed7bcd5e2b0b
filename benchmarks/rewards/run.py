"""What each registered reward costs, and how far its scores lie apart.

    python benchmarks/rewards/run.py
    python benchmarks/rewards/run.py --rewards mine      # measures this one, and keeps what is recorded of the others

A reward with a blueprint is its published architecture with random weights, without reading prompts, whose features are
kept; one that needs no weights from elsewhere is the reward itself. Others are left out, with the reason. Images are of
512 pixels a side, and of 64 for the emoji world's rewards. Operations and memory are counted by the planner's dry run,
seconds are those of one thread of a CPU, processor time, so that other work on the machine counts little. What takes
more than --seconds is not repeated, and its gradient is left out where it would.

How far scores lie apart is measured on pictures of `emoji-onestep` for held-out prompts, for rewards that need no
weights from elsewhere: with `s_w^2` the mean variance within a prompt over n noises, the deviation between prompts is
`sqrt(var(prompt means) - s_w^2 / n)`. Writes results.json, results.md and spread.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor, nn

from benchmarks._shared.measuring import ran_on
from dipp_toolkit import Reward, load_generator, load_prompts, load_reference, load_reward
from dipp_toolkit.errors import DippError
from dipp_toolkit.models.blueprints import RewardBlueprint, find_blueprint, parameter_count
from dipp_toolkit.models.files.folders import quiet_loading
from dipp_toolkit.models.sampling import generate_images
from dipp_toolkit.planning.costs import score_costs
from dipp_toolkit.planning.dry_run import cost_of
from dipp_toolkit.protocols import texts
from dipp_toolkit.registry import Entry, get_registry
from dipp_toolkit.rewards.groups import samples_per_prompt

HERE = Path(__file__).parent
WORLD, SMALL, SIDE = "emoji", 64, 512
"""The plugin whose rewards see small images, and the sides of images."""
CALLS = 5
PROMPT = "a red cat"


def timed(work: Callable[[], Any], most: float) -> tuple[float, float]:
    """Median processor seconds of some calls after the first; of the first where a second one takes too long.

    Returns:
        The median, and what all calls took.
    """
    seconds: list[float] = []
    while not seconds or (len(seconds) <= CALLS and sum(seconds) + max(seconds) <= most):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds[1:] or seconds), sum(seconds)


def own_weights(entry: Entry) -> bool:
    """Whether a reward needs no weights from elsewhere."""
    return entry.origin is None or entry.plugin == WORLD


def costs(entry: Entry, most: float) -> dict[str, Any]:
    """What a reward costs; a reason instead where it cannot be had here."""
    side = SMALL if entry.plugin == WORLD else SIDE
    row: dict[str, Any] = {"side": side, "machine": ran_on(torch.device("cpu"))}
    if entry.name in get_registry().entries["blueprint"]:
        blueprint = find_blueprint(entry.name)
        assert isinstance(blueprint, RewardBlueprint)
        parameters, cost = score_costs(entry.name, (1, 3, side, side), torch.float32, False)
        row |= {"parameters": parameters, "flops": cost.flops, "memory": cost.peak, "weights": "random"}
        with quiet_loading():
            network = blueprint.build().float().eval().requires_grad_(False)
        return row | speeds(network, side, True, most)
    if not own_weights(entry):
        return row | {"reason": "its architecture has no blueprint, and its weights are not here"}
    try:
        reward = load_reward(entry.name)
    except DippError as error:
        return row | {"reason": str(error)}
    if samples_per_prompt(reward) > 1:
        return row | {"reason": "it compares images of one prompt with each other"}
    score = scored(reward)
    row |= {"parameters": sum(map(parameter_count, networks_of(reward))), "weights": "own"}
    if reward.differentiable:
        pixels = torch.rand(1, 3, side, side, requires_grad=True)
        cost, _ = cost_of(lambda: torch.autograd.grad(score(pixels).sum(), pixels))
        row |= {"flops": cost.flops, "memory": cost.peak}
    return row | speeds(score, side, bool(reward.differentiable), most)


def scored(reward: Reward) -> Callable[[Tensor], Tensor]:
    """A reward as a function of images alone."""
    return lambda images: reward(images, [PROMPT] * len(images))


def networks_of(reward: Reward) -> list[nn.Module]:
    """The networks that a reward holds."""
    return [value for value in vars(reward).values() if isinstance(value, nn.Module)]


def speeds(score: Callable[[Tensor], Tensor], side: int, gradient: bool, most: float) -> dict[str, float]:
    """Processor seconds of an image's score, and of the score with its gradient."""
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def without() -> None:
        with torch.no_grad():
            score(images)

    def both() -> None:
        pixels = images.clone().requires_grad_(True)
        torch.autograd.grad(score(pixels).sum(), pixels)

    seconds, taken = timed(without, most / 2)
    if not gradient or 3 * seconds > most - taken:
        return {"score": seconds}
    return {"score": seconds, "with_gradient": timed(both, most - taken)[0]}


def emoji_pictures(count: int, noises: int) -> tuple[Tensor, list[str]]:
    """Pictures of the one-step generator, `(prompts, noises, 3, 64, 64)`, and their prompts."""
    generator, reference = load_generator("emoji-onestep"), load_reference("emoji-reference")
    every = list(texts(load_prompts("emoji-heldout")))
    prompts = every[:: len(every) // count][:count]
    condition = reference.encode(prompts)
    seeds = range(noises)
    with torch.no_grad():
        return torch.stack([generate_images(generator, reference, condition, seed) for seed in seeds], 1), prompts


def spread(reward: Reward, pictures: Tensor, prompts: Sequence[str]) -> dict[str, float]:
    """Mean score, and its deviations within and between prompts."""
    with torch.no_grad():
        scores = torch.stack([reward(column, prompts) for column in pictures.unbind(1)], 1).double()
    within = scores.var(1).mean().item()
    between = scores.mean(1).var().item() - within / scores.shape[1]
    return {
        "prompts": len(prompts), "noises": scores.shape[1], "mean": scores.mean().item(),
        "within": math.sqrt(within), "between": math.sqrt(max(between, 0)),
    }  # fmt: skip


def spreads(entries: Sequence[Entry], count: int, noises: int) -> dict[str, dict[str, float]]:
    """Of all rewards that need no weights from elsewhere and can be loaded here."""
    pictures, prompts = emoji_pictures(count, noises)
    rows = {}
    for entry in filter(own_weights, entries):
        try:
            reward = load_reward(entry.name)
        except DippError:
            continue
        if samples_per_prompt(reward) > 1:
            continue
        rows[entry.name] = spread(reward, pictures, prompts)
    return rows


def cost_page(results: Mapping[str, Any]) -> str:
    """The costs as Markdown."""
    lines = [
        "| reward | parameters | weights in fp32, bf16 | image | operations, score and gradient | memory beside the "
        "weights | images a second, score | score and gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    left_out = []
    for name, row in results["costs"].items():
        if "reason" in row:
            left_out.append(name)
            continue
        count = row["parameters"]
        cells = [
            f"`{name}`",
            f"{short(count / 1e6)} M" if count else "none",
            f"{size(4 * count)}, {size(2 * count)}" if count else "none",
            f"{row['side']} x {row['side']}",
            f"{short(row['flops'] / 1e9)} G" if row.get("flops") else "not counted",
            size(row["memory"]) if "memory" in row else "not counted",
            a_second(row["score"]),
            a_second(row["with_gradient"]) if "with_gradient" in row else "not measured" if "flops" in row else "none",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        "Batches of one image in float32; a second of processor time, one thread, other work on the machine. Published "
        "architectures have random weights here."
    )
    machines: dict[str, list[str]] = {}
    for name, row in results["costs"].items():
        machines.setdefault(row["machine"], []).append(f"`{name}`")
    for machine, names in machines.items():
        note += f" {machine}" if len(machines) == 1 else f" {', '.join(names)}: {machine}"
    if left_out:
        names = [f"`{name}`" for name in left_out]
        note += f"\n\nNot measured: {', '.join(names)}. results.json has the reason of each."
    return "\n".join(lines) + f"\n\n{note}\n"


def spread_page(results: Mapping[str, Any]) -> str:
    """The spreads as Markdown."""
    lines = [
        "| reward | prompts, noises | mean | deviation between prompts | within a prompt |",
        "|---|---|---|---|---|",
    ]
    for name, row in results["spreads"].items():
        drawn, deviations = f"{row['prompts']}, {row['noises']}", f"{row['between']:.2g} | {row['within']:.2g}"
        lines.append(f"| `{name}` | {drawn} | {row['mean']:.3g} | {deviations} |")
    return "\n".join(lines) + "\n\nPictures of `emoji-onestep` for held-out prompts.\n"


def short(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def size(number: float) -> str:
    """Bytes as MiB or GiB."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.3g} MiB"


def a_second(seconds: float) -> str:
    """How many a second."""
    return f"{1 / seconds:.2g}" if seconds > 0.01 else f"{1 / seconds:.0f}"


def main() -> None:
    """Measure what is named, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rewards", default="", help="names joined by commas; all by default")
    parser.add_argument("--seconds", type=float, default=60, help="that a reward may take")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--noises", type=int, default=8)
    words = parser.parse_args()
    torch.set_num_threads(1)
    registered = get_registry().entries["reward"]
    names = words.rewards.split(",") if words.rewards else list(registered)
    entries = [get_registry().find("reward", name) for name in names]
    place = HERE / "results.json"
    results = json.loads(place.read_text(encoding="utf-8")) if place.is_file() and words.rewards else {}
    measured, apart = results.get("costs", {}), results.get("spreads", {})
    for entry in entries:
        print(entry.name, flush=True)
        measured[entry.name] = costs(entry, words.seconds)
        write(place, measured, apart)
        gc.collect()
    apart |= spreads(entries, words.prompts, words.noises)
    write(place, measured, apart)


def write(place: Path, measured: Mapping[str, Any], apart: Mapping[str, Any]) -> None:
    """Write the numbers as they are now, in the order of the registry, and the pages."""
    registered = get_registry().entries["reward"]
    results = {
        "costs": {name: measured[name] for name in registered if name in measured},
        "spreads": {name: apart[name] for name in registered if name in apart},
    }
    place.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(cost_page(results), encoding="utf-8")
    (HERE / "spread.md").write_text(spread_page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
