"""The same step in the order of DMD2's training loop (Yin et al. 2024, arXiv 2405.14867), without its GAN.

Written from what is publicly known of that loop, as fast as it can be made without changing it; unlike `baseline.py` it
leaves nothing out that saves time:

- One batch of prompts a step. The generator's pass with its graph comes first; the fake score is then trained on its
  samples, held fixed. There is no pass of the generator for the fake score alone.
- Both guidance branches of the reference are one batch; the fake score and the reference run without a graph.
- Fused Adam, gradients set to None, clipping and the weight average by one call for all weights, and one look at the
  numbers of a step.
- Prompts are encoded before the training, and rewards that remember what they have read may be handed in as they are.
- Rewards are added to the loss: the decoder runs forward and backward once, however many there are.

(DMD2's own trainer encodes the prompts in every step and updates the generator in every fifth; neither is done here.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .baseline import Draws, NaiveTrainer, Score


class DMD2Trainer(NaiveTrainer):
    """Trains a one-step generator by distribution matching and rewards; the arguments are `NaiveTrainer`'s.

    Args:
        prompts: every prompt that will come, which are encoded once.
        ema: decay of the weight average.
        clip: largest norm of either gradient.
        others: see `NaiveTrainer`.
    """

    def __init__(
        self,
        generator: Path,
        reference: Path,
        rewards: Sequence[tuple[Score, float]],
        prompts: Sequence[str],
        *,
        ema: float = 0.98,
        clip: float = 1.0,
        **others: Any,
    ):
        super().__init__(generator, reference, rewards, **others)
        self.ema, self.clip = ema, clip
        self.rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        self.embeddings, self.masks = self.encode(list(self.rows))
        self.trained = list(self.generator.parameters())
        self.optimizer, self.fake_optimizer = (
            torch.optim.Adam(network.parameters(), plain.defaults["lr"], betas=(0.0, 0.999), fused=True)
            for network, plain in ((self.generator, self.optimizer), (self.fake, self.fake_optimizer))
        )
        self.averaged: list[Tensor] = list(self.average.parameters())

    def encoded(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings and masks of prompts that were given to the trainer."""
        rows = [self.rows[prompt] for prompt in prompts]
        return self.embeddings[rows], self.masks[rows]

    def fake_loss_on(self, x0: Tensor, prompt: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        """Denoising score matching on samples that are there."""
        with self.autocast(), self.graph_attention():
            _, alpha, sigma = self.coefficients(draws.time)
            error = self.denoise(self.fake, alpha * x0 + sigma * draws.noise, draws.time, prompt) - x0
        weight = (alpha / sigma).square().clamp(max=5) + 0.1
        return (weight.flatten() * error.square().flatten(1).mean(1)).mean()

    def matching_loss(
        self, prompts: Sequence[str], prompt: tuple[Tensor, Tensor], draws: Draws
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The generator's loss, its samples, and numbers for the log."""
        with self.autocast():
            with self.graph_attention():
                x0 = self.generate(draws.pure, prompt)
            with torch.no_grad():
                _, alpha, sigma = self.coefficients(draws.time)
                x_t = alpha * x0 + sigma * draws.noise
                fake, real = self.denoise(self.fake, x_t, draws.time, prompt), self.guided(x_t, draws.time, prompt)
                size = (x0 - real).abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
                target = x0 - (fake - real) / size
            loss = 0.5 * (x0 - target).square().sum() / len(x0)
            log = [loss.detach()]
            if self.rewards:
                images = self.decode(x0)
        for reward, weight in self.rewards:
            scores = reward(self.clamped(images), prompts)
            loss = loss - weight * scores.mean()
            log.append(scores.detach().mean())
        return loss, x0.detach(), log

    def guided(self, x_t: Tensor, time: Tensor, prompt: tuple[Tensor, Tensor]) -> Tensor:
        """The reference's denoised sample under guidance, both branches in one batch."""
        if self.guidance == 1:
            return self.denoise(self.real, x_t, time, prompt)
        empty = (tensor.expand(len(x_t), *tensor.shape[1:]) for tensor in self.empty)
        both = tuple(torch.cat(pair) for pair in zip(prompt, empty, strict=True))
        given, without = self.denoise(
            self.real, torch.cat([x_t, x_t]), torch.cat([time, time]), (both[0], both[1])
        ).chunk(2)
        return without + self.guidance * (given - without)

    def step(self, prompts: Sequence[Sequence[str]], draws: Sequence[Draws] | None = None) -> dict[str, float]:
        """An update of the generator, then one of the fake score on its samples.

        Args:
            prompts: of the one batch, the last; others are ignored.
            draws: the generator's, then the fake score's.
        """
        batch = prompts[-1]
        prompt = self.encoded(batch)
        first, second = draws or (self.draw(len(batch)), self.draw(len(batch)))
        loss, x0, log = self.matching_loss(batch, prompt, first)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        fake_loss = self.fake_loss_on(x0, prompt, second)
        fake_loss.backward()
        fake_norm = torch.nn.utils.clip_grad_norm_(self.fake.parameters(), self.clip)
        self.fake_optimizer.step()
        self.fake_optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, list[Tensor](self.trained), 1 - self.ema)
        numbers = torch.stack([loss.detach(), fake_loss.detach(), norm, fake_norm, *log]).tolist()
        names = ["loss", "loss_fake", "norm", "fake_norm", "loss_dm"]
        names += [f"reward_{number}" for number in range(len(self.rewards))]
        return dict(zip(names, numbers, strict=True))
