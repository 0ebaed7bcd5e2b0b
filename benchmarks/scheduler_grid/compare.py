"""One cell of the grid: the reference's samples beside stock's, and its schedule beside the scheduler's own."""

from __future__ import annotations

import copy
import functools
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from dipp_toolkit.diffusion.schedules import FlowMatching, VariancePreserving
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.components import load_scheduler
from dipp_toolkit.models.files.folders import quiet_loading
from dipp_toolkit.models.reference import DiffusersReference, check_pipeline_folder
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.utils.reproducibility import own_generators

from .cells import FLOW_PIPELINES, Cell

PROMPTS = ("a red fox on blue", "birthday cake")
ALLOWED = 1e-4
"""Largest difference, absolute where numbers are below 1 and relative to the largest one above."""

NEAREST_TO_INFINITE = 3e-4
"""Largest difference of noise levels. Some schedulers put 2^-24 in the place of the zero that zero terminal SNR has."""

Kind = Literal["equal", "refused", "differs"]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        cell: which.
        kind: `"equal"`, `"refused"`, or `"differs"`, which is a fault.
        difference: of the samples, the largest one; see `ALLOWED`.
        levels: of the training's noise levels and the scheduler's own, the largest one; None where nothing could be
            compared.
        reason: of the refusal, or what is wrong.
    """

    cell: Cell
    kind: Kind
    difference: float = 0.0
    levels: float | None = None
    reason: str = ""


class Twin:
    """A tiny pipeline of one class in memory, as a stock pipeline and as a reference, whose scheduler is exchanged.

    Args:
        pipeline: the pipeline's class.
        folder: where its files are made.
    """

    def __init__(self, pipeline: str, folder: Path):
        self.name, self.folder = pipeline, write_twin(pipeline, folder)
        with quiet_loading():
            self.stock: Any = DiffusionPipeline.from_pretrained(folder)
        self.reference = DiffusersReference.load(str(folder))
        self.condition = self.reference.encode(PROMPTS)
        self.null = self.reference.encode([""])
        self.noise = fixed_noise(len(PROMPTS), self.reference.latent_shape, 0)

    def outcome(self, cell: Cell) -> Outcome:
        """Compare one cell."""
        self.write_scheduler(cell)
        try:
            check_pipeline_folder(self.folder)
            reference = self.as_reference()
            samples = reference.sample(self.condition, self.noise, cell.steps, self._guidance)
        except RequestError as error:
            return self._refusal(cell, str(error))
        try:
            expected, rows = self._stock_samples(cell)
        except Exception as error:  # noqa: BLE001 -- stock's failure is the finding, whatever it is
            return Outcome(cell, "differs", reason=f"stock fails, the reference does not: {error!r}")
        scale = max(1.0, expected.abs().max().item())
        difference = (samples[:rows] - expected).abs().max().item() / scale
        if not difference <= ALLOWED:
            return Outcome(cell, "differs", difference, reason="samples differ")
        levels = self._levels(reference, cell.steps)
        if levels is not None and not levels <= NEAREST_TO_INFINITE:
            return Outcome(cell, "differs", difference, levels, "the schedule differs from the scheduler's own")
        return Outcome(cell, "equal", difference, levels)

    @property
    def _guidance(self) -> float:
        return 1.0 if self.name == "FluxPipeline" else 2.0

    def write_scheduler(self, cell: Cell) -> None:
        """Give the folder the scheduler of a cell."""
        config = {"_class_name": cell.scheduler, **cell.settings}
        (self.folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
        index = self.folder / "model_index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | {"scheduler": ["diffusers", cell.scheduler]}))

    def as_reference(self) -> DiffusersReference:
        """The reference with the folder's scheduler of now."""
        own = self.reference
        made = DiffusersReference(
            self.folder, own.family, own.network, own.vae, load_scheduler(self.folder), own.encoder
        )
        made.keep_null(self.null)
        return made

    def _stock_samples(self, cell: Cell) -> tuple[Tensor, int]:
        with quiet_loading(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = getattr(diffusers, cell.scheduler).from_pretrained(self.folder / "scheduler")
            plain = {"requires_safety_checker": False} if self.name == "StableDiffusionPipeline" else {}
            pipeline = type(self.stock)(**{**self.stock.components, "scheduler": scheduler}, **plain)
        pipeline.set_progress_bar_config(disable=True)
        if self.name == "PixArtAlphaPipeline" and cell.steps == 1:
            scheduler.step = _twice(scheduler.step)
        call: dict[str, Any] = {"num_inference_steps": cell.steps, "guidance_scale": 2.0, "output_type": "latent"}
        prompts, noise = list(PROMPTS), self.noise
        generators = own_generators(noise)
        if self.name in FLOW_PIPELINES:  # these hand no generator to the scheduler: it draws from torch's own
            prompts, noise = prompts[:1], noise[:1]
            torch.manual_seed(generators[0].initial_seed())
        else:
            call["generator"] = generators
        if self.name == "PixArtAlphaPipeline":
            call |= {"use_resolution_binning": False}
        if self.name == "FluxPipeline":
            side = self.noise.shape[-1]
            call |= {"height": 2 * side, "width": 2 * side, "guidance_scale": 3.5}
            noise = pipeline._pack_latents(noise, *noise.shape)
        with torch.no_grad(), quiet_loading():
            latents = pipeline(prompts, latents=noise, **call).images
        if self.name == "FluxPipeline":
            latents = pipeline._unpack_latents(latents, 2 * side, 2 * side, 2)
        return latents, len(prompts)

    def _refusal(self, cell: Cell, reason: str) -> Outcome:
        if cell.scheduler not in reason:
            return Outcome(cell, "differs", reason=f"refused without its name: {reason}")
        if "does not work as its stock pipeline uses it" in reason and "leaves out" not in reason:
            with torch.random.fork_rng():
                try:
                    works = bool(torch.isfinite(self._stock_samples(cell)[0]).all())
                except Exception:  # noqa: BLE001 -- any failure of stock's is what the refusal says
                    works = False
            if works:
                return Outcome(cell, "differs", reason=f"refused, and stock works: {reason}")
        return Outcome(cell, "refused", reason=reason.replace(str(self.folder), self.folder.name))

    def _levels(self, reference: DiffusersReference, steps: int) -> float | None:
        """How far alpha, sigma and the network's time are from what the scheduler's own way of adding noise does."""
        scheduler, schedule = copy.deepcopy(reference.scheduler), reference.denoiser.schedule
        config = scheduler.config
        scheduler.set_timesteps(steps, **({"mu": 0.5} if config.get("use_dynamic_shifting") else {}))
        scaled = getattr(scheduler, "scale_model_input", lambda x, _: x)
        noised = getattr(scheduler, "add_noise", None)
        if noised is None:

            def noised(x0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
                return scheduler.scale_noise(x0, time, noise)

        x0, noise = torch.randn((2, 1, 4, 4, 4), generator=torch.Generator().manual_seed(0)).clamp(-1, 1).unbind(0)
        gaps = []
        fresh = copy.deepcopy(scheduler)
        for index, timestep in enumerate(scheduler.timesteps):
            scheduler.__dict__.update(copy.deepcopy(fresh).__dict__)
            # What SASolverScheduler adds as noise knows nothing of flow sigmas, so that they are asked for themselves.
            if config.get("use_flow_sigmas") and hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
                alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index])
                expected = alpha * x0 + sigma * noise
            else:
                expected = scaled(noised(x0, noise, timestep[None]), timestep)
            if isinstance(schedule, FlowMatching):
                tau = scheduler.sigmas[index].float() if timestep.dtype == torch.int64 else timestep.float() / 1000
                time = tau / (schedule.shift - (schedule.shift - 1) * tau)
            else:
                assert isinstance(schedule, VariancePreserving)
                converted = any(value for name, value in config.items() if name.startswith("use_"))
                converted |= config.get("interpolation_type") == "log_linear"
                if timestep != timestep.round() or converted:
                    continue
                time = timestep.float() / (len(schedule.alphas_cumprod) - 1)
                gaps.append(abs(schedule.network_time(time[None]).item() - timestep.item()))
            alpha, sigma = schedule.alpha(time[None]), schedule.sigma(time[None])
            gaps.append((alpha * x0 + sigma * noise - expected).abs().max().item())
        return max(gaps) if gaps else None


def _twice(step: Any) -> Any:
    """A scheduler's step, for the pipeline that takes the second of its tensors where there is one step in all.

    Where a scheduler returns a single tensor, `PixArtAlphaPipeline` stops; the reference takes the one there is.
    """

    @functools.wraps(step)
    def stepped(*arguments: Any, **options: Any) -> Any:
        outputs = step(*arguments, **options)
        return outputs if len(outputs) > 1 else outputs * 2

    return stepped
