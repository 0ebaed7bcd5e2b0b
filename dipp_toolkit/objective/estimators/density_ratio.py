r"""The density ratio $q_t(x_t|c) / p_t(x_t|c)$ of reference and generator, by a discriminator on features.

A classifier that sees as many noised samples of the reference as of the generator, at the same times, and is trained by
cross-entropy has the log ratio as its optimal logit (Goodfellow et al. 2014, proposition 1). It is small: it reads what
the assistant's middle block computes anyway.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...distributed import Processes
from ...errors import RunError
from ...utils.precision import full_precision

WAVES = 8
"""Frequencies that tell the discriminator the time."""


def middle_block(network: nn.Module) -> nn.Module | None:
    """The block half-way through a diffusion network, whatever library wraps it; None for one without blocks."""
    middle: nn.Module | None = None
    for name, module in network.named_modules():
        last = name.rsplit(".", 1)[-1]
        if last == "mid_block":
            return module
        if middle is None and last in ("transformer_blocks", "blocks", "layers") and isinstance(module, nn.ModuleList):
            middle = module[len(module) // 2] if len(module) else None
    return middle


def as_tokens(features: Tensor) -> Float[Tensor, "batch tokens channels"]:
    """Features of any layout as tokens: maps become one token a place, vectors a single token."""
    if features.ndim == 4:
        return features.flatten(2).mT
    return features[:, None] if features.ndim == 2 else features


def image_features(
    block: nn.Module, arguments: Sequence[Any], named: Mapping[str, Any], output: Any, place: int | None = None
) -> Tensor:
    """The image's features among what a block returns.

    Blocks of joint transformers return the prompt's stream too, and each library in an order of its own.

    Args:
        block: that was called.
        arguments: it was called with.
        named: arguments it was called with by name.
        output: what it returned.
        place: of the image's stream in an output of several, as the pipeline's family says; where none says it, the one
            output that has the shape of the argument `hidden_states`, diffusers' name for the image's stream.

    Raises:
        RunError: it is unknown which one it is.
    """
    streams = [stream for stream in output if isinstance(stream, Tensor)] if isinstance(output, tuple) else [output]
    if len(streams) == 1:
        return streams[0]
    if place is not None and isinstance(output[place], Tensor):
        stream: Tensor = output[place]
        return stream
    given = inspect.signature(block.forward).bind(*arguments, **named).arguments.get("hidden_states")
    alike = [stream for stream in streams if isinstance(given, Tensor) and stream.shape == given.shape]
    if len(alike) != 1:
        raise RunError(
            f"The block {type(block).__name__} returns {len(streams)} tensors, and which of them holds the "
            "image's features, which f_divergence reads, is unknown. Give the pipeline's family an image_stream, its "
            "place among them, or train with another term."
        )
    return alike[0]


@contextmanager
def tapped(network: nn.Module, place: int | None = None) -> Any:
    """Inside, a list that fills with the image's features behind the middle block at each pass, as tokens.

    Args:
        network: any.
        place: as for `image_features`.
    """
    block, seen = middle_block(network), []

    def note(module: nn.Module, arguments: Any, named: Any, output: Any) -> None:
        seen.append(as_tokens(image_features(module, arguments, named, output, place).detach().float()))

    handle = block.register_forward_hook(note, with_kwargs=True) if block is not None else None
    try:
        yield seen
    finally:
        if handle is not None:
            handle.remove()


def tokens_of(
    network: nn.Module,
    predict: Callable[[Tensor, Tensor, Any], Tensor],
    x_t: Tensor,
    t: Tensor,
    condition: Any,
    place: int | None = None,
) -> tuple[Tensor, Tensor]:
    """One pass of a network: its prediction, and the image's features as tokens.

    A network without a middle block is represented by its input and its prediction, `(batch, places, 2 channels)`.

    Args:
        network: whose features are read.
        predict: makes the pass.
        x_t: noised samples.
        t: their times.
        condition: one row a sample.
        place: as for `image_features`.
    """
    with tapped(network, place) as seen:
        x0 = predict(x_t, t, condition)
    if seen:
        return x0, seen[0]
    joined = torch.cat([x_t, x0], 1)
    small = joined[0].numel() <= 64
    return x0, joined.flatten(1)[:, None].detach() if small else as_tokens(joined.detach())


class Discriminator(nn.Module):
    """Logits of features: every token votes, given the time; the votes' mean is the logit.

    Args:
        channels: of a token.
        width: of the hidden layers.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.enter, self.time = nn.Linear(channels, width), nn.Linear(2 * WAVES, 2 * width)
        self.hidden, self.leave = nn.Linear(width, width), nn.Linear(width, 1)
        self.spread = nn.Parameter(torch.ones(channels), requires_grad=False)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, tokens: Float[Tensor, "batch tokens channels"], t: Float[Tensor, " batch"]) -> Tensor:
        """The log density ratio of each sample, `(batch,)`; 0 before the first update."""
        angles = torch.pi * t.float()[:, None] * torch.arange(1, WAVES + 1, device=t.device)
        scale, shift = self.time(torch.cat([angles.sin(), angles.cos()], 1))[:, None].chunk(2, -1)
        hidden = F.silu(self.enter(tokens / self.spread) * (1 + scale) + shift)
        return self.leave(hidden + F.silu(self.hidden(hidden))).mean(1)[:, 0]


@dataclass
class LearnedRatio:
    """A discriminator with its optimiser, made when it first sees features.

    Attributes:
        learning_rate: Adam's.
        seed: of its first weights.
        limit: log ratios are clamped to plus and minus this.
        network: the discriminator; None before the first features.
        processes: those that teach it together.
    """

    learning_rate: float = 1e-3
    seed: int = 0
    limit: float = 8.0
    network: Discriminator | None = None
    optimizer: torch.optim.Optimizer | None = field(default=None, repr=False)
    processes: Processes = field(default_factory=Processes)

    def _made(self, tokens: Tensor) -> Discriminator:
        if self.network is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.network = Discriminator(tokens.shape[-1]).to(tokens.device)
            # Features of a network may have any size.
            spread = tokens.flatten(0, 1).float().std(0, correction=0)
            self.network.spread.copy_(self.processes.mean(spread).clamp_min(1e-6))
            self.optimizer = torch.optim.Adam(self._weights(), lr=self.learning_rate, betas=(0.5, 0.99))
        return self.network

    def _weights(self) -> list[nn.Parameter]:
        assert self.network is not None
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def log_ratio(
        self, tokens: Float[Tensor, "batch tokens channels"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        r"""$\log q_t(x_t)/p_t(x_t)$, float32."""
        with full_precision(tokens.device):
            return self._made(tokens)(tokens.float(), t).clamp(-self.limit, self.limit)

    def update(self, real: Tensor, fake: Tensor, t_real: Tensor, t_fake: Tensor) -> Float[Tensor, ""]:
        """One step of cross-entropy, in float32; returns its loss, log 2 where the two cannot be told apart.

        Args:
            real: tokens of noised samples of the reference.
            fake: tokens of noised samples of the generator.
            t_real: times of the former.
            t_fake: times of the latter.
        """
        network = self._made(real)
        with torch.enable_grad(), full_precision(real.device):
            of_real, of_fake = network(real.float(), t_real), network(fake.float(), t_fake)
            loss = (F.softplus(-of_real).mean() + F.softplus(of_fake).mean()) / 2
            gradients = torch.autograd.grad(loss, self._weights())
        assert self.optimizer is not None
        for parameter, gradient in zip(self._weights(), gradients, strict=True):
            parameter.grad = self.processes.mean(gradient)
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        if self.network is None or self.optimizer is None:
            return {}
        return {
            "channels": self.network.enter.in_features,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` gave."""
        if state:
            self._made(torch.zeros(1, 1, int(state["channels"]), device=device)).load_state_dict(state["network"])
            assert self.optimizer is not None
            self.optimizer.load_state_dict(state["optimizer"])
