r"""An adapter that learns pictures by a denoiser's own loss.

$$\min_\phi E_{i, t, \epsilon}\, \lambda(t)\, |\hat x_0^\phi(\alpha_t x_i + \sigma_t \epsilon, t, c_i) - x_i|^2, \qquad
  \lambda(t) = \min(\alpha_t^2/\sigma_t^2, 5) + 0.1,$$

over the pictures' latents $x_i$ and captions $c_i$: the loss by which an assistant learns a generator's samples
(`dipp_toolkit.training.assistant`), with pictures in their place, whatever the network predicts and under its
own schedule. A share of the captions is empty, so that guidance goes on working (Ho and Salimans 2022).

The loop is ours: it is twenty lines around that loss, draws everything from one random source, and goes on to the same
bits from a checkpoint of the toolkit's, for any schedule and prediction type that `dipp_toolkit.diffusion` reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...diffusion.denoiser import Denoiser
from ...diffusion.times import UniformTimes
from ...errors import BadNumbers, RunError
from ...models.weight_sharing import trainable_parameters
from ...prompts.conditions import Conditions
from ...training.assistant import LearnedAssistant
from ...training.ema import WeightAverage
from ...training.optim import make_optimizer
from ...training.run_state.checkpoint import checkpoints, newest_whole_checkpoint, save_checkpoint
from ...utils.paths import remove_below

MOST_BAD = 5
"""Updates in a row without finite numbers after which a training gives up."""


@dataclass(frozen=True)
class AdapterPlan:
    """How an adapter is trained.

    Attributes:
        steps: updates.
        batch: pictures an update.
        learning_rate: Adam's; it falls linearly to 0 over the last half.
        caption_dropout: share of captions that are left empty.
        ema: decay of the average of weights that is kept.
        seed: of every draw.
        precision: autocast dtype of the network's passes, None for none.
    """

    steps: int
    batch: int
    learning_rate: float
    caption_dropout: float = 0.1
    ema: float = 0.98
    seed: int = 0
    precision: torch.dtype | None = None

    def rate_at(self, step: int) -> float:
        """The learning rate of an update, the first being 0."""
        return self.learning_rate * min(1.0, 2 * (self.steps - step) / self.steps)


@dataclass
class AdapterTraining:
    """The training of a denoiser's trainable weights on pictures; saved and restored whole.

    Attributes:
        denoiser: over a network that carries an adapter.
        latents: of the pictures.
        conditions: their captions encoded, one row a picture, and the empty caption in one more, the last.
        plan: how it is trained.
        step: updates that are done.
    """

    denoiser: Denoiser
    latents: Float[Tensor, "pictures ..."]
    conditions: Conditions
    plan: AdapterPlan
    step: int = 0
    learner: LearnedAssistant = field(init=False)
    average: WeightAverage = field(init=False)
    random: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        parameters = trainable_parameters(self.denoiser.network)
        self.learner = LearnedAssistant(
            self.denoiser,
            make_optimizer(parameters, self.plan.learning_rate, "adam"),
            UniformTimes(0.0, 1.0),
            precision=self.plan.precision,
        )
        self.average = WeightAverage(self.denoiser.network, self.plan.ema)
        self.random = torch.Generator(self.latents.device).manual_seed(self.plan.seed)

    def one_step(self) -> float:
        """One update; returns its loss.

        Raises:
            BadNumbers: the loss or its gradient is not finite; no weight has changed then.
        """
        for group in self.learner.optimizer.param_groups:
            group["lr"] = self.plan.rate_at(self.step)
        self.step += 1
        device = self.latents.device
        shape = (self.plan.batch,)
        rows = torch.randint(len(self.latents), shape, generator=self.random, device=device)
        dropped = torch.rand(shape, generator=self.random, device=device) < self.plan.caption_dropout
        captions = torch.where(dropped, len(self.latents), rows)
        loss = self.learner.update(self.latents[rows], self.conditions[captions.tolist()], self.random)
        self.average.update()
        return loss

    def resume(self, work: Path) -> None:
        """Take up the newest whole checkpoint in `work`, where there is one."""
        state, _ = newest_whole_checkpoint(work)
        if state is not None:
            self.load_state_dict(state)

    def run(self, work: Path, save_every: int, told: Callable[[int, float], None], stopped: Callable[[], None]) -> None:
        """Train to the end.

        Args:
            work: folder of the checkpoints.
            save_every: updates between two of them.
            told: hears of each update: its number, from 1, and its loss.
            stopped: called after each update; may raise what ends the training, which is saved then.

        Raises:
            RunError: the loss is not finite several times in a row.
            OSError: a checkpoint cannot be written.
        """
        bad = 0
        while self.step < self.plan.steps:
            try:
                told(self.step + 1, self.one_step())
                bad = 0
            except BadNumbers as error:
                bad += 1
                if bad == MOST_BAD:
                    raise RunError(
                        f"The adapter's loss was not finite in {bad} updates in a row, the last being number "
                        f"{self.step}. Lower its learning rate with --adapter-learning-rate, into another folder."
                    ) from error
            if self.step % save_every == 0 or self.step == self.plan.steps:
                self.save(work)
            try:
                stopped()
            except BaseException:
                self.save(work)
                raise

    def save(self, work: Path) -> None:
        """Write a checkpoint; the two newest stay."""
        save_checkpoint(work / f"step-{self.step:08d}", self.state_dict())
        for older in checkpoints(work)[:-2]:
            remove_below(older, work)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "learner": self.learner.state_dict(),
            "average": self.average.state_dict(),
            "random": self.random.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.learner.load_state_dict(state["learner"])
        self.average.load_state_dict(state["average"])
        self.random.set_state(state["random"])
