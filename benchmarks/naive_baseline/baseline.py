"""DI++ with three networks and one graph, written the way public DMD-style training code is.

It computes what the toolkit's step computes and nothing else (tests/benchmarks/test_naive_baseline.py holds the
generator's gradients against each other). The choices that cost something, and where they come from:

- Generator, fake-score network and reference are three whole copies in float32, as in DMD2's training code; a fourth
  is the weight average. (DMD2 keeps its reference in bfloat16 where it trains in it.)
- The text encoder stays, and encodes the prompts of every batch when it is trained on, as in DMD2; the empty prompt is
  encoded once, as there.
- The generator's graph is held while both score networks, the decoder and every reward run, and the rewards' graphs
  hang on it: one loss, one backward pass, as in ReFL's and AlignProp's code. The decoder runs once for all rewards.
- Guidance is two passes of the reference, one after the other. (DMD2 makes them one batch.)
- Rewards read their prompts anew in every step, as reward packages do when they are called with texts.
- The weight average is a loop over parameters, as in DMD2; numbers for the log are read by `.item()` one at a time.

What would have made it slower is left out: the fake score is evaluated under autocast (DMD2 evaluates it in float32),
and conversions to the denoised sample are in float32 (there, in float64).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Score = Callable[[Tensor, Sequence[str]], Tensor]
"""A reward: images in [0, 1] and their prompts to scores, `(batch,)`."""


@dataclass
class Draws:
    """The random numbers of one update: pure noise, and the time in [0, 1] and the noise it is looked at with."""

    pure: Tensor
    time: Tensor
    noise: Tensor


class NaiveTrainer:
    """Trains a one-step generator by DI++ under DMD's weighting.

    Args:
        generator: pipeline folder whose transformer is trained.
        reference: pipeline folder of everything else.
        rewards: each with its weight.
        fake: folder of the fake-score network's first weights; a copy of the reference's where None.
        readout: time in [0, 1] at which the generator is read.
        guidance: scale of the reference's classifier-free guidance.
        learning_rate: the generator's.
        fake_learning_rate: the fake-score network's.
        precision: autocast dtype, None for none.
        device: where everything is.
        graph_attention: context of forward passes that keep a graph; torch chooses their kernels unless said.
    """

    def __init__(
        self,
        generator: Path,
        reference: Path,
        rewards: Sequence[tuple[Score, float]],
        *,
        fake: Path | None = None,
        readout: float = 1.0,
        guidance: float = 1.5,
        learning_rate: float = 2e-4,
        fake_learning_rate: float = 4e-4,
        precision: torch.dtype | None = torch.bfloat16,
        device: torch.device | str = "cpu",
        graph_attention: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        from diffusers import DDPMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

        self.device, self.precision, self.guidance, self.readout = torch.device(device), precision, guidance, readout
        self.rewards, self.graph_attention = rewards, graph_attention
        pipeline = PixArtAlphaPipeline.from_pretrained(reference).to(self.device)
        self.tokenizer, self.text_encoder, self.vae = pipeline.tokenizer, pipeline.text_encoder, pipeline.vae
        self.real = pipeline.transformer
        for network in (self.text_encoder, self.vae, self.real):
            network.eval().requires_grad_(False)
        self.generator = PixArtTransformer2DModel.from_pretrained(generator, subfolder="transformer").to(self.device)
        self.fake = copy.deepcopy(self.real)
        if fake is not None:
            self.fake = PixArtTransformer2DModel.from_pretrained(fake).to(self.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.generator.train().requires_grad_(True)
        self.fake.train().requires_grad_(True)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), learning_rate, betas=(0.0, 0.999))
        self.fake_optimizer = torch.optim.Adam(self.fake.parameters(), fake_learning_rate, betas=(0.0, 0.999))
        config = {key: pipeline.scheduler.config[key] for key in ("beta_start", "beta_end", "beta_schedule")}
        self.alphas_cumprod = DDPMScheduler(**config).alphas_cumprod.to(self.device)
        self.prediction = pipeline.scheduler.config.prediction_type
        self.empty = self.encode([""])

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings and masks, through the text encoder."""
        tokens = self.tokenizer(
            [prompt.lower().strip() for prompt in prompts], padding="max_length",
            max_length=min(120, self.tokenizer.model_max_length), truncation=True, return_tensors="pt",
        ).to(self.device)  # fmt: skip
        return self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0], tokens.attention_mask

    def coefficients(self, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The training timestep of times in [0, 1], and alpha and sigma, `(batch, 1, 1, 1)`."""
        step = (time * (len(self.alphas_cumprod) - 1)).round().long()
        squared = self.alphas_cumprod[step][:, None, None, None]
        return step, squared.sqrt(), (1 - squared).sqrt()

    def denoise(self, network: Any, x: Tensor, time: Tensor, prompt: tuple[Tensor, Tensor]) -> Tensor:
        """The network's denoised sample, float32."""
        step, alpha, sigma = self.coefficients(time)
        output = network(
            x, encoder_hidden_states=prompt[0], encoder_attention_mask=prompt[1], timestep=step,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None}, return_dict=False,
        )[0]  # fmt: skip
        output = output.chunk(2, dim=1)[0] if output.shape[1] == 2 * x.shape[1] else output
        return output.float() if self.prediction == "sample" else (x - sigma * output.float()) / alpha

    def generate(self, pure: Tensor, prompt: tuple[Tensor, Tensor]) -> Tensor:
        """The generator's samples."""
        return self.denoise(self.generator, pure, torch.full((len(pure),), self.readout, device=self.device), prompt)

    def decode(self, latents: Tensor) -> Tensor:
        """Images, not clamped yet."""
        pixels: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0].float()
        return pixels * 0.5 + 0.5

    @staticmethod
    def clamped(images: Tensor) -> Tensor:
        """Images in [0, 1] for one reward; a loss's gradient passes unless it pushes a pixel beyond a margin."""
        seen = images.view_as(images)
        above, below = images.detach() > 1.1, images.detach() < -0.1
        if seen.requires_grad:
            seen.register_hook(lambda slope: slope.masked_fill((above & (slope < 0)) | (below & (slope > 0)), 0))
        return seen.clamp(0, 1).detach() + (seen - seen.detach())

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None)

    def draw(self, batch: int) -> Draws:
        """Random numbers of one update."""
        shape = (batch, self.generator.config.in_channels, *[self.generator.config.sample_size] * 2)
        pure, noise = torch.randn(shape, device=self.device), torch.randn(shape, device=self.device)
        return Draws(pure, 0.02 + 0.96 * torch.rand(batch, device=self.device), noise)

    def fake_loss(self, prompts: Sequence[str], draws: Draws) -> Tensor:
        """Denoising score matching on fresh samples of the generator."""
        prompt = self.encode(prompts)
        with self.autocast():
            with torch.no_grad():
                x0 = self.generate(draws.pure, prompt)
            _, alpha, sigma = self.coefficients(draws.time)
            x_t = alpha * x0 + sigma * draws.noise
            with self.graph_attention():
                error = (self.denoise(self.fake, x_t, draws.time, prompt) - x0).square().flatten(1).mean(1)
        weight = (alpha / sigma).square().clamp(max=5) + 0.1
        return (weight.flatten() * error).mean()

    def generator_loss(self, prompts: Sequence[str], draws: Draws) -> tuple[Tensor, dict[str, float]]:
        """Distribution matching and every reward, as one loss."""
        prompt = self.encode(prompts)
        empty = tuple(tensor.expand(len(prompts), *tensor.shape[1:]) for tensor in self.empty)
        with self.autocast():
            with self.graph_attention():
                x0 = self.generate(draws.pure, prompt)
            with torch.no_grad():
                _, alpha, sigma = self.coefficients(draws.time)
                x_t = alpha * x0 + sigma * draws.noise
                fake = self.denoise(self.fake, x_t, draws.time, prompt)
                given = self.denoise(self.real, x_t, draws.time, prompt)
                real = given
                if self.guidance != 1:
                    without = self.denoise(self.real, x_t, draws.time, (empty[0], empty[1]))
                    real = without + self.guidance * (given - without)
                size = (x0 - real).abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
                gradient = (fake - real) / size
            matching = 0.5 * F.mse_loss(x0, (x0 - gradient).detach(), reduction="sum") / len(x0)
            images = self.decode(x0)
        loss, log = matching, {"loss_dm": matching.item(), "gradient_norm": gradient.norm().item()}
        for number, (reward, weight) in enumerate(self.rewards):
            scores = reward(self.clamped(images), prompts)
            loss = loss - weight * scores.mean()
            log[f"reward_{number}"] = scores.mean().item()
        return loss, log

    def step(self, prompts: Sequence[Sequence[str]], draws: Sequence[Draws] | None = None) -> dict[str, float]:
        """An update of the fake-score network, then one of the generator; each has its own batch of prompts."""
        draws = draws or [self.draw(len(batch)) for batch in prompts]
        loss = self.fake_loss(prompts[0], draws[0])
        loss.backward()
        fake_norm = torch.nn.utils.clip_grad_norm_(self.fake.parameters(), 1.0)
        self.fake_optimizer.step()
        self.fake_optimizer.zero_grad()
        generator_loss, log = self.generator_loss(prompts[1], draws[1])
        generator_loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                kept.mul_(0.98).add_(new, alpha=0.02)
        return log | {"loss_fake": loss.item(), "fake_norm": fake_norm.item(), "norm": norm.item()}
