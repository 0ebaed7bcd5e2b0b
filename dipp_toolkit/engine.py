r"""The engine: everything is a gradient on $x_0$.

    x0 = generator(z, c)                                             # the only graph that is kept
    total = sum(weight * term(sample_of(x0.detach())).grad for term in objective)
    x0.backward(total / batch)                                       # one backward through the generator

Divergences, guidance, differentiable and black-box rewards look the same here, because each returns a value and a
gradient. Every term's graph lives and dies inside its own call, so peak memory is the largest term's, not the sum.

A generator of K steps (see `few_steps`) is supervised in one of two ways. `last`: the terms look at the last step's
$x_0$, and the one backward goes through all steps. `every`: each step's $x_0^k$ has an objective of its own, its input
held fixed, and the gradient is $\frac{1}{K} \sum_k \nabla L(x_0^k) \cdot \partial x_0^k / \partial \theta$; one step's
graph is alive at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .assistant import Assistant
from .condition import Condition
from .errors import RunError
from .few_steps import FewStepGenerator, run_steps, step_count
from .mixing.mix import RewardMix
from .roles import Generator
from .terms.base import Sample, Stateful, Term, TermResult


@dataclass(frozen=True)
class WeightedTerm:
    """A term of the objective by name, with its weight (a reward's is alpha_rew times its own).

    Attributes:
        mixed: whether it is one of the rewards that are balanced against each other.
    """

    name: str
    term: Term
    weight: float = 1.0
    mixed: bool = False


@dataclass(frozen=True)
class ObjectiveResult:
    """The objective's gradient on a batch, and what each term said.

    Attributes:
        grad: weighted sum of the terms' gradients, like `x0`.
        results: each term's own result, unweighted, by name.
        norms: root mean square of each term's weighted gradient.
        cosines: mean cosine over the batch between each two terms' gradients, by `"a/b"`.
        details: what the mix of rewards says of each, by `"number/term"`.
    """

    grad: Float[Tensor, "batch ..."]
    results: Mapping[str, TermResult]
    norms: Mapping[str, float]
    cosines: Mapping[str, float]
    details: Mapping[str, float] = field(default_factory=dict)


def evaluate_objective(terms: Sequence[WeightedTerm], sample: Sample, mix: RewardMix | None = None) -> ObjectiveResult:
    """Call every term, one after the other, and add up their weighted gradients.

    Args:
        terms: the objective.
        sample: what the generator made.
        mix: balances the mixed terms; without one they are added up as they are.

    Raises:
        RunError: a term returned a gradient of another shape, or one that is not finite.
    """
    results: dict[str, TermResult] = {}
    for one in terms:
        result = one.term(sample)
        if result.grad.shape != sample.x0.shape or result.value.shape != sample.x0.shape[:1]:
            raise RunError(
                f"The term '{one.name}' returned a value of shape {tuple(result.value.shape)} and a gradient of shape "
                f"{tuple(result.grad.shape)}; expected {tuple(sample.x0.shape[:1])} and {tuple(sample.x0.shape)}."
            )
        if not torch.isfinite(result.grad).all():
            raise RunError(f"The gradient of the term '{one.name}' is not finite at step {sample.step}.")
        results[one.name] = result
    # The mix comes once every term has answered, so that a failing one leaves its statistics as they were.
    gradients = {one.name: one.weight * results[one.name].grad.to(sample.x0.dtype) for one in terms}
    added, details = gradients, {}
    mixed = [one for one in terms if one.mixed] if mix is not None else []
    if mix is not None and mixed:
        rest = sum((gradients[one.name] for one in terms if not one.mixed), torch.zeros_like(sample.x0))
        answers, weights = {one.name: results[one.name] for one in mixed}, {one.name: one.weight for one in mixed}
        found = mix(answers, weights, rest, sample.random)
        added, details = {**gradients, **found.added}, dict(found.details)
        gradients = {**gradients, **found.contributions}
    flat = {name: gradient.flatten(1) for name, gradient in gradients.items()}
    return ObjectiveResult(
        grad=torch.stack(list(added.values())).sum(0),
        results=results,
        norms={name: gradient.square().mean().sqrt().item() for name, gradient in flat.items()},
        cosines={
            f"{a}/{b}": nn.functional.cosine_similarity(flat[a], flat[b], dim=1).mean().item()
            for a, b in combinations(flat, 2)
        },
        details=details,
    )


def averaged(results: Sequence[ObjectiveResult]) -> ObjectiveResult:
    """The mean of what the objective said of each step's samples; each step's own values are in `details`."""

    def mean(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: sum(one[name] for one in numbers if name in one) / len(numbers) for name in numbers[-1]}

    terms = {
        name: TermResult(
            torch.stack([one.results[name].value for one in results]).mean(0),
            torch.stack([one.results[name].grad for one in results]).mean(0),
            mean([one.results[name].details for one in results]),
        )
        for name in results[0].results
    }
    by_step = {
        f"step_{number}/{name}": one.value.float().mean().item()
        for number, result in enumerate(results, start=1)
        for name, one in result.results.items()
    }
    return ObjectiveResult(
        torch.stack([one.grad for one in results]).mean(0),
        terms,
        mean([one.norms for one in results]),
        mean([one.cosines for one in results]),
        mean([one.details for one in results]) | by_step,
    )


@dataclass
class Engine:
    """Alternates the assistant's updates and the generator's.

    Attributes:
        generator: what is trained.
        optimizer: over the generator's parameters.
        assistant: learns the score of the generator's samples.
        terms: the objective.
        random: source of every noise and time.
        assistant_rounds: assistant updates for each generator update (K_TA).
        max_grad_norm: the generator's gradient is clipped to this norm; infinity for none.
        precision: autocast dtype of network passes, None for none.
        recompute_generator: run the generator again for the backward pass, so that its activations are not held while
            the terms run. The gradient is the same.
        mix: balances the rewards among the terms.
        supervise: whether the terms look at the `last` step's samples or at `every` step's, where there are several.
    """

    generator: Generator
    optimizer: torch.optim.Optimizer
    assistant: Assistant
    terms: Sequence[WeightedTerm]
    random: torch.Generator
    assistant_rounds: int = 1
    max_grad_norm: float = 1.0
    precision: torch.dtype | None = None
    recompute_generator: bool = False
    mix: RewardMix = field(default_factory=RewardMix)
    supervise: Literal["last", "every"] = "last"

    def draw_noise(self, batch: int) -> Float[Tensor, "batch ..."]:
        """Standard normal noise for a batch, in the dtype of what the generator trains, on `random`'s device."""
        dtype = next(one for one in self.generator.network.parameters() if one.requires_grad).dtype
        return torch.randn(
            (batch, *self.generator.latent_shape), generator=self.random, device=self.random.device, dtype=dtype
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.random.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None
        )

    def _run(self, noise: Tensor, between: Sequence[Tensor], condition: Condition) -> Tensor:
        """The samples of a generator of one step, or of the step that follows the fresh noises."""
        if isinstance(self.generator, FewStepGenerator) and self.generator.steps > 1:
            return run_steps(self.generator, noise, between, condition)
        return self.generator.generate(noise, condition)

    def update_assistant(self, condition: Condition) -> float:
        """One assistant update on fresh samples of the generator; returns its loss.

        Where every step is supervised, they are samples of one step, drawn at random for the batch: the assistant then
        follows the mixture of all steps' samples, as DMD2's does.
        """
        count = step_count(self.generator) - 1
        noise = self.draw_noise(len(condition))
        if self.supervise == "every" and count:
            count = int(torch.randint(count + 1, (), generator=self.random, device=self.random.device))
        between = [self.draw_noise(len(condition)) for _ in range(count)]
        with torch.no_grad(), self._autocast():
            x0 = self._run(noise, between, condition)
        return self.assistant.update(x0, condition, self.random)

    def update_generator(self, condition: Condition, step: int = 0) -> ObjectiveResult:
        """One generator update."""
        noise = self.draw_noise(len(condition))
        between = [self.draw_noise(len(condition)) for _ in range(step_count(self.generator) - 1)]
        if self.supervise == "every" and between:
            result = self._supervise_every(noise, between, condition, step)
        else:
            x0, result = self._evaluate(partial(self._run, noise, between, condition), condition, noise, step)
            self.optimizer.zero_grad(set_to_none=True)
            x0.backward(result.grad / len(x0))
        norm = nn.utils.clip_grad_norm_(self.generator.network.parameters(), self.max_grad_norm)
        if not torch.isfinite(norm):
            raise RunError(f"The generator's gradient is not finite at step {step}.")
        self.optimizer.step()
        return result

    def _evaluate(
        self, make: Callable[[], Tensor], condition: Condition, noise: Tensor, step: int
    ) -> tuple[Tensor, ObjectiveResult]:
        """The samples that `make` makes, with their graph, and what the objective says of them."""
        with self._autocast():
            with torch.set_grad_enabled(not self.recompute_generator):
                x0 = make()
            result = evaluate_objective(self.terms, Sample(x0.detach(), condition, noise, self.random, step), self.mix)
            if self.recompute_generator:
                x0 = make()
        return x0, result

    def _supervise_every(
        self, noise: Tensor, between: Sequence[Tensor], condition: Condition, step: int
    ) -> ObjectiveResult:
        """Leave the mean of all steps' gradients in the parameters."""
        generator, mix, steps = self.generator, copy.deepcopy(self.mix), len(between) + 1
        assert isinstance(generator, FewStepGenerator)
        results: list[ObjectiveResult] = []
        self.optimizer.zero_grad(set_to_none=True)
        x_t = noise
        try:
            for number in range(steps):
                make = partial(generator.read_out, x_t, number, condition)
                x0, result = self._evaluate(make, condition, noise, step)
                x0.backward(result.grad / (len(x0) * steps))
                results.append(result)
                if number + 1 < steps:
                    x_t = generator.noised(x0.detach(), between[number], number + 1)
        except BaseException:  # an earlier step has moved the mix's statistics, and this update will be repeated
            self.mix = mix
            raise
        return averaged(results)

    def update_assistants(self, conditions: Sequence[Condition]) -> float:
        """The assistant's K updates before a generator update, one a batch; returns its mean loss."""
        losses = [self.update_assistant(condition) for condition in conditions]
        return sum(losses) / max(len(losses), 1)

    def step(self, conditions: Sequence[Condition], step: int = 0) -> tuple[ObjectiveResult, float]:
        """K assistant updates and one generator update.

        Args:
            conditions: `assistant_rounds + 1` batches; the last is the generator's.
            step: number of the update, from 0.

        Returns:
            What the objective said, and the assistant's mean loss.
        """
        loss = self.update_assistants(conditions[: self.assistant_rounds])
        return self.update_generator(conditions[-1], step), loss

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from step to step, the generator's own weights aside."""
        terms = {one.name: one.term.state_dict() for one in self.terms if isinstance(one.term, Stateful)}
        return {
            "optimizer": self.optimizer.state_dict(),
            "assistant": self.assistant.state_dict(),
            "mix": self.mix.state_dict(),
            "terms": terms,
            "random": self.random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.assistant.load_state_dict(state["assistant"])
        self.mix.load_state_dict(state.get("mix", {}))
        for one in self.terms:
            if isinstance(one.term, Stateful) and one.name in state.get("terms", {}):
                one.term.load_state_dict(state["terms"][one.name])
        self.random.set_state(state["random"])
