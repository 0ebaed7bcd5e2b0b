r"""The engine: everything is a gradient on $x_0$.

    x0 = generator(z, c)                                             # the only graph that is kept
    total = sum(weight * term(sample_of(x0.detach())).grad for term in objective)
    x0.backward(total / batch)                                       # one backward through the generator

Divergences, guidance, differentiable and black-box rewards are alike here, because each returns a value and a
gradient. Every term's graph lives and dies inside its own call, so peak memory is the largest term's, not the sum.

A generator of K steps (see `few_steps`) is supervised in one of two ways. `last`: the objective is that of the last
step's $x_0$, and the one backward goes through all steps. `every`: each step's $x_0^k$ has its own, its input held
fixed, and the gradient is $\frac{1}{K} \sum_k \nabla L(x_0^k) \cdot \partial x_0^k / \partial \theta$; one step's
graph is alive at a time.

With `reuse_samples` the assistant's last update before a generator update learns from the samples of the generator
update before, with their conditions, in place of fresh ones: DMD2's order (arXiv 2405.14867), one pass fewer a step.

A batch may be made of several micro-batches and shared by several processes: gradients are summed over micro-batches
and averaged over processes, and noises and times are those of the whole batch (see `distributed.shared_draws`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.condition import Condition
from ..distributed import Processes
from ..distributed.gradient_average import GradientAverage
from ..distributed.shared_draws import normal, whole_number
from ..errors import BadNumbers
from ..models.activation_offload import ActivationOffload
from ..models.attention import GraphAttention
from ..models.compilation import compiled_passes
from ..models.few_steps import draws_noise, first_input, next_input, run_steps, step_count
from ..models.weight_sharing import trainable_parameters
from ..objective.base import Committing, Sample, Stateful
from ..objective.evaluate import WeightedTerm, evaluate_objective, find_cause
from ..objective.mixing.mix import RewardMix
from ..objective.result import ObjectiveResult, averaged, joined, read_result
from ..protocols import Assistant, FewStepGenerator, Generator
from ..utils.device import read_scalars
from ..utils.precision import at_least_float32, pass_autocast
from ..utils.step_parts import ASSISTANT, BACKWARD, GENERATOR, SAMPLES, step_part
from .assistant import LearnedAssistant
from .guard import Guard
from .micro_batches import MicroBatch, gathered, micro_batches
from .optim import LossScale, clipped_norm, load_optimizer

__all__ = ["Engine", "ObjectiveResult", "WeightedTerm", "evaluate_objective"]


@dataclass(frozen=True)
class KeptSamples:
    """What a generator update has left for the assistant.

    Attributes:
        whole: samples of all passes and processes, in the order of the whole batch.
        condition: this process's rows, as the update was given them.
    """

    whole: Float[Tensor, "batch ..."]
    condition: Condition

    def of_pass(self, number: int, passes: int, processes: Processes) -> Tensor:
        """This process's samples of one of its passes, from 0."""
        size = len(self.condition) // passes
        start = (number * processes.count + processes.rank) * size
        return self.whole[start : start + size]


@dataclass
class Engine:
    """Alternates the assistant's updates and the generator's.

    Attributes:
        generator: what is trained.
        optimizer: over the generator's parameters.
        assistant: learns the score of the generator's samples.
        terms: the objective.
        random: source of every noise and time; in the same state in every process.
        assistant_rounds: assistant updates for each generator update (K_TA).
        max_grad_norm: the generator's gradient is clipped to this norm; infinity for none.
        precision: autocast dtype of network passes, None for none.
        recompute_generator: run the generator again for the backward pass, so that its activations are not held while
            the terms run. The gradient is the same.
        mix: balances the rewards among the terms.
        supervise: whether the terms are evaluated on the `last` step's samples or on `every` step's, of several steps.
        accumulation: micro-batches that make up an update's batch in this process.
        processes: those that share the batch.
        average: of the generator's gradients over the processes.
        guard: decides which updates are made; without one, numbers that are not finite are an error.
        scale: of the generator's gradient, under float16.
        attention: context of the generator's passes with a graph.
        offload: context of its forward passes with a graph.
        reuse_samples: let the assistant's last update learn from the samples of the generator update before.
        kept: those samples; None before the first update, after one that was skipped, and where none are reused.
        before_change: called before anything changes that `state_dict` or the generator's weights hold: they may still
            be being copied.
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
    accumulation: int = 1
    processes: Processes = field(default_factory=Processes)
    average: GradientAverage | None = None
    guard: Guard | None = None
    scale: LossScale = field(default_factory=LossScale)
    attention: GraphAttention = field(default_factory=GraphAttention)
    offload: ActivationOffload = field(default_factory=ActivationOffload)
    reuse_samples: bool = False
    kept: KeptSamples | None = None
    before_change: Callable[[], None] = lambda: None

    def draw_noise(self, batch: int, random: torch.Generator | None = None) -> Float[Tensor, "batch ..."]:
        """Standard normal noise for a pass of `batch` samples, in the dtype of what the generator trains."""
        return normal((batch, *self.generator.latent_shape), random or self.random, self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """Of what the generator trains."""
        return next(parameter for parameter in self.generator.network.parameters() if parameter.requires_grad).dtype

    def _noise(self, micro: MicroBatch) -> Float[Tensor, "batch ..."]:
        """Noise for a pass, of the latents that its condition is for."""
        condition = micro.condition
        if condition.size is None:
            return self.draw_noise(len(condition), micro.random)
        shape = condition.latent_shape(self.generator.latent_shape)
        return normal((len(condition), *shape), micro.random, self._dtype)

    def _autocast(self) -> torch.autocast:
        return pass_autocast(self.random.device.type, self.precision)

    def _micro_batches(self, condition: Condition) -> Iterator[MicroBatch]:
        return micro_batches(condition, self.random, self.accumulation, self.processes)

    def _between(self, micro: MicroBatch, count: int) -> list[Tensor | None]:
        """Fresh noises before so many steps; None for each where the steps are deterministic."""
        if not draws_noise(self.generator):
            return [None] * count
        return [self._noise(micro) for _ in range(count)]

    def _run(self, noise: Tensor, between: Sequence[Tensor | None], condition: Condition) -> Tensor:
        """The samples of a generator of one step, or of the step that follows the fresh noises."""
        if isinstance(self.generator, FewStepGenerator) and self.generator.steps > 1:
            return run_steps(self.generator, noise, between, condition)
        return self.generator.generate(noise, condition)

    @step_part(SAMPLES)
    def _samples(self, micro: MicroBatch) -> Tensor:
        """Fresh samples without a graph. Where every step is supervised, they are samples of one step, drawn at random
        for the batch: the assistant then follows the mixture of all steps' samples, as DMD2's does."""
        count = step_count(self.generator) - 1
        noise = self._noise(micro)
        if self.supervise == "every" and count:
            count = whole_number(count + 1, micro.random)
        between = self._between(micro, count)
        with torch.no_grad(), self._autocast():
            return at_least_float32(self._run(noise, between, micro.condition))

    @property
    def fresh_rounds(self) -> int:
        """The assistant's next updates that need a batch of prompts, before the generator's next."""
        return self.assistant_rounds - (self.assistant_rounds > 0 and self.kept is not None)

    def _assistant_passes(
        self, condition: Condition, kept: KeptSamples | None
    ) -> Iterator[tuple[MicroBatch, Float[Tensor, "batch ..."]]]:
        """The passes of an assistant's update and their samples: fresh ones, or those that were kept."""
        for number, micro in enumerate(self._micro_batches(condition)):
            yield (
                micro,
                self._samples(micro) if kept is None else kept.of_pass(number, self.accumulation, self.processes),
            )

    @compiled_passes()
    @step_part(ASSISTANT)
    def update_assistant(self, condition: Condition, kept: KeptSamples | None = None) -> float:
        """One assistant update on fresh samples of the generator, or on samples that were kept.

        Args:
            condition: this process's rows.
            kept: samples of these conditions.

        Returns:
            Its loss; not finite where the update was skipped.

        Raises:
            BadNumbers: the loss or its gradient is not finite, and nothing guards the run.
        """
        if not isinstance(self.assistant, LearnedAssistant):
            return self._update_own_assistant(self.assistant, condition, kept)
        assistant, losses = self.assistant, []
        assistant.optimizer.zero_grad(set_to_none=True)
        for micro, samples in self._assistant_passes(condition, kept):
            losses.append(assistant.accumulate(samples, micro.condition, micro.random, micro.share, micro.last))
        numbers = read_scalars({"loss": torch.stack(losses).sum(), "norm": assistant.gradient_norm()})
        sound = math.isfinite(numbers["norm"]) or self._on_all(math.isfinite(numbers["loss"]))
        cause = partial(self._assistant_cause, numbers["loss"])
        if self._refused("assistant", numbers["norm"], assistant.scale, cause, sound=sound):
            assistant.optimizer.zero_grad(set_to_none=True)
            return math.nan
        self.before_change()
        assistant.optimizer.step()
        assistant.optimizer.zero_grad(set_to_none=True)
        return numbers["loss"]

    def _update_own_assistant(
        self, assistant: Assistant, condition: Condition, kept: KeptSamples | None = None
    ) -> float:
        """One update of an assistant of somebody's own, which is given the whole batch at once: of all passes and all
        processes, in the order that one pass of one process would have it."""
        samples, conditions = [], []
        for part, own in self._assistant_passes(condition, kept):
            samples.append(self.processes.gather(own))
            conditions.append(gathered(part.condition, self.processes))
        self.before_change()
        return assistant.update(torch.cat(samples), Condition.cat(conditions), self.random)

    @staticmethod
    def _assistant_cause(loss: float) -> str:
        return f"the assistant's {'gradient' if math.isfinite(loss) else 'loss'} is not finite"

    def _on_all(self, holds: bool) -> bool:
        """Whether something holds in every process; all of them ask."""
        return holds if self.processes.alone else not any(self.processes.tell("" if holds else "no"))

    def _refused(
        self, network: str, norm: float, scale: LossScale, cause: Callable[[], str], when: str = "", sound: bool = True
    ) -> str:
        """Why an update is not to be made; empty where it is.

        Args:
            network: whose update it is.
            norm: of its gradient.
            scale: what the gradient was multiplied by on its way.
            cause: finds out why it is not finite.
            when: the step, for a message.
            sound: whether all was finite where the gradient set out. Where it was not, the scale is not to blame:
                halving it would hide a broken reward, or a decoder whose numbers do not fit, for many updates.

        Raises:
            BadNumbers: it is not, and nothing guards the run.
        """
        finite = math.isfinite(norm) and sound
        if sound and scale.overflowed(finite):
            return f"the {network}'s gradient overflowed; its scale is now {scale.scale:g}"
        reason = "" if finite else cause()
        if not self.processes.alone and not finite:
            reason = "; ".join(dict.fromkeys(filter(None, self.processes.tell(reason))))
        if self.guard is None:
            if reason:
                raise BadNumbers(f"{reason[0].upper()}{reason[1:]}{when}.")
            return ""
        reason = reason or self.guard.spiked(network, norm)
        if reason:
            self.guard.skip(reason)
        return reason

    @compiled_passes()
    def update_generator(self, condition: Condition, step: int = 0) -> ObjectiveResult:
        """One generator update.

        Raises:
            BadNumbers: a gradient is not finite, and nothing guards the run.
            RunError: a term failed.
        """
        self.before_change()  # terms may learn as they are evaluated
        self.optimizer.zero_grad(set_to_none=True)
        try:
            result, made = self._gradient(condition, step)
            if not result.skipped:
                # Before the weights move: a term that fails here leaves them as they were.
                for term in self._committing:
                    term.commit()
                self.mix.commit()
        except BaseException as error:  # this update will be repeated or is lost
            self._discard()
            if not isinstance(error, BadNumbers) or self.guard is None:
                raise
            self.guard.skip(_as_part(str(error)))
            self.kept = None
            return ObjectiveResult(torch.zeros(0), {}, {}, {}, {}, skipped=str(error))
        if result.skipped:
            self._discard()
            self.kept = None
        else:
            self.optimizer.step()
            if self.reuse_samples:
                self.kept = KeptSamples(torch.cat([self.processes.gather(samples) for samples in made]), condition)
        self.optimizer.zero_grad(set_to_none=True)  # nothing is held while the assistant learns
        return result

    @property
    def _committing(self) -> list[Committing]:
        return [weighted.term for weighted in self.terms if isinstance(weighted.term, Committing)]

    def _discard(self) -> None:
        for term in self._committing:
            term.discard()
        self.mix.discard()

    def _gradient(self, condition: Condition, step: int) -> tuple[ObjectiveResult, list[Tensor]]:
        """Leave the update's gradient with the parameters; the result says where it is not to be followed.

        Returns:
            The result, and each pass's samples that the assistant may learn from.

        Raises:
            BadNumbers: it is not finite, and nothing guards the run.
            RunError: a term failed.
        """
        results, samples, made = [], [], []
        for micro in self._micro_batches(condition):
            sample, result, reusable = self._generator_pass(micro, step)
            results.append(result)
            samples.append(sample)
            made.append(reusable)
        if self.average is not None:
            self.average.finish()
        parameters = trainable_parameters(self.generator.network)
        self.scale.unscale(parameters)
        norm, result = clipped_norm(parameters, self.max_grad_norm), joined(results)
        # A score may be none while its gradient is fine: the reward is broken all the same, for every process.
        result = replace(result, details={**result.details, "pull": self._pull(result)})
        result, (numbers,) = read_result(result, {"norm": norm, "sound": self.processes.mean(result.sound)})

        def cause() -> str:
            parts = zip(samples, results, strict=True)
            causes = (find_cause(self.terms, sample, part.results) for sample, part in parts)
            return next(filter(None, causes), "the generator's gradient is not finite")

        sound = numbers["sound"] == 1
        reason = self._refused("generator", numbers["norm"], self.scale, cause, f" at step {step}", sound)
        return replace(result, skipped=reason), made

    def _pull(self, result: ObjectiveResult) -> Tensor:
        """Size of the rewards' joint gradient on the samples over the divergences', of all passes and processes; none
        where one of them has no gradient."""
        squares = torch.stack([torch.as_tensor(result.squares[side]) for side in ("rewards", "divergences")])
        rewards, divergences = self.processes.mean(squares).sqrt()
        return torch.where((rewards > 0) & (divergences > 0), rewards / divergences, torch.nan)

    def _generator_pass(self, micro: MicroBatch, step: int) -> tuple[Sample, ObjectiveResult, Tensor]:
        """Add a pass's gradient to those that are there; returns its samples, what the objective says, and the samples
        that the assistant may learn from."""
        noise = self._noise(micro)
        between = self._between(micro, step_count(self.generator) - 1)
        if self.supervise == "every" and between:
            return self._supervise_every(noise, between, micro, step)
        x0, sample, result = self._evaluate(partial(self._run, noise, between, micro.condition), noise, micro, step)
        self._backward(x0, result.grad, micro.share, micro.last)
        return sample, result, sample.x0

    @step_part(BACKWARD)
    def _backward(self, x0: Tensor, grad: Tensor, share: float, last: bool) -> None:
        if self.average is not None and last:
            self.average.arm()
        with self.attention():  # blocks that are recomputed take the kernels they took before
            x0.backward(grad * (share * self.scale.factor / len(x0)))

    @step_part(GENERATOR)
    def _evaluate(
        self, make: Callable[[], Tensor], noise: Tensor, micro: MicroBatch, step: int, readout: int = 0
    ) -> tuple[Tensor, Sample, ObjectiveResult]:
        """The samples that `make` makes, with their graph, and what the objective says of them.

        They are float32 here, or wider, whatever the generator's own dtype: times, noises and gradients take it from
        them. The gradient flows back in the generator's.
        """
        with self._autocast():
            with torch.set_grad_enabled(not self.recompute_generator), self.attention(), self.offload():
                x0 = at_least_float32(make())
            sample = Sample(x0.detach(), micro.condition, noise.to(x0.dtype), micro.random, step, readout)
            result = evaluate_objective(self.terms, sample, self.mix, self.processes)
            if self.recompute_generator:
                with self.attention(), self.offload():
                    x0 = at_least_float32(make())
        return x0, sample, result

    def _supervise_every(
        self, noise: Tensor, between: Sequence[Tensor | None], micro: MicroBatch, step: int
    ) -> tuple[Sample, ObjectiveResult, Tensor]:
        """Add the mean of all steps' gradients to those that are there.

        The assistant may learn from the samples of one step, drawn at random for the whole batch, as among fresh ones.
        """
        generator, steps = self.generator, len(between) + 1
        assert isinstance(generator, FewStepGenerator)
        results, made = [], []
        chosen = whole_number(steps, micro.random) if self.reuse_samples else steps - 1
        x_t = first_input(generator, noise)
        for number in range(steps):
            make = partial(generator.read_out, x_t, number, micro.condition)
            x0, sample, result = self._evaluate(make, noise, micro, step, number)
            self._backward(x0, result.grad, micro.share / steps, micro.last and number + 1 == steps)
            results.append(result)
            made.append(sample.x0)
            if number + 1 < steps:
                x_t = next_input(generator, x_t, x0.detach(), between[number], number + 1)
        return sample, averaged(results), made[chosen]

    def update_assistants(self, conditions: Sequence[Condition]) -> float:
        """The assistant's K updates before a generator update; returns the mean loss of those made.

        Args:
            conditions: `fresh_rounds` batches. Where there are samples of the generator update before, the last update
                is on these.
        """
        losses = [self.update_assistant(condition) for condition in conditions]
        if self.fresh_rounds < self.assistant_rounds and self.kept is not None:
            losses.append(self.update_assistant(self.kept.condition, self.kept))
        made = [loss for loss in losses if math.isfinite(loss)]
        return sum(made) / len(made) if made else (math.nan if losses else 0.0)

    def step(self, conditions: Sequence[Condition], step: int = 0) -> tuple[ObjectiveResult, float]:
        """K assistant updates and one generator update.

        Args:
            conditions: `fresh_rounds + 1` batches; the last is the generator's.
            step: number of the update, from 0.

        Returns:
            What the objective said, and the assistant's mean loss.
        """
        loss = self.update_assistants(conditions[: self.fresh_rounds])
        return self.update_generator(conditions[-1], step), loss

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from step to step, the generator's own weights aside."""
        stateful = {weighted.name: weighted.term for weighted in self.terms if isinstance(weighted.term, Stateful)}
        return {
            "optimizer": self.optimizer.state_dict(),
            "assistant": self.assistant.state_dict(),
            "mix": self.mix.state_dict(),
            "terms": {name: term.state_dict() for name, term in stateful.items()},
            "random": self.random.get_state(),
            "scale": self.scale.state_dict(),
            "guard": {} if self.guard is None else self.guard.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        load_optimizer(self.optimizer, state["optimizer"])
        self.assistant.load_state_dict(state["assistant"])
        self.mix.load_state_dict(state["mix"])
        for weighted in self.terms:
            if isinstance(weighted.term, Stateful) and weighted.name in state["terms"]:
                weighted.term.load_state_dict(state["terms"][weighted.name])
        self.random.set_state(state["random"])
        self.scale.load_state_dict(state["scale"])
        if self.guard is not None:
            self.guard.load_state_dict(state.get("guard", {}))


def _as_part(sentence: str) -> str:
    """A sentence as part of another."""
    return (sentence[:1].lower() + sentence[1:]).removesuffix(".")
