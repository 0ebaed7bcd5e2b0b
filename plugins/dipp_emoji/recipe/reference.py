"""Stages `reference` and `unet_reference`: multi-step diffusions of the latents of captioned compositions."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from torch import Tensor, nn

from dipp_toolkit.training.run_state.checkpoint import checkpoints, newest_whole_checkpoint, save_checkpoint
from dipp_toolkit.utils.precision import native_autocast

from ..captions import TEMPLATES, caption
from .muon import Muon

CAPTION_DROPOUT = 0.1


class Architecture(Protocol):
    """A pipeline that a reference can be.

    Attributes:
        tokenizer: of the captions.
        alphas_cumprod: alpha_t^2 at each of its training times.
    """

    tokenizer: Any
    alphas_cumprod: Tensor

    def build(self) -> nn.ModuleDict:
        """Its networks, untrained."""

    def loss(self, networks: nn.ModuleDict, x_t: Tensor, t: Tensor, x0: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """The weighted error of each sample, `(B,)`."""

    def pipeline(self, networks: nn.ModuleDict, vae: AutoencoderTiny) -> DiffusionPipeline:
        """The networks as a stock pipeline."""


def snr(alphas_cumprod: Tensor, t: Tensor) -> Tensor:
    """Signal-to-noise ratio alpha^2 / sigma^2 at times `t`."""
    return alphas_cumprod[t] / (1 - alphas_cumprod[t])


class CaptionTable:
    """Token ids and masks of every wording of every pair, tokenized once; row 0 is the empty caption."""

    def __init__(self, tokenizer: Any, emoji_count: int, background_count: int, names: int = 2):
        self.shape = (emoji_count, background_count, names, len(TEMPLATES))
        texts = [""] + [
            caption(i, j, name, template)
            for i in range(emoji_count)
            for j in range(background_count)
            for name in range(names)
            for template in range(len(TEMPLATES))
        ]
        encoded = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        self.ids, self.mask = encoded["input_ids"], encoded["attention_mask"]

    def sample(self, emoji: Tensor, background: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids and masks of a random wording for each pair, some dropped for guidance."""
        _, background_count, names, templates = self.shape
        name = torch.randint(names, emoji.shape, generator=generator)
        # Half of the captions use the canonical wording, because prompts do.
        template = torch.randint(2 * templates - 1, emoji.shape, generator=generator) - templates + 1
        row = ((emoji * background_count + background) * names + name) * templates + template.clamp(min=0) + 1
        row = row * (torch.rand(emoji.shape, generator=generator) >= CAPTION_DROPOUT)
        return self.ids[row], self.mask[row]


BLOCKS = ("transformer_blocks", ".block.", "encoder.layers", "resnets", "samplers")
"""In the names of what is repeated: blocks of the denoisers, of T5 and of CLIP."""


def parameter_groups(model: nn.ModuleDict) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices and filters inside blocks (for Muon) and everything else (for AdamW)."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = any(block in name for block in BLOCKS) and "relative_attention" not in name
        chosen = parameter.ndim in (2, 4) and inside and "scale_shift_table" not in name
        (matrices if chosen else others).append(parameter)
    return matrices, others


def warm_cosine(step: int, steps: int, warmup: int = 100, floor: float = 0.02) -> float:
    """Share of the full learning rate: a linear warm-up times a cosine from 1 to `floor`."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    return min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * cosine)


class ReferenceTraining:
    """The training loop's state: networks, optimisers, average and random source; saved and restored whole."""

    def __init__(
        self,
        architecture: Architecture,
        bank: dict[str, Tensor],
        steps: int,
        batch: int,
        rates: tuple[float, float],
        ema: float = 0.9985,
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        self.bank, self.steps, self.batch, self.ema_decay, self.step = bank, steps, batch, ema, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.architecture = architecture
        self.captions = CaptionTable(architecture.tokenizer, 132, 8)
        self.model = architecture.build()
        self.average = [p.detach().clone() for p in self.model.parameters()]
        matrices, others = parameter_groups(self.model)
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=rates[0]),
            torch.optim.AdamW(others, lr=rates[1], betas=(0.9, 0.99), weight_decay=0.0),
        ]
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, partial(warm_cosine, steps=steps))
            for optimizer in self.optimizers
        ]

    def one_step(self) -> float:
        """One update; returns the weighted loss."""
        index = torch.randint(len(self.bank["latents"]), (self.batch,), generator=self.generator)
        x0 = self.bank["latents"][index].float()
        ids, mask = self.captions.sample(self.bank["emoji"][index], self.bank["background"][index], self.generator)
        t = torch.randint(1000, (self.batch,), generator=self.generator)
        squares = self.architecture.alphas_cumprod[t][:, None, None, None]
        x_t = squares.sqrt() * x0 + (1 - squares).sqrt() * torch.randn(x0.shape, generator=self.generator)
        with native_autocast():
            loss = self.architecture.loss(self.model, x_t, t, x0, ids, mask).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.model.parameters()], 1 - decay)
        self.step += 1
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [{"last_epoch": schedule.last_epoch} for schedule in self.schedules],
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.generator.set_state(state["generator"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.last_epoch = saved["last_epoch"]

    def pipeline(self, vae: AutoencoderTiny) -> DiffusionPipeline:
        """The averaged weights as a stock pipeline."""
        networks = self.architecture.build().eval()
        with torch.no_grad():
            for parameter, value in zip(networks.parameters(), self.average, strict=True):
                parameter.copy_(value)
        return self.architecture.pipeline(networks, vae)


def train_reference(
    training: ReferenceTraining, work: Path, save_every: int = 500
) -> Iterator[tuple[int, float, float]]:
    """Train to the end, resuming from the newest whole checkpoint in `work`.

    Yields:
        Step, running loss and seconds since this process began, every 50 steps.
    """
    state, _ = newest_whole_checkpoint(work)
    if state is not None:
        training.load_state_dict(state)
    started, running = time.perf_counter(), 0.0
    while training.step < training.steps:
        loss = training.one_step()
        running = loss if running == 0.0 else 0.98 * running + 0.02 * loss
        if training.step % 50 == 0:
            yield training.step, running, time.perf_counter() - started
        if training.step % save_every == 0 or training.step == training.steps:
            save_checkpoint(work / f"step-{training.step:08d}", training.state_dict())
            for older in checkpoints(work)[:-2]:
                shutil.rmtree(older)
