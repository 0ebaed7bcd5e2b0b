"""The bare network passes that a training step consists of, for benchmarks that hold steps against them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dipp_emoji.rewards import EmojiClip, embed_captions, embed_pixels, to_pixels
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.experiments.profile.parts import wait
from dipp_toolkit.models.weight_sharing import trainable_parameters
from dipp_toolkit.training.optim import make_optimizer
from dipp_toolkit.training.run import TrainingLoop
from dipp_toolkit.utils.precision import PRECISIONS, pass_autocast


def scores_of(reward: Any, prompts: tuple[str, ...], device: torch.device) -> Callable[[Tensor], Tensor]:
    """A reward of the emoji world as its network's pass over images alone: the prompts' features are there."""
    if not hasattr(reward, "tokenizer"):  # a formula without a network
        return lambda images: reward(images, prompts)
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
        terms = [term.term for term in parts.engine.terms]
        self.decode = next((term.decode for term in terms if hasattr(term, "decode")), parts.reference.decode)
        rows = parts.conditions[range(config.batch_size)]
        null = parts.reference.null(len(rows)).to(self.device)
        self.condition, self.both = rows, Condition.cat([rows, null])
        x = torch.randn(len(rows), *parts.reference.latent_shape, device=self.device)
        time = self.reference.schedule.network_time(torch.linspace(0.1, 0.9, len(rows), device=self.device))
        self.x, self.time = (x, torch.cat([x, x])), (time, torch.cat([time, time]))
        self.scores = {name: scores_of(reward, rows.prompts, self.device) for name, reward in parts.rewards.items()}
        self.parameters = [trainable_parameters(denoiser.network) for denoiser in (self.generator, self.assistant)]
        self.optimizers = [make_optimizer(parameters, 1e-30, config.optimizer) for parameters in self.parameters]
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
        result = work()
        wait(self.device)
        self.each.setdefault(name, []).append(self.clock() - started)
        return result

    def one_by_one(self, warm: int) -> dict[str, float]:
        """The median time of each pass; those of a GPU are taken now."""
        if not self.apart:
            self.apart = True
            for _ in range(warm + 5):
                self.run()
        return {name: statistics.median(times[warm:]) for name, times in self.each.items()}

    def forward(self, denoiser: Any, condition: Condition, copies: int = 1) -> Tensor:
        with self.autocast():
            output: Tensor = denoiser.forward(denoiser.network, self.x[copies - 1], self.time[copies - 1], condition)
        return output

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
        """The rewards' gradient with respect to the sample, as the training's steps get at it: rewards of one decode
        are added up on its images and go back once."""
        if self.decodes < len(self.scores):
            x0, images = self.decoded()
            summed = torch.zeros_like(images)
            for scores in self.scores.values():
                seen = images.detach().requires_grad_(True)
                with torch.autocast(self.device.type, enabled=False):
                    (pixels,) = torch.autograd.grad(scores(seen).sum(), seen)
                summed += pixels
            torch.autograd.grad(images, x0, summed)
            return
        for scores in self.scores.values():
            x0, images = self.decoded()
            seen = images.detach().requires_grad_(True)
            with torch.autocast(self.device.type, enabled=False):
                (pixels,) = torch.autograd.grad(scores(seen).sum(), seen)
            torch.autograd.grad(images, x0, pixels)

    def run(self) -> None:
        """All of them once, in the order of a step."""
        for parameter in (parameter for both in self.parameters for parameter in both):
            parameter.grad = None
        for _ in range(self.config.assistant_rounds):
            self.measured("generator, no graph", lambda: self.without_graph(self.generator, self.condition))
            output = self.measured("assistant, forward", partial(self.with_graph, self.assistant))
            self.measured("assistant, backward", partial(backward, output))
        output = self.measured("generator, forward", partial(self.with_graph, self.generator))
        guided = self.config.is_guided
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
