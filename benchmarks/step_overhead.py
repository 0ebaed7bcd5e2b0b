"""What a training step costs beside the network passes it consists of.

    python benchmarks/step_overhead.py [--cases emoji,full,lora] [--device cuda] [--threads 2]

A real training, as `dipp train` runs it, with its metrics and checkpoints, takes turns in one process with the bare
forward and backward passes of a step: the same networks, batch, dtypes, autocast and attention kernels, on tensors that
are there already. Cases are the emoji world with its recommended settings, and a PixArt-alpha network of 96 M
parameters trained whole (`full`) and by adapters on shared weights (`lora`). The ratio is the median over the turns.
Passes are also counted, in a real step, by hooks on the networks. Writes results/step_overhead.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import hundred_million
import torch
from measuring import CLOCKS, PLAIN, Spread, Turns, choose, print_results, ran_on, wait, write_results
from torch import Tensor, nn

from dipp_emoji.rewards import EmojiClip, embed_captions, embed_pixels, to_pixels
from dipp_toolkit import TrainConfig, load_prompts
from dipp_toolkit.condition import Condition
from dipp_toolkit.network_options import make_optimizer
from dipp_toolkit.precision import PRECISIONS, pass_autocast
from dipp_toolkit.resolving import resolve
from dipp_toolkit.sharing import trainable_parameters
from dipp_toolkit.training import TrainingLoop

LIMIT = 1.05


def scores_of(reward: Any, prompts: tuple[str, ...], device: torch.device) -> Callable[[Tensor], Tensor]:
    """A reward of the emoji world as its network's pass over images alone: the prompts' features are there."""
    ids, model = reward.tokenizer(prompts).to(device), reward.model.to(device)
    with torch.no_grad():
        read = embed_captions(model, ids) if isinstance(reward, EmojiClip) else model.text_features(ids)

    def scores(images: Tensor) -> Tensor:
        if isinstance(reward, EmojiClip):
            return 100 * (embed_pixels(model, to_pixels(images)) * read).sum(-1)
        quality, match = model.parts(model.image_features(to_pixels(images)), read)
        return quality + match

    return scores


def backward(output: Tensor) -> None:
    """The backward pass of a network's output, whatever its loss."""
    output.backward(torch.ones_like(output) / output.numel())


class Passes:
    """The network passes of one step of a training, and nothing else.

    Args:
        loop: the training.
        decodes: how often a step of the training decodes: once for all rewards, or once for each.
        clock: gives seconds.
    """

    def __init__(self, loop: TrainingLoop, decodes: int, clock: Callable[[], float]):
        parts, config = loop.parts, loop.config
        self.config, self.device, self.decodes, self.clock = config, parts.device, decodes, clock
        self.generator, self.assistant = parts.generator.denoiser, parts.assistant.denoiser
        self.reference = parts.reference.denoiser
        terms = [one.term for one in parts.engine.terms]
        self.decode = next((one.decode for one in terms if hasattr(one, "decode")), parts.reference.decode)
        rows = parts.conditions[range(config.batch_size)]
        null = parts.reference.null(len(rows)).to(self.device)
        self.condition, self.both = rows, Condition.cat([rows, null])
        x = torch.randn(len(rows), *parts.reference.latent_shape, device=self.device)
        time = self.reference.schedule.network_time(torch.linspace(0.1, 0.9, len(rows), device=self.device))
        self.x, self.time = (x, torch.cat([x, x])), (time, torch.cat([time, time]))
        self.scores = {name: scores_of(one, rows.prompts, self.device) for name, one in parts.rewards.items()}
        self.parameters = [trainable_parameters(one.network) for one in (self.generator, self.assistant)]
        self.optimizers = [make_optimizer(one, 1e-30, config.optimizer) for one in self.parameters]
        self.average = parts.average
        self.attention = {
            id(self.generator): parts.engine.attention,
            id(self.assistant): parts.assistant.attention,
        }
        self.precision = PRECISIONS[config.precision]
        self.each: dict[str, list[float]] = {}
        self.apart = self.device.type != "cuda"
        """Whether each pass is timed by itself; a GPU would have to be waited for in between."""

    def autocast(self) -> torch.autocast:
        return pass_autocast(self.device.type, self.precision)

    def measured(self, name: str, work: Callable[[], Any]) -> Any:
        if not self.apart:
            return work()
        started = self.clock()
        found = work()
        wait(self.device)
        self.each.setdefault(name, []).append(self.clock() - started)
        return found

    def one_by_one(self, warm: int) -> dict[str, float]:
        """The median time of each pass; those of a GPU are taken now."""
        if not self.apart:
            self.apart = True
            for _ in range(warm + 5):
                self.run()
        return {name: statistics.median(one[warm:]) for name, one in self.each.items()}

    def forward(self, denoiser: Any, condition: Condition, copies: int = 1) -> Tensor:
        with self.autocast():
            found: Tensor = denoiser.forward(denoiser.network, self.x[copies - 1], self.time[copies - 1], condition)
        return found

    def with_graph(self, denoiser: Any) -> Tensor:
        with self.attention[id(denoiser)]():
            return self.forward(denoiser, self.condition)

    def without_graph(self, denoiser: Any, condition: Condition, copies: int = 1) -> None:
        with torch.no_grad():
            self.forward(denoiser, condition, copies)

    def decoded(self) -> tuple[Tensor, Tensor]:
        x0 = self.x[0].detach().requires_grad_(True)
        with self.autocast():
            return x0, self.decode(x0)

    def rewards(self) -> None:
        """Every reward's gradient with respect to the sample, as the training's steps get at it."""
        shared = self.decoded() if self.decodes < len(self.scores) else None
        for scores in self.scores.values():
            x0, images = shared or self.decoded()
            seen = images.detach().requires_grad_(True)
            with torch.autocast(self.device.type, enabled=False):
                (pixels,) = torch.autograd.grad(scores(seen).sum(), seen)
            torch.autograd.grad(images, x0, pixels, retain_graph=shared is not None)

    def run(self) -> None:
        """All of them once, in the order of a step."""
        for one in (one for both in self.parameters for one in both):
            one.grad = None
        for _ in range(self.config.assistant_rounds):
            self.measured("generator, no graph", lambda: self.without_graph(self.generator, self.condition))
            output = self.measured("assistant, forward", partial(self.with_graph, self.assistant))
            self.measured("assistant, backward", partial(backward, output))
        output = self.measured("generator, forward", partial(self.with_graph, self.generator))
        guided = self.config.guidance != 1
        self.measured(
            "reference, prompts and empty prompts as one batch" if guided else "reference",
            lambda: self.without_graph(self.reference, self.both if guided else self.condition, 1 + guided),
        )
        self.measured("assistant, no graph", lambda: self.without_graph(self.assistant, self.condition))
        self.measured("decoder and rewards, forward and backward", self.rewards)
        self.measured("generator, backward", partial(backward, output))

    def update(self) -> None:
        """Both optimisers, after clipping, and the weight average, on the gradients that `run` has left."""
        for parameters, optimizer in zip(self.parameters, self.optimizers, strict=True):
            for _ in range(self.config.assistant_rounds if parameters is self.parameters[1] else 1):
                nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)
                optimizer.step()
        self.average.update()


@dataclass
class Counter:
    """Counts forward passes of a training's networks, and the samples in each, in the steps between two turns.

    Attributes:
        calls: samples of each pass since the last reset, by network.
        least: those of the step with the fewest: every later one may meet prompts that no reward has read yet.
    """

    calls: dict[str, list[int]] = field(default_factory=dict)
    least: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, loop: TrainingLoop) -> Counter:
        found, parts = cls(), loop.parts
        networks = {
            "generator": parts.generator.network,
            "assistant": parts.assistant.denoiser.network,
            "reference": parts.reference.denoiser.network,
            "decoder": getattr(parts.reference.vae, "decoder", parts.reference.vae),
        }
        for name, reward in parts.rewards.items():
            model = reward.model
            networks[f"{name}, images"] = model.vision_model if isinstance(reward, EmojiClip) else model.vision
            networks[f"{name}, prompts"] = model.text_model if isinstance(reward, EmojiClip) else model.text
        for name, network in networks.items():
            found.calls[name] = []
            network.register_forward_pre_hook(found._hook(name), with_kwargs=True)
        return found

    def _hook(self, name: str) -> Callable[..., None]:
        def note(network: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
            first = args[0] if args else next(iter(kwargs.values()))
            self.calls[name].append(len(first))

        return note

    def take(self) -> None:
        """What was counted, at the beginning of a turn."""

        def passes(calls: Mapping[str, list[int]]) -> int:
            return sum(map(len, calls.values()))

        if passes(self.calls) and (not self.least or passes(self.calls) < passes(self.least)):
            self.least = {name: list(one) for name, one in self.calls.items()}

    def reset(self) -> None:
        """At the end of a turn."""
        for one in self.calls.values():
            one.clear()


def counted(config: TrainConfig, work: Path) -> dict[str, list[int]]:
    """The passes of a step: how many samples each network saw, pass by pass.

    Its prompts are those of one batch, so that the first step has seen them all.
    """
    settings = resolve(config)
    prompts, chosen = work / "few.txt", load_prompts(settings.prompts or "").prompts[: settings.batch_size]
    prompts.write_text("\n".join(one.text for one in chosen) + "\n", encoding="utf-8")
    held: list[Counter] = []

    def make(loop: TrainingLoop) -> dict[str, Callable[[], None]]:
        held.append(Counter.of(loop))
        return {"take": held[0].take, "reset": held[0].reset}

    update = {"out": Path(f"{config.out}-counted"), "prompts": str(prompts)}
    Turns(make, rounds=2, warm=1).run(config.model_copy(update=update))
    return held[0].least


def measure(config: TrainConfig, rounds: int, warm: int, block: int, clock: Callable[[], float]) -> dict[str, Any]:
    """One case. The rewards have read every prompt before the first turn; that is timed by itself."""
    held: list[Any] = []

    def make(loop: TrainingLoop) -> dict[str, Callable[[], None]]:
        started, prompts = clock(), list(loop.parts.conditions.prompts)
        for reward in loop.parts.rewards.values():
            reward.model.to(loop.parts.device)
            reward.texts(prompts)
        passes, read = Passes(loop, 1, clock), clock() - started
        counter = Counter.of(loop)
        held.extend((counter, passes, {"prompts": len(prompts), "seconds": read}))

        def take() -> None:
            counter.take()
            passes.decodes = len(counter.least.get("decoder", [0]))

        return {"take": take, "passes": passes.run, "updates": passes.update, "reset": counter.reset}

    turns = Turns(make, rounds, warm, block, clock=clock, saves=1).run(config)
    passes, updates, steps = turns.seconds("passes"), turns.seconds("updates"), turns.seconds("step")
    both = [one + other for one, other in zip(passes, updates, strict=True)]

    def ratio(base: list[float]) -> dict[str, float]:
        return vars(Spread.of([step / one for step, one in zip(steps, base, strict=True)]))

    return {
        "step": vars(Spread.of(steps)),
        "passes": vars(Spread.of(passes)),
        "updates": vars(Spread.of(updates)),
        "to_passes": ratio(passes),
        "to_passes_and_updates": ratio(both),
        "checkpoint": statistics.mean(turns.checkpoints),
        "checkpoints": turns.checkpoints,
        "each": held[1].one_by_one(warm * block),
        "counted": held[0].least,
        "rounds": turns.measured,
        "read": held[2],
        "settings": {name: getattr(config, name) for name in ("batch_size", "precision", "mode", "checkpoint_every")},
    }


def config_of(case: str, work: Path, device: torch.device, checkpoint_every: int) -> TrainConfig:
    """The settings of a case."""
    shared = PLAIN | {"device": str(device), "checkpoint_every": checkpoint_every, "out": work / f"run-{case}"}
    if case.startswith("emoji"):
        return TrainConfig(generator="emoji-onestep", **shared | ({"guidance": 1.0} if case == "emoji-1" else {}))
    folder = str(hundred_million.write_pipeline(work / "pipeline"))
    prompts = hundred_million.write_prompts(work / "prompts.txt")
    settings = (
        hundred_million.SETTINGS | shared | {"prompts": str(prompts), "prompt_cache": work / "cache", "mode": case}
    )
    return TrainConfig(generator=folder, reference=folder, **settings)


NAMES = {"emoji": "emoji world", "full": "96 M network, all weights", "lora": "96 M network, adapters"}


def page(results: Mapping[str, Any], about: str, clock: str) -> str:
    """The results as Markdown."""
    lines = [
        "# What a step costs beside its network passes",
        "",
        f"Measured on {about} The real step and the bare passes took turns in one process.",
        f"Times, of the {clock}, are medians, with quartiles in brackets; ratios are medians over the turns.",
        "",
        "| case | real step | bare passes | step / passes | optimisers, clipping, average | step / (passes + these) |",
        "|---|---|---|---|---|---|",
    ]
    cases = {case: one for case, one in results.items() if case in NAMES}
    for case, one in cases.items():
        step, passes, updates = (Spread(**one[key]).text() for key in ("step", "passes", "updates"))
        alone, together = (Spread(**one[key]) for key in ("to_passes", "to_passes_and_updates"))
        lines.append(
            f"| {NAMES[case]} | {step} | {passes} | {alone.text('', 1, 3)} | {updates} | {together.text('', 1, 3)} |"
        )
    lines += [
        "",
        f"The limit is {LIMIT}: "
        + ", ".join(
            f"{NAMES[case]} {'met' if one['to_passes']['median'] <= LIMIT else 'not met'} against the passes alone, "
            f"{'met' if one['to_passes_and_updates']['median'] <= LIMIT else 'not met'} with the updates"
            for case, one in cases.items()
        )
        + ".",
        "",
        "The real step writes its row of metrics; the time of checkpoints is taken apart:",
        "",
        "| case | a checkpoint costs the training | a step, at one every 100 steps | step with it / passes |",
        "|---|---|---|---|",
    ]
    for case, one in cases.items():
        share = one["checkpoint"] / 100
        lines.append(
            f"| {NAMES[case]} | {1e3 * one['checkpoint']:.0f} ms | {1e3 * share:.1f} ms | "
            f"{one['to_passes']['median'] + share / one['passes']['median']:.3f} |"
        )
    said = [
        f"{one['read']['seconds']:.2f} s for {one['read']['prompts']} ({NAMES[case]})" for case, one in cases.items()
    ]
    lines += ["", f"Rewards read each prompt once in a run, outside of the steps measured here: {', '.join(said)}."]
    for case, one in cases.items():
        lines += ["", f"{NAMES[case]}, pass by pass:", "", "| pass | time | share of the step |", "|---|---|---|"]
        whole = one["step"]["median"]
        times = one["each"] | {"optimisers, clipping, average": one["updates"]["median"]}
        times["everything else"] = whole - sum(times.values())
        lines += [f"| {name} | {1e3 * value:.1f} ms | {value / whole:.1%} |" for name, value in times.items()]
    lines += [
        "",
        "Forward passes counted in a real step, and the samples in each. Its prompts have been trained on before; the "
        "reference's text encoder is not in memory.",
        "",
    ]
    names = list(next(iter(results.values()))["counted"])
    lines += [f"| case | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for case, one in results.items():
        shown = [", ".join(map(str, one["counted"][name])) or "none" for name in names]
        lines.append(f"| {NAMES.get(case, 'emoji world, guidance 1')} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every case and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="emoji,full,lora", help="of emoji, full and lora")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU's operators")
    parser.add_argument("--rounds", type=int, default=20, help="turns on the emoji world")
    parser.add_argument("--large-rounds", type=int, default=5, help="turns on the 96 M network")
    parser.add_argument("--block", type=int, default=1, help="steps a turn; more than one on a fast device")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    words = parser.parse_args()
    device = choose(words.device, words.threads)
    results: dict[str, Any] = {}
    about = ran_on(device)
    with tempfile.TemporaryDirectory() as scratch:
        for case in words.cases.split(","):
            rounds = words.rounds if case == "emoji" else words.large_rounds
            config = config_of(case, Path(scratch), device, checkpoint_every=max(4, rounds // 2) * words.block)
            results[case] = measure(config, rounds, 2 if case == "emoji" else 1, words.block, CLOCKS[words.clock])
            if case == "emoji":
                without = config_of("emoji-1", Path(scratch), device, checkpoint_every=10**6)
                results["emoji-1"] = {"counted": counted(without, Path(scratch))}
            numbers = {"ran_on": about, "clock": words.clock, "cases": results}
            write_results("step_overhead", numbers, page(results, about, words.clock))
    print_results("step_overhead")


if __name__ == "__main__":
    main()
