"""What is seen of a loop: the calls of the world's networks, the gradients that reach them, and its optimisers' steps.

Nothing moves while a loop is looked at. An optimiser that is about to change one of the world's networks is shown no
gradient of it, so every update is measured at the same parameters, whatever the loop's learning rate is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Role = str
"""`"generator"`, `"fake_score"` or `"reference"`."""


@dataclass
class Call:
    """A call of one of the world's networks.

    Attributes:
        role: which.
        x_t: what it was given, flattened, float64.
        timestep: of each row.
        alpha: signal coefficient of it.
        sigma: noise coefficient of it.
        given: which rows had a prompt.
        x0: the denoised samples that its output meant.
        step: of each row, for the generator: which of its steps has the nearest time; otherwise 0.
        with_graph: whether its input belonged to a graph.
        grad: what came back on `x0`; None where nothing did.
    """

    role: Role
    x_t: Float[Tensor, "batch dimension"]
    timestep: Float[Tensor, " batch"]
    alpha: Float[Tensor, " batch"]
    sigma: Float[Tensor, " batch"]
    given: Tensor
    x0: Float[Tensor, "batch dimension"]
    step: Tensor
    with_graph: bool
    grad: Tensor | None = None

    def receive(self, grad: Tensor) -> None:
        """Add a gradient on `x0`."""
        self.grad = grad.detach() if self.grad is None else self.grad + grad.detach()


@dataclass
class Query:
    """The generator's samples that a divergence looked at, and where it looked at them.

    Attributes:
        made: the generator's call.
        seen: the fake score's calls about them.
    """

    made: Call
    seen: list[Call] = field(default_factory=list)


@dataclass
class GeneratorUpdate:
    """A step of the generator's optimiser.

    Attributes:
        law: number of the law that the generator had.
        calls: of the generator, those that a gradient came back to.
        queries: those whose samples the fake score was asked about.
        grad: what the optimiser followed, parameters flattened one after the other.
    """

    law: int
    calls: list[Call]
    queries: list[Query]
    grad: Tensor


@dataclass
class FakeScoreUpdate:
    """A step of the fake score's optimiser.

    Attributes:
        law: number of the law that the generator had.
        calls: of the fake score, those that a gradient came back to.
        sources: for each of them the generator's call that its samples come from, None where none fits.
        grad: what the optimiser followed, parameters flattened one after the other.
    """

    law: int
    calls: list[Call]
    sources: list[Call | None]
    grad: Tensor


@dataclass
class Recorder:
    """Keeps what happens until an optimiser steps, and sorts it then.

    Attributes:
        modules: the trainable networks, by role.
        law: number of the law that the generator has now.
        generator_updates: those so far.
        fake_score_updates: those so far.
        called: the roles that were called at all.
        sampling: where not None, the generator's calls go here and belong to no update.
    """

    modules: dict[Role, nn.Module] = field(default_factory=dict)
    law: int = 0
    generator_updates: list[GeneratorUpdate] = field(default_factory=list)
    fake_score_updates: list[FakeScoreUpdate] = field(default_factory=list)
    called: set[Role] = field(default_factory=set)
    sampling: list[Call] | None = None
    _pending: list[Call] = field(default_factory=list)
    _generated: list[Call] = field(default_factory=list)
    _hidden: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return self  # a copy of a network, an average of its weights say, is seen like the network itself

    def add(self, call: Call) -> None:
        """Note a call."""
        self.called.add(call.role)
        if call.role == "generator" and self.sampling is not None:
            self.sampling.append(call)
        elif call.role != "reference":
            self._pending.append(call)
            if call.role == "generator":
                self._generated.append(call)

    def start_step(self, law: int) -> None:
        """A training step begins; calls of an update that never came are forgotten."""
        self.law = law
        self._pending.clear()
        self._generated.clear()

    def _stepping(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        owned = {
            id(tensor) for group in optimizer.param_groups for tensor in group["params"] if tensor.grad is not None
        }
        for role, module in self.modules.items():
            parameters = list(module.parameters())
            if not any(id(tensor) in owned for tensor in parameters):
                continue
            grads = [torch.zeros_like(own) if own.grad is None else own.grad.detach().clone() for own in parameters]
            flat = torch.cat([grad.flatten() for grad in grads])
            if not flat.any():
                continue
            if role == "generator":
                self._generator_stepped(flat)
            else:
                self._fake_score_stepped(flat)
            for own in parameters:
                if own.grad is not None:
                    self._hidden.append((own, own.grad))
                    own.grad = None

    def _stepped(self, *_: object) -> None:
        for parameter, grad in self._hidden:
            parameter.grad = grad
        self._hidden.clear()

    def _generator_stepped(self, grad: Tensor) -> None:
        queries: list[Query] = []
        made: Call | None = None
        kept: list[Call] = []
        for call in self._pending:
            if call.role == "generator":
                made = call if call.grad is not None else made
            elif call.grad is not None and not call.with_graph:
                kept.append(call)  # of the fake score's own loss, whose step is still to come
            elif made is not None and len(call.x_t) % len(made.x_t) == 0:
                if not queries or queries[-1].made is not made:
                    queries.append(Query(made))
                queries[-1].seen.append(call)
        calls = [call for call in self._pending if call.role == "generator" and call.grad is not None]
        self._pending = kept
        self.generator_updates.append(GeneratorUpdate(self.law, calls, queries, grad))

    def _fake_score_stepped(self, grad: Tensor) -> None:
        calls = [call for call in self._pending if call.role == "fake_score" and call.grad is not None]
        self._pending = [call for call in self._pending if not any(call is own for own in calls)]
        sources = [source_of(call, self._generated) for call in calls]
        self.fake_score_updates.append(FakeScoreUpdate(self.law, calls, sources, grad))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See every optimiser's steps for as long as this lasts."""
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        handles = [
            register_optimizer_step_pre_hook(self._stepping),
            register_optimizer_step_post_hook(self._stepped),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def source_of(call: Call, generated: list[Call]) -> Call | None:
    r"""The generator's call whose samples a call of the fake score looked at, with the noise of its own row.

    Of right samples $|x_t - \alpha x_0|^2 / \sigma^2$ is 1 a dimension on average, of any others more.
    """
    best, least = None, math.inf
    for made in generated:
        if made.x0.shape != call.x_t.shape:
            continue
        noise = (call.x_t - call.alpha[:, None] * made.x0) / call.sigma[:, None]
        size = noise.square().mean().item()
        if size < least:
            best, least = made, size
    slack = 6 * math.sqrt(2 / call.x_t.numel())
    return best if least < 1 + slack else None
