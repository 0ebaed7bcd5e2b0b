"""One row of the table: a published name in one format loads, draws, trains and is exported, or says why not."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.published_world import stock_calls as stock
from benchmarks.published_world.hub_cache import HubCache
from benchmarks.published_world.layouts import Layout, model_of
from dipp_cli.actions.generate import GenerateRequest, make_images
from dipp_toolkit import train
from dipp_toolkit.config import make_config
from dipp_toolkit.models.files.folders import family_of, quiet_loading, read_scheduler_config
from dipp_toolkit.models.generator_options import READ_OUT
from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.models.published import PublishedPipeline
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.stock_call import stock_call_of
from dipp_toolkit.models.stock_schedulers import recorded_steps
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.publish import call_arguments
from dipp_toolkit.utils.reproducibility import own_generators

TOLERANCE = 1e-4
"""Of pixels in [0, 1], in float32."""
SEED = 11
STEPS = 5
PROMPTS = (stock.PROMPT, "a yellow flower on a black car", "the face of a cat", "blue sky in the picture")


@dataclass
class Row:
    """What was seen of a layout; `nan` where it did not get so far.

    Attributes:
        stock: largest difference of a pixel between the name's image and the stock pipeline's own call.
        exported: the same between a trained export in plain diffusers and `dipp generate`, by mode.
        trained: by mode, whether five steps of training went through and changed the image.
        problem: why it fails; empty where it does not.
    """

    layout: Layout
    licence: str
    loads: bool = False
    stock: float = float("nan")
    trained: dict[str, bool] = field(default_factory=dict)
    exported: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def holds(self) -> bool:
        """Whether everything that was looked at is as it should be."""
        numbers = [self.stock, *self.exported.values()]
        agree = all(number <= TOLERANCE for number in numbers)  # which `nan` never is
        return not self.problem and self.loads and agree and all(self.trained.values())


def look_at(layout: Layout, folder: Path, modes: tuple[str, ...] = ("full", "lora")) -> Row:
    """Write the layout's repositories, and do with the name what people do.

    Args:
        layout: which.
        folder: for everything that is written.
        modes: in which it is trained.
    """
    model: PublishedPipeline = model_of(layout.kind, layout.name)
    modes = () if getattr(model, "shrink", 1) != 1 else modes  # of its own network there is no generator of that size
    row = Row(layout, model.licence.label)
    cache = HubCache(folder / "home")
    try:
        with cache.used(), quiet_loading(), contextlib.redirect_stderr(io.StringIO()):
            load = layout.write(cache, model)
            shape = loaded(layout).latent_shape
            row.loads = True
            noise = fixed_noise(1, shape, SEED)
            with torch.no_grad():
                expected = layout.call(load(), noise)
            start = drawn(layout.name, layout.options) if layout.kind == "generator" else sampled(layout.name)
            row.stock = largest_difference(start, expected)
            for mode in modes:
                final = trained(layout, folder / mode, mode)
                ours = drawn(str(final.parent))
                row.trained[mode] = largest_difference(ours, start) > TOLERANCE
                row.exported[mode] = largest_difference(ours, plainly_drawn(final, noise))
    except Exception as error:  # noqa: BLE001 -- whatever it is, the row says it
        where = traceback.extract_tb(error.__traceback__)[-1]
        row.problem = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return row


def loaded(layout: Layout) -> Any:
    """The generator or the reference of a layout's name."""
    if layout.kind == "reference":
        return load_reference(layout.name)
    return load_generator(layout.name, **layout.options)


def sampled(reference: str) -> Tensor:
    """What `dipp generate --reference` draws in a few steps."""
    unguided = reference == "flux" or not getattr(model_of("reference", reference), "guided", True)
    steps, guidance = stock.REFERENCE_STEPS, 1.0 if unguided else stock.REFERENCE_GUIDANCE
    request = GenerateRequest(
        reference=reference, prompt=[stock.PROMPT], seed=SEED, steps=steps, guidance=guidance, device="cpu"
    )
    return make_images(request)[1]


def drawn(generator: str, options: Mapping[str, Any] | None = None) -> Tensor:
    """What `dipp generate` draws."""
    _, images, _ = make_images(
        GenerateRequest(generator=generator, prompt=[stock.PROMPT], seed=SEED, device="cpu", options=options or {})
    )
    return images


def trained(layout: Layout, folder: Path, mode: str) -> Path:
    """The export of a short training; its `final/`."""
    folder.mkdir(parents=True)
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    settings: dict[str, Any] = {
        layout.kind: layout.name, "mode": mode, "steps": STEPS, "prompts": str(prompts), "out": str(folder / "run"),
        "rewards": {"colourfulness": 1.0}, "reward_scale": 10.0, "learning_rate": 1e-3, "lora_rank": 2, "batch_size": 2,
        "eval_count": 2, "eval_seeds": 2, "reference_steps": 2, "monitor_every": 0, "diagnose_every": 0,
        "device": "cpu", "precision": "fp32", "frozen_precision": "fp32",
    }  # fmt: skip
    if layout.kind == "reference":  # distilled, as its plugin recommends to read its network out
        recommended = get_registry().find("reference", layout.name).defaults
        settings |= {"rewards": {}} | {key: recommended[key] for key in READ_OUT if key in recommended}
    config = make_config({**settings, **layout.options})
    return train(config).folder / "final"


def plainly_drawn(final: Path, noise: Tensor) -> Tensor:
    """What stock diffusers draws from an exported folder, called as its model card says."""
    pipeline = stock.pipeline_at(final)
    arguments: dict[str, Any] = call_arguments(final, recorded_steps(read_scheduler_config(final)))
    latents = stock_call_of(family_of(final)).given_latents(noise)
    with torch.no_grad():
        drawn = {"generator": own_generators(noise), "output_type": "pt"}
        images: Tensor = pipeline(prompt=stock.PROMPT, latents=latents, **drawn, **arguments).images
    return images


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Of pixels in [0, 1]; infinity where the sizes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max())
