"""How many passes a training step really makes, and of how many samples, counted by hooks on its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks._shared.measuring import Turns
from dipp_emoji.rewards import EmojiClip
from dipp_toolkit import TrainConfig, load_prompts
from dipp_toolkit.training.run import TrainingLoop
from dipp_toolkit.training.setup.resolve import resolve


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
        counter, parts = cls(), loop.parts
        networks = {
            "generator": parts.generator.network,
            "assistant": parts.assistant.denoiser.network,
            "reference": parts.reference.denoiser.network,
            "decoder": getattr(parts.reference.vae, "decoder", parts.reference.vae),
        }
        for name, reward in parts.rewards.items():
            if not hasattr(reward, "model"):  # a formula without a network
                continue
            model = reward.model
            networks[f"{name}, images"] = model.vision_model if isinstance(reward, EmojiClip) else model.vision
            networks[f"{name}, prompts"] = model.text_model if isinstance(reward, EmojiClip) else model.text
        for name, network in networks.items():
            counter.calls[name] = []
            network.register_forward_pre_hook(counter._hook(name), with_kwargs=True)
        return counter

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
            self.least = {name: list(samples) for name, samples in self.calls.items()}

    def reset(self) -> None:
        """At the end of a turn."""
        for samples in self.calls.values():
            samples.clear()


def counted(config: TrainConfig, work: Path) -> dict[str, list[int]]:
    """The passes of a step: how many samples each network saw, pass by pass.

    Its prompts are those of one batch, so that the first step has seen them all.
    """
    settings = resolve(config)
    prompts, chosen = work / "few.txt", load_prompts(settings.prompts or "").prompts[: settings.batch_size]
    prompts.write_text("\n".join(prompt.text for prompt in chosen) + "\n", encoding="utf-8")
    held: list[Counter] = []

    def make(loop: TrainingLoop) -> dict[str, Callable[[], None]]:
        held.append(Counter.of(loop))
        return {"take": held[0].take, "reset": held[0].reset}

    update = {"out": Path(f"{config.out}-counted"), "prompts": str(prompts)}
    Turns(make, rounds=2, warm=1).run(config.model_copy(update=update))
    return held[0].least
