"""How a stock pipeline drives its scheduler, which is how a reference is sampled.

The pipeline classes differ in small things that change every image: which of them shift by resolution and with which
numbers, whether the first step is looked up by its time, what they pass to `step`. A family declares it as
`stock_call`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.scheduler_classes import another_scheduler
from ..diffusion.schedules import dynamic_mu
from ..errors import RequestError, first_line
from ..utils.reproducibility import own_generators
from .family import OwnStockCall
from .files.folders import quiet_loading

PROBED_STEPS = 4
"""Steps of a check without a network, where their number is not given and the scheduler has as many."""

LARGEST_UNSCALED = 1.5
"""Standard deviation of pure noise in a scheduler that scales nothing: 1, or hardly more. Others begin at 14 or 80."""


@dataclass(frozen=True)
class StockCall:
    """What the `__call__` of a pipeline class does with its scheduler.

    Attributes:
        scales: whether pure noise is multiplied by `init_noise_sigma`, and what the network is given goes through
            `scale_model_input`; None for where the scheduler has them.
        shift: when `set_timesteps` is given `mu`, the shift by resolution: never, where the scheduler says
            `use_dynamic_shifting`, or always.
        most_shift: what the class takes for `max_shift` where the scheduler's configuration says none.
        even_sigmas: whether `set_timesteps` is given the sigmas 1, ..., 1/n, unless the scheduler makes flow sigmas of
            its own.
        eta: what `step` is given as `eta` where it takes one; None for its own default.
        begins_at_zero: whether the first step is the first one for certain, and not looked up by its time.
        single_step_output: which of the tensors that `step` returns is the sample, where there is one step in all.
        patch: side of the patch of a latent that is one token, where the scheduler sees tokens, `(batch, tokens,
            patch**2 * channels)`; None where it sees images.
        guidance_argument: of the pipeline's call: the guidance that takes a second pass with the empty prompt.
        second_pass: whether guidance above 1 takes that pass; not where guidance is distilled into the network, and the
            pipeline passes over what it is asked for.
        consistency: whether it drives an `LCMScheduler` and no other, in one step too.
    """

    scales: bool | None = True
    shift: Literal["never", "dynamic", "always"] = "never"
    most_shift: float = 1.15
    even_sigmas: bool = False
    eta: float | None = 0.0
    begins_at_zero: bool = False
    single_step_output: int = 0
    patch: int | None = None
    guidance_argument: str = "guidance_scale"
    second_pass: bool = True
    consistency: bool = False

    def guided(self, given: Tensor, empty: Tensor, guidance: float) -> Tensor:
        """What is made of the network's two passes.

        Args:
            given: the family's `forward` with the prompt.
            empty: with the empty one.
            guidance: 1 for none.
        """
        return empty + guidance * (given - empty)

    def given_latents(self, noise: Tensor) -> Tensor:
        """Pure noise as the pipeline's call takes it in its argument `latents`: most take what their scheduler sees."""
        return self._pack(noise)

    def stock_guidance(self, guidance: float) -> float:
        """The guidance, 1 for none, in the words of the pipeline's call."""
        return guidance

    def guidance_arguments(self, guidance: float, prompts: int) -> dict[str, Any]:
        """Arguments of the pipeline's call with which it is guided, against the empty prompt.

        Args:
            guidance: 1 for none.
            prompts: how many are drawn in one call.
        """
        return {self.guidance_argument: self.stock_guidance(guidance)}

    def mu(self, config: Mapping[str, Any], latent_shape: tuple[int, ...], steps: int) -> float:
        """The shift by resolution.

        Args:
            config: of the scheduler, as `understood`.
            latent_shape: of one latent.
            steps: how many are taken.
        """
        return dynamic_mu(config, latent_shape)

    def prepare(self, scheduler: Any) -> None:
        """What the pipeline does to its scheduler before it sets the times; this one is a copy."""

    def time_arguments(self, steps: int) -> dict[str, Any]:
        """What `set_timesteps` is given besides, for so many steps."""
        return {}

    def times(self, scheduler: Any) -> Tensor:
        """The times of the steps, of a scheduler whose times are set."""
        times: Tensor = scheduler.timesteps
        return times

    def with_times(
        self, scheduler: Any, steps: int, latent_shape: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> Any:
        """A copy of a scheduler whose times are set as the pipeline sets them.

        Args:
            scheduler: the pipeline's.
            steps: how many.
            latent_shape: of one latent, which decides a shift by resolution.
            device: of the times.

        Raises:
            RequestError: the stock pipeline would fail with this scheduler.
        """
        scheduler = copy.deepcopy(scheduler)
        self.prepare(scheduler)
        self._set_timesteps(scheduler, steps, latent_shape, torch.device(device))
        return scheduler

    def understood(self, scheduler: Any) -> dict[str, Any]:
        """The configuration of a scheduler as far as this pipeline class heeds it, `_class_name` included."""
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        if self.shift != "never":
            return {"max_shift": self.most_shift, **config}
        return {**config, "use_dynamic_shifting": False} if config.get("use_dynamic_shifting") else config

    def sample(
        self,
        scheduler: Any,
        noise: Float[Tensor, "batch channels height width"],
        steps: int,
        output_of: Callable[[Tensor, Tensor], Tensor],
        latent_shape: tuple[int, ...],
        generators: list[torch.Generator] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """The denoising loop of the stock pipeline.

        A scheduler that draws noise in its steps is given a random generator for each image, which follows from the
        image's own initial noise (see `own_generators`). It is what the stock pipeline draws with
        `generator=own_generators(noise)`, or, where it hands no generator on (Stable Diffusion 3, Flux), for one image
        after `torch.manual_seed(own_generators(noise)[0].initial_seed())`.

        Args:
            scheduler: the pipeline's; it is left as it is.
            noise: standard normal.
            steps: how many.
            output_of: the network's output, guidance included, for `x_t` like `noise` and a timestep.
            latent_shape: of one latent, which decides a shift by resolution.
            generators: one for each image; `own_generators(noise)` where None.

        Returns:
            Latents like `noise`.

        Raises:
            RequestError: the stock pipeline would fail with this scheduler, or its steps are no numbers.
        """
        scheduler = self.with_times(scheduler, steps, latent_shape, noise.device)
        options = _options(scheduler.step, generator=generators or own_generators(noise))
        if self.eta is not None:
            options |= _options(scheduler.step, eta=self.eta)
        scales = self.scales if self.scales is not None else hasattr(scheduler, "init_noise_sigma")
        if scales and not hasattr(scheduler, "init_noise_sigma"):
            raise self._refused(scheduler, steps, "it has no init_noise_sigma")
        if not scales and getattr(scheduler, "init_noise_sigma", 1.0) > LARGEST_UNSCALED:
            raise self._refused(scheduler, steps, "its samples are to be scaled, which this pipeline class leaves out")
        latents = noise * scheduler.init_noise_sigma if scales else noise
        for timestep in self.times(scheduler):
            x_t = scheduler.scale_model_input(latents, timestep) if scales else latents
            output = self._pack(output_of(x_t, timestep))
            try:
                outputs = scheduler.step(output, timestep, self._pack(latents), **options, return_dict=False)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a scheduler makes of settings that contradict each other
                raise self._refused(scheduler, steps, first_line(error)) from error
            choice = min(self.single_step_output, len(outputs) - 1) if steps == 1 else 0
            latents = self._unpack(outputs[choice], noise)
        return latents

    def check(self, scheduler: Any, latent_shape: tuple[int, ...], steps: int | None = None) -> None:
        """Refuse a scheduler that the stock pipeline would fail with, by its steps on a few numbers without a network.

        Args:
            scheduler: the pipeline's.
            latent_shape: of one latent.
            steps: how many; a few where None.

        Raises:
            RequestError: see `sample`; or the samples are no numbers.
        """
        noise = torch.randn((1, latent_shape[0], 4, 4), generator=torch.Generator().manual_seed(0))
        steps = steps or _few_steps(scheduler)
        latents = self.sample(scheduler, noise, steps, lambda x_t, _: x_t / 2, latent_shape)
        if not torch.isfinite(latents).all():
            raise self._refused(scheduler, steps, "its samples are no numbers (NaN or infinite)")

    def draws_noise(self, scheduler: Any, latent_shape: tuple[int, ...]) -> bool:
        """Whether a scheduler draws noise in its steps, as ancestral ones and those of stochastic equations do.

        Args:
            scheduler: the pipeline's.
            latent_shape: of one latent.
        """
        noise = torch.zeros((1, latent_shape[0], 4, 4))
        generators = own_generators(noise)
        before = generators[0].get_state()
        self.sample(scheduler, noise, _few_steps(scheduler), lambda x_t, _: x_t / 2, latent_shape, generators)
        return not torch.equal(before, generators[0].get_state())

    def _set_timesteps(self, scheduler: Any, steps: int, latent_shape: tuple[int, ...], device: torch.device) -> None:
        config, settings = scheduler.config, dict[str, Any]()
        if self.even_sigmas and not config.get("use_flow_sigmas"):
            settings["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        else:
            settings["num_inference_steps"] = steps
        if self.shift == "always" or (self.shift == "dynamic" and config.get("use_dynamic_shifting")):
            settings["mu"] = self.mu(self.understood(scheduler), latent_shape, steps)
        settings |= self.time_arguments(steps)
        missing = settings.keys() - _options(scheduler.set_timesteps, **settings).keys()
        if missing:
            raise self._refused(scheduler, steps, f"it cannot be told {' and '.join(sorted(missing))}")
        try:
            with quiet_loading():  # some warn how they correct their configuration
                scheduler.set_timesteps(device=device, **settings)
        except AssertionError as error:
            reason = "it is told a shift by resolution, for which use_dynamic_shifting has to be true and exponential"
            raise self._refused(scheduler, steps, str(error) or reason) from error
        except Exception as error:  # as above
            raise self._refused(scheduler, steps, first_line(error)) from error
        levels = torch.as_tensor(getattr(scheduler, "sigmas", scheduler.timesteps))
        if not (torch.isfinite(scheduler.timesteps).all() and torch.isfinite(levels).all()):
            raise self._refused(scheduler, steps, "its times are no numbers")
        if self.begins_at_zero and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)

    def _refused(self, scheduler: Any, steps: int, reason: str) -> RequestError:
        advice = f"Take other settings, or another number of steps. {another_scheduler(flow=self.shift != 'never')}"
        return RequestError(
            f"The scheduler {type(scheduler).__name__} does not work as its stock pipeline uses it, in {steps} "
            f"step{'' if steps == 1 else 's'}: {reason}. {advice}"
        )

    def _pack(self, latents: Tensor) -> Tensor:
        return latents if self.patch is None else pack(latents, self.patch)

    def _unpack(self, tokens: Tensor, like: Tensor) -> Tensor:
        return tokens if self.patch is None else unpack(tokens, like.shape, self.patch)


def pack(
    latents: Float[Tensor, "batch channels height width"], patch: int = 2
) -> Float[Tensor, "batch tokens patch_channels"]:
    """Latents as tokens, each a square patch of them, whose side divides height and width."""
    batch, channels, height, width = latents.shape
    rows, columns = height // patch, width // patch
    patches = latents.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, rows * columns, channels * patch**2)


def unpack(tokens: Float[Tensor, "batch tokens patch_channels"], shape: Sequence[int], patch: int = 2) -> Tensor:
    """The latents of a shape `(batch, channels, height, width)` that `pack` made these tokens of."""
    batch, channels, height, width = shape
    patches = tokens.reshape(batch, height // patch, width // patch, channels, patch, patch)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)


def stock_call_of(family: Any) -> StockCall:
    """A family's `stock_call`; what most pipelines do where it has none."""
    return family.stock_call if isinstance(family, OwnStockCall) else StockCall(scales=None, shift="dynamic")


def _few_steps(scheduler: Any) -> int:
    """Steps of a check: no more than the scheduler of a generator of a few steps, or of a short schedule, has."""
    counts = (scheduler.config.get(name) for name in ("original_inference_steps", "num_train_timesteps"))
    return min([PROBED_STEPS, *(count for count in counts if count)])


def _options(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those arguments that a function takes."""
    accepted = inspect.signature(function).parameters
    return {name: option for name, option in options.items() if name in accepted}
