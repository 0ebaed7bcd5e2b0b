"""A diffusers network as a generator of one step, or of a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..diffusion.condition import Condition
from ..diffusion.denoiser import Denoiser
from ..diffusion.deterministic_steps import noise_in
from ..diffusion.predictions import prediction_from_config
from ..diffusion.schedules import add_noise, expand_like, schedule_from_config
from ..errors import DippError, RequestError, first_line
from ..utils.image_sizes import Size, parse_size
from ..utils.step_settings import USUAL, StepNoise, Stepping, recorded_stepping
from . import lora as adapters
from .components import heeded_scheduler_config, load_component
from .export import ASSISTANT, export_pipeline
from .family import PipelineFamily
from .few_steps import noises_of, run_steps
from .files.fetching import hub_id_of
from .files.folders import family_of, read_scheduler_config, resolve_folder
from .guidance_embedding import told_guidance, with_guidance_embedding
from .lora import AdapterSettings
from .quantized_layers import is_quantized, quantize_like
from .readout import InputScale, check_readout, recorded_input_scale, stock_readout
from .reference import DiffusersReference, latent_shape_of
from .sizes import in_latents, recorded_sizes, recorded_text
from .start_weights.lora import fused_weights
from .start_weights.network_folder import network_folder
from .stock_call import stock_call_of
from .stock_schedulers import MOST_STEPS, RECORDED_STEPS, recorded_steps
from .stock_steps import StockSteps, check_call_takes, stock_steps


@dataclass
class DiffusersGenerator:
    r"""A diffusers network read out once from pure noise: $g_\theta(z, c) = \hat x_0(s z, t_{readout}, c)$.

    Its input's scale $s$ is 1 or $\sigma(t_{readout})$, as `input_scale` says; of $x_{t} = s z$ the denoised sample is
    read as of any $x_t$, $(x_t - \sigma \epsilon_\theta) / \alpha$ where noise is predicted.

    With `steps` above 1 its sample is noised and read out again, at the times of the stock scheduler that it is
    exported with; see `few_steps` and `stock_steps`.

    The network is loaded when it is first asked for, so that a generator which starts from its reference's own weights
    can share them instead.

    Attributes:
        folder: the pipeline folder whose other components an export copies.
        family: what is particular to the pipeline's class.
        readout: the time in [0, 1] at which the network is read, the first one where there are several.
        weights: folder of the network's weights.
        scheduler_config: says the schedule and what the network predicts.
        assistant_folder: folder holding the assistant this generator was trained with, where there is one.
        steps: passes of the network that make a sample.
        parts: the pipeline folder whose text encoders, tokenizers and autoencoder it is trained with, and an export
            carries; its own where None.
        input_scale: what the network is given: `"unit"` for z, `"sigma"` for sigma(readout) z; see `readout.py`.
        sizes: height and width of the latents that it is trained at, where these are not what its configuration says;
            the first is drawn where no other is named. See `sized`.
        stepping: how several steps are taken: the noise between them, and their times.
    """

    folder: Path
    family: PipelineFamily
    readout: float
    weights: Path
    scheduler_config: dict[str, Any]
    assistant_folder: Path | None = None
    steps: int = 1
    input_scale: InputScale = "unit"
    parts: Path | None = None
    sizes: tuple[Size, ...] = ()
    stepping: Stepping = USUAL
    _denoiser: Denoiser | None = field(default=None, repr=False)
    _drawing: DiffusersReference | None = field(default=None, repr=False, compare=False)

    def __call__(
        self, prompts: str | Sequence[str], seed: int = 0, *, batch_size: int = 32, size: str | None = None
    ) -> Any:
        """Draw: one picture of one text, a list of pictures of a list, by the pipeline folder's own text encoders and
        decoder.

            >>> generator = load_generator("emoji-onestep")
            >>> generator("fox on blue", seed=0).size
            (64, 64)

        Args:
            prompts: one text, or several.
            seed: noise `i` belongs to prompt `i` of this seed, as in `dipp generate`.
            batch_size: images a pass.
            size: of the pictures, width by height in pixels, as in `"768x512"`; the generator's own where None.

        Returns:
            A `PIL.Image.Image`, or a list of them.

        Raises:
            RequestError: a prompt is empty or too long, the pipeline draws no such size, or the folder's parts cannot
                be loaded.
        """
        from .drawing import draw, parts_of

        if self._drawing is None or self._drawing.folder != (self.parts or self.folder):
            self._drawing = parts_of(self)
        if size is None:
            return draw(self, self._drawing, prompts, seed, batch_size)
        latents = in_latents(self.folder, self.family, parse_size(size))
        sized = self.with_network(self.network).sized([latents])  # one network, loaded once
        return draw(sized, self._drawing.sized(latents), prompts, seed, batch_size)

    @property
    def denoiser(self) -> Denoiser:
        """The trainable network with its schedule and prediction type."""
        if self._denoiser is None:
            network = load_component(self.folder, self.family.network_name, self.weights)
            self._denoiser = self._around(network).trainable_copy()
        return self._denoiser

    def _around(self, network: nn.Module) -> Denoiser:
        config = self.scheduler_config
        try:
            schedule, prediction = schedule_from_config(config, self.latent_shape), prediction_from_config(config)
        except DippError:
            raise
        except Exception as error:  # whatever diffusers makes of a configuration that is none
            raise RequestError(f"The scheduler of {self.folder} cannot be used: {first_line(error)}.") from error
        return Denoiser(network, schedule, prediction, self.family.forward)

    @property
    def network(self) -> nn.Module:
        return self.denoiser.network

    @property
    def latent_shape(self) -> tuple[int, ...]:
        own = latent_shape_of(self.folder, self.family)
        return (own[0], *self.sizes[0]) if self.sizes else own

    @cached_property
    def stock_steps(self) -> StockSteps:
        """How plain diffusers takes its steps.

        Raises:
            RequestError: no stock scheduler can express them.
        """
        return stock_steps(
            self.scheduler_config, self.readout, self.steps, self.latent_shape, self.input_scale, self.stepping,
            stock_call_of(self.family),
        )  # fmt: skip

    @property
    def times(self) -> tuple[float, ...]:
        """The times in [0, 1] at which the network is read, one a step.

        Raises:
            RequestError: no stock scheduler has so many steps from this read-out.
        """
        return (self.readout,) if self.steps == 1 else self.stock_steps.times

    @property
    def step_noise(self) -> StepNoise:
        """What is between its steps: `"fresh"` noise, or `"none"`."""
        return self.stepping.noise

    @classmethod
    def load(
        cls,
        name: str,
        readout: float | None = None,
        *,
        weights: str | None = None,
        lora: str | Sequence[str] = (),
        input_scale: InputScale | None = None,
        guidance_embedding: float | None = None,
    ) -> DiffusersGenerator:
        """A generator from a pipeline folder, a run folder or a hub id, of as many steps as its scheduler records.

        Args:
            name: the folder or hub id.
            readout: time in [0, 1] at which the network is read; where None, that of the folder's scheduler.
            weights: a file or folder of the network's weights that are used instead of the folder's own, such as
                `OWNER/REPO:path/in/repo.safetensors`; see `start_weights.network_folder`.
            lora: addresses of LoRA files that are added to the weights in their order, each with a scale where it is
                not 1, such as `OWNER/REPO:path/in/repo.safetensors=0.125`; see `start_weights.lora`.
            input_scale: `"unit"` or `"sigma"`; where None, that of the folder's scheduler, see `recorded_input_scale`.
            guidance_embedding: the guidance that a network with it distilled in is told; where None, what the folder
                records, or the stock pipeline's own.

        Raises:
            RequestError: it is missing, no plugin knows its class, the weights or a LoRA do not fit it, its schedule
                already ends where it is read out and a time is given, or its network takes no guidance and one is.
        """
        folder = resolve_folder(name)
        family = with_guidance_embedding(family_of(folder), guidance_embedding, folder)
        config = heeded_scheduler_config(folder, family)
        latent_shape_of(folder, family)  # what the folder does not say is missed now and not in the middle of a run
        assistant = folder / ASSISTANT if (folder / ASSISTANT).is_dir() else None
        if readout is not None:
            check_readout(config, readout, folder)
        when = stock_readout(config) if readout is None else readout
        scale = recorded_input_scale(config) if input_scale is None else input_scale
        place = folder / family.network_name
        if weights is not None:
            place = network_folder(weights, folder, family.network_name)
        if lora:
            place = fused_weights(folder, family.network_name, place, [lora] if isinstance(lora, str) else lora)
        record = read_scheduler_config(folder)
        steps = recorded_steps(record if RECORDED_STEPS in record else config)
        stepping = recorded_stepping(record) if steps > 1 else USUAL
        sizes = recorded_sizes(folder, family)
        return cls(folder, family, when, place, config, assistant, steps, scale, sizes=sizes, stepping=stepping)

    @classmethod
    def from_reference(
        cls,
        reference: DiffusersReference,
        readout: float = 1.0,
        input_scale: InputScale = "unit",
        guidance_embedding: float | None = None,
        **start: Any,
    ) -> DiffusersGenerator:
        """A generator that starts as the reference's own network, read out once at `readout`.

        The reference's scheduler is for many steps, so it decides nothing here.

        Args:
            reference: whose pipeline it is.
            readout: time in [0, 1] at which the network is read.
            input_scale: `"unit"` or `"sigma"`.
            guidance_embedding: as for `load`; where None, what the reference's own network is told.
            start: the options of `load` that bring other weights.

        Raises:
            RequestError: as `load`.
        """
        family = with_guidance_embedding(reference.family, guidance_embedding, reference.folder)
        if start:
            start["guidance_embedding"] = told_guidance(family)
            return cls.load(str(reference.folder), readout, input_scale=input_scale, **start)
        made = cls(
            reference.folder, family, readout, reference.network_folder,
            heeded_scheduler_config(reference.folder, reference.family), input_scale=input_scale,
        )  # fmt: skip
        made._denoiser = made._around(reference.network).trainable_copy()
        return made

    def adapt(self, settings: AdapterSettings, reference: DiffusersReference, seed: int = 0) -> None:
        """Train an adapter alone. Where the generator starts from the reference's weights, it shares their memory."""
        if self.weights.resolve() == reference.network_folder.resolve():
            base = reference.network
        else:
            device = next(reference.network.parameters()).device
            base = self._start_network(cast(Any, reference.network).dtype)
            quantize_like(reference.network, base, device)
            base = base.to(device)
        self._denoiser = self._around(adapters.adapted(base, settings, seed, hub_id_of(self.weights)))

    def generate(
        self, noise: Float[Tensor, "batch channels height width"], condition: Condition
    ) -> Float[Tensor, "batch channels height width"]:
        if self.steps == 1 or self.step_noise == "none":
            return run_steps(self, noise, [None] * (self.steps - 1), condition)
        return run_steps(self, noise, noises_of(noise, self.steps - 1), condition)

    def read_out(
        self, x_t: Float[Tensor, "batch channels height width"], step: int, condition: Condition
    ) -> Float[Tensor, "batch channels height width"]:
        """The denoised sample of one step, from 0, differentiable with respect to the parameters and to `x_t`."""
        return self.denoiser.predict_x0(x_t, self._time(step, x_t), condition)

    def noised(
        self,
        x0: Float[Tensor, "batch channels height width"],
        noise: Float[Tensor, "batch channels height width"],
        step: int,
    ) -> Float[Tensor, "batch channels height width"]:
        """The sample of the step before this one, noised to this step's time."""
        return add_noise(self.denoiser.schedule, x0, noise, self._time(step, x0))

    def noise_in(
        self,
        x_t: Float[Tensor, "batch channels height width"],
        x0: Float[Tensor, "batch channels height width"],
        step: int,
    ) -> Float[Tensor, "batch channels height width"]:
        """The noise in what a step read, its sample being `x0`."""
        return noise_in(self.denoiser.schedule, x_t, x0, self._time(step, x_t))

    def first_input(
        self, noise: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """What the first step reads. With fresh noise between several it is z: `few_step_scheduler` says why."""
        if self.input_scale == "unit" or (self.steps > 1 and self.step_noise == "fresh"):
            return noise
        return expand_like(self.denoiser.schedule.sigma(self._time(0, noise)), noise) * noise

    def _time(self, step: int, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.times[step], device=x.device, dtype=x.dtype)

    def with_network(self, network: nn.Module) -> DiffusersGenerator:
        """The same generator around another network of its kind, such as one gathered from its parts."""
        return replace(self, _denoiser=self._around(network))

    def load_assistant(self, base: nn.Module) -> nn.Module | None:
        """The assistant that was saved with this generator, if any.

        Args:
            base: the reference's network, which a saved adapter sits on; it is shared, not copied.
        """
        if self.assistant_folder is None:
            return None
        if (self.assistant_folder / adapters.FILES[0]).is_file():
            return adapters.load_adapter(base, self.assistant_folder)
        return cast(nn.Module, load_component(self.folder, self.family.network_name, self.assistant_folder))

    def check_exportable(self) -> None:
        """Raise before a training what `save_pretrained` would raise after it.

        Raises:
            RequestError: no stock scheduler can express this generator, see `stock_steps`, or its pipeline class
                cannot drive that one or be told the times.
        """
        made = self.stock_steps
        stock_call_of(self.family).check(made.scheduler, self.latent_shape, self.steps)
        check_call_takes(self.folder, made.arguments)

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        """Write a pipeline folder whose stock pipeline makes this generator's image in its own number of steps.

        Text encoders, tokenizers and autoencoder are copied from the folder in `parts`, which the training used, and
        other components from the generator's own. An adapter is merged into the weights
        and written beside them as well; weights that were kept in 8 or 4 bits are read again, so that what is merged
        into has no error of theirs.

        Args:
            folder: where to; it appears whole or not at all, an existing one is replaced.
            assistant: the assistant's network, kept beside so that training can go on from here.
        """
        scheduler = self.stock_steps.scheduler
        network = self.network
        if is_quantized(network):
            network = adapters.over(network, self._start_network(cast(Any, network).dtype))
        export_pipeline(
            self.folder, folder, self.family.network_name, network, scheduler, assistant, self.parts,
            guidance_embedding=told_guidance(self.family),
            image_sizes=recorded_text(self.folder, self.family, self.sizes),
        )  # fmt: skip

    def _start_network(self, dtype: torch.dtype) -> nn.Module:
        """The network with the weights that it starts from, read anew."""
        network: nn.Module = load_component(self.folder, self.family.network_name, self.weights, dtype)
        return network

    def sized(self, sizes: Sequence[Size]) -> DiffusersGenerator:
        """The same generator of latents of other sizes, around the same network.

        Args:
            sizes: height and width in latents, as `sizes.in_latents` checks them, the first one drawn where no other is
                named; none for the configuration's own.
        """
        if tuple(sizes) == self.sizes:
            return self
        made = replace(self, sizes=tuple(sizes), _drawing=None)
        if made._denoiser is not None:  # its times may be shifted by the size
            made._denoiser = made._around(made._denoiser.network)
        return made

    def at(self, readout: float) -> DiffusersGenerator:
        """The same generator read out at another time."""
        return replace(self, readout=readout)

    def in_steps(self, steps: int) -> DiffusersGenerator:
        """The same generator with another number of steps, from 1 to 8.

        Raises:
            RequestError: the number is none of these.
        """
        if not 1 <= steps <= MOST_STEPS:
            raise RequestError(f"A generator cannot take {steps} steps; expected 1 to {MOST_STEPS}.")
        return replace(self, steps=steps)

    def with_stepping(self, stepping: Stepping) -> DiffusersGenerator:
        """The same generator, its steps taken otherwise; of one step there is but one way."""
        return replace(self, stepping=stepping)
