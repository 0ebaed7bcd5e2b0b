"""Stock: one image by plain diffusers beside the toolkit's from the same noise, of generator and reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....models.family import EmbeddedGuidance
from ....models.files.folders import quiet_loading
from ....models.generator import DiffusersGenerator
from ....models.generator_options import READ_OUT
from ....models.published import PublishedGenerator
from ....models.reference import DiffusersReference
from ....models.sampling import fixed_noise
from ....models.sizes import call_size
from ....models.stock_call import stock_call_of
from ....prompts.loading import load_prompts
from ....protocols import texts
from ....training.publish import call_arguments
from ....utils.images import Images
from ....utils.step_settings import USUAL
from ..check import Check, Outcome, judged, skipped
from ..plain_pipeline import plain_image, plain_pipeline
from ..subject import Subject

SEED = 7
STEPS, GUIDANCE = 4, 3.0
"""Of the reference: a few guided steps show what a scheduler does."""
LARGEST = {torch.float32: 2e-3, torch.bfloat16: 0.25, torch.float16: 0.1}
MEAN = {torch.float32: 2e-4, torch.bfloat16: 0.02, torch.float16: 0.01}
"""Differences of a pixel in [0, 1], by the dtype of the weights: the largest, and the mean over an image.

On tiny pipelines in float32 both draw the same to 1e-6; another scheduler or autoencoder differs by some 0.1."""


@dataclass(frozen=True)
class Drawn:
    """An image of the toolkit's, and how plain diffusers draws the same one.

    Attributes:
        what: it is, in words.
        image: in [0, 1], on the CPU.
        noise: that it was drawn from.
        folder: of the stock pipeline.
        call: arguments of its call.
        network: folder of other weights for its network; its own where None.
        scheduler: in place of its own, where there is one.
    """

    what: str
    image: Images
    noise: Tensor
    folder: Path
    call: Mapping[str, Any]
    network: Path | None = None
    scheduler: Any = None


def run(subject: Subject) -> Iterator[Outcome]:
    """A row for the generator and one for the reference."""
    if subject.loaded is None:
        yield skipped("images", "Needs both to be loaded: the check load.")
        return
    if not isinstance(subject.loaded[1], DiffusersReference):
        yield skipped("images", "The reference is not a diffusers pipeline.")
        return
    prompt = texts(load_prompts(subject.config.prompts or ""))[0]
    drawings = list(_ours(subject, prompt))
    subject.free()  # before plain diffusers loads the same again
    for drawn in drawings:
        pipeline = plain_pipeline(drawn.folder, subject.dtype, subject.device, drawn.network, drawn.scheduler)
        theirs = plain_image(pipeline, drawn.folder, prompt, drawn.noise, drawn.call)
        yield _compared(drawn.what, drawn.image, theirs, subject.dtype)
        del pipeline
        subject.free()


@torch.no_grad()
def _ours(subject: Subject, prompt: str) -> Iterator[Drawn]:
    """What the toolkit draws."""
    assert subject.loaded is not None
    generator, reference = subject.loaded
    reference.to(subject.device)
    condition = reference.encode([prompt]).to(subject.device)
    if isinstance(generator, DiffusersGenerator):
        generator.network.to(subject.device).eval()
        if subject.dtype != torch.float32:
            with quiet_loading():  # diffusers says what it would keep in float32, and plain diffusers does the same
                generator.network.to(subject.dtype)
        noise = fixed_noise(1, generator.latent_shape, SEED)
        image = reference.decode(generator.generate(noise.to(subject.device), condition))
        yield _generators(subject, generator, image.float().cpu(), noise, reference.folder)
    noise, steps, guidance = fixed_noise(1, reference.latent_shape, SEED), _steps(reference), _guidance(reference)
    latents = reference.sample(condition, noise.to(subject.device), steps, guidance)
    image = reference.decode(latents).float().cpu()
    call = call_arguments(reference.folder, steps, reference.family)
    if guidance > 1:
        call |= stock_call_of(reference.family).guidance_arguments(guidance, 1)
    if reference.size is not None:
        call |= call_size(reference.folder, reference.family, reference.size)
    elif reference.shrink != 1:
        call |= dict(zip(("height", "width"), reference.image_size, strict=True))
    what = f"reference's image in {steps} steps at guidance {guidance:g}"
    yield Drawn(what, image, noise, reference.folder, call)


def _generators(
    subject: Subject, generator: DiffusersGenerator, image: Images, noise: Tensor, reference: Path
) -> Drawn:
    record = subject.record("generator", subject.generator or "")
    stated = any(name in subject.load_options for name in READ_OUT)
    stated = stated or (isinstance(record, PublishedGenerator) and record.prediction is not None)
    stated = stated or generator.folder == reference  # whose scheduler is for many steps
    own = generator.folder / generator.family.network_name
    network = None if generator.weights.resolve() == own.resolve() else generator.weights
    stated = stated or (generator.steps > 1 and generator.stepping != USUAL)
    scheduler = generator.stock_steps.scheduler if stated else None
    words = "by the scheduler that its read-out means" if stated else "by its folder's own scheduler"
    what = f"generator's image in {generator.steps} step{'s' * (generator.steps != 1)}, {words}"
    call = call_arguments(generator.folder, generator.steps, generator.family)
    if stated:
        call |= generator.stock_steps.arguments
    return Drawn(what, image, noise, generator.folder, call, network, scheduler)


def _guidance(reference: DiffusersReference) -> float:
    """Of the sampled reference; a network that takes its guidance as an input is sampled at its own."""
    return 1.0 if isinstance(reference.family, EmbeddedGuidance) else GUIDANCE


def _steps(reference: DiffusersReference) -> int:
    counts = (reference.scheduler.config.get(name) for name in ("original_inference_steps", "num_train_timesteps"))
    return min([STEPS, *(count for count in counts if count)])


def _compared(what: str, ours: Images, theirs: Images, dtype: torch.dtype) -> Outcome:
    name = str(dtype).removeprefix("torch.")
    expected = f"plain diffusers' to {LARGEST[dtype]:g} in {name}, {MEAN[dtype]:g} on average"
    if ours.shape != theirs.shape:
        sizes = [" x ".join(map(str, image.shape[-2:])) for image in (ours, theirs)]
        why = "The stock pipeline draws another size."
        return Outcome(what, f"{sizes[1]} pixels", f"{sizes[0]} pixels", "fail", why)
    difference = (ours - theirs).detach().abs()
    largest, mean = (float(number) for number in (difference.max(), difference.mean()))
    numbers = {"largest": largest if math.isfinite(largest) else 1.0, "mean": mean if math.isfinite(mean) else 1.0}
    why = (
        "What the toolkit draws is not what plain diffusers draws from the same files and noise: the folder's "
        "scheduler, autoencoder or text encoder is not the one that the toolkit uses with this generator."
    )
    bounds = {"largest": (0.0, LARGEST[dtype]), "mean": (0.0, MEAN[dtype])}
    return judged(what, expected, f"{largest:.2g} at most, {mean:.2g} on average", numbers, bounds, why)


CHECK = Check("stock", 30, run, "one image as plain diffusers draws it")
