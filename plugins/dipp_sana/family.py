"""How SANA's and SANA-Sprint's pipelines encode prompts and call their transformer."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.schedules import expand_like
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.files.folders import component_config, read_scheduler_config
from dipp_toolkit.models.sizes import SizeRules
from dipp_toolkit.models.stock_call import StockCall
from dipp_toolkit.models.stock_schedulers import recorded_steps
from dipp_toolkit.models.tiny_pipelines import write_with
from dipp_toolkit.models.trigflow_steps import intermediate_timesteps

from .autoencoding import SanaAutoencoding

STOCK_PIXELS = 1024
"""Side of the images that the stock pipelines draw where no size is named, whatever their transformer was made for."""

CALL_MULTIPLE = 32
"""Pixels that the stock pipelines want both sides of an image to be multiples of."""

INSTRUCTION = "complex_human_instruction"
"""The argument of the stock pipelines for what they put before a prompt."""


@dataclass(frozen=True)
class SanaFamily:
    """SANA: a linear DiT with cross attention to Gemma 2's hidden states (Xie et al. 2024, arXiv 2410.10629).

    The stock pipeline puts an instruction before a prompt (Gemma is to see it as something to describe) and none before
    the empty one. Of Gemma's hidden states it keeps the first and the last 299 of what may be as many tokens as the
    instruction has and 298 more.

    Attributes:
        network_name: the denoising component.
        stock_call: how the pipeline drives its scheduler.
        autoencoding: that of a deep compression autoencoder.
        max_tokens: hidden states that are kept.
        optional_encoders: none.
        pipeline_class: of the stock pipeline.
        binned: pixels of the square that it rounds a size to, by the transformer's `sample_size`.
        unguided: what its `encode_prompt` is told, so that it encodes nothing but the prompts.
    """

    network_name: ClassVar[str] = "transformer"
    stock_call: ClassVar[StockCall] = StockCall(scales=False)
    autoencoding: ClassVar[SanaAutoencoding] = SanaAutoencoding()
    max_tokens: ClassVar[int] = 300
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    pipeline_class: ClassVar[str] = "SanaPipeline"
    binned: ClassVar[Mapping[int, int]] = {16: 512, 32: 1024, 64: 2048, 128: 4096}
    unguided: ClassVar[Mapping[str, Any]] = {"do_classifier_free_guidance": False}

    def configured(self, folder: Path) -> SanaFamily:
        """This family.

        Raises:
            RequestError: the transformer takes a guidance scale, which `SanaPipeline` does not give it.
        """
        if component_config(folder, self.network_name).get("guidance_embeds"):
            raise RequestError(
                f"The transformer in {folder} takes a guidance scale (guidance_embeds), which SanaPipeline does not "
                "give it. If it is SANA-Sprint's, say SanaSprintPipeline in model_index.json."
            )
        return self

    @property
    def instruction(self) -> str:
        """What the installed pipeline class puts before a prompt where its call says nothing else."""
        import diffusers

        call = inspect.signature(getattr(diffusers, self.pipeline_class).__call__)
        return "\n".join(call.parameters[INSTRUCTION].default)

    def encoding_settings(self, folder: Path) -> dict[str, Any]:
        """The number of hidden states, and the instruction, which belongs to the installed diffusers."""
        digest = hashlib.sha256(self.instruction.encode()).hexdigest()
        return {"max_tokens": self.max_tokens, "instruction": digest}

    def texts_read(self, pipeline: Any, prompts: Sequence[str]) -> list[str]:
        """What the tokenizer is given: the instruction and the prompt in lower case, or nothing for an empty one."""
        return [self.instruction + prompt.lower().strip() if prompt else "" for prompt in prompts]

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        """Gemma's tokenizer, and how many tokens of instruction and prompt together are read."""
        return pipeline.tokenizer, len(pipeline.tokenizer.encode(self.instruction)) + self.max_tokens - 2

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Hidden states `(batch, 300, channels)` and mask `(batch, 300)`; the empty prompt is the null condition.

        The transformer gives masked tokens an attention of exactly 0, whatever stands there; here it is zeros.
        """
        device = pipeline.text_encoder.device
        rows: dict[int, tuple[Tensor, Tensor]] = {}
        for given in (True, False):
            places = [place for place, prompt in enumerate(prompts) if bool(prompt) is given]
            if places:
                hidden, mask = pipeline.encode_prompt(
                    [prompts[place] for place in places],
                    device=device,
                    clean_caption=False,
                    max_sequence_length=self.max_tokens,
                    complex_human_instruction=[self.instruction] if given else None,
                    **self.unguided,
                )[:2]
                rows |= dict(zip(places, zip(hidden, mask, strict=True), strict=True))
        hidden, mask = (torch.stack([rows[place][part] for place in range(len(prompts))]) for part in (0, 1))
        hidden = hidden.masked_fill(mask[..., None] == 0, 0)
        return Condition(tuple(prompts), {"encoder_hidden_states": hidden.float(), "encoder_attention_mask": mask})

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tokens = torch.zeros(batch, self.max_tokens, network_config["caption_channels"])
        mask = torch.ones(batch, self.max_tokens, dtype=torch.int64)
        return Condition(("",) * batch, {"encoder_hidden_states": tokens, "encoder_attention_mask": mask})

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, Any]:
        """The size, where it is not the pipelines' default, and no rounding where it is not one they round to."""
        side = network["sample_size"]
        pixels = side * self.autoencoding.pixels_per_latent(vae)
        arguments: dict[str, Any] = {} if pixels == STOCK_PIXELS else {"height": pixels, "width": pixels}
        return arguments if self.binned.get(side) == pixels else {**arguments, "use_resolution_binning": False}

    def size_rules(self, network: Mapping[str, Any], pixels: int, usual: SizeRules) -> SizeRules:
        """Sides of multiples of 32 pixels, whatever the autoencoder is."""
        return replace(usual, multiple=math.lcm(usual.multiple * pixels, CALL_MULTIPLE) // pixels)

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        time = network_time.expand(len(x_t)) * cast(Any, network).config.timestep_scale
        return self.call(network, x_t, time, condition)

    def call(self, network: nn.Module, x_t: Tensor, time: Tensor, condition: Condition, **more: Any) -> Tensor:
        """The transformer's velocity at its own time, learned-variance channels dropped."""
        output: Tensor = network(
            x_t,
            encoder_hidden_states=condition.tensors["encoder_hidden_states"],
            encoder_attention_mask=condition.tensors["encoder_attention_mask"],
            timestep=time,
            return_dict=False,
            **more,
        )[0]
        return output.chunk(2, dim=1)[0] if output.shape[1] == 2 * x_t.shape[1] else output

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        from .twins import write_sana_twin

        write_with(write_sana_twin, folder, self.pipeline_class, options)


@dataclass(frozen=True)
class SprintCall(StockCall):
    """`SanaSprintPipeline` drives an `SCMScheduler`, which is told what stands between two steps, and ends at time 0.

    Its latents are multiplied by `sigma_data` and its network's input and output divided and multiplied by it, which
    leaves them where they were. In its place it is 1 here.
    """

    def prepare(self, scheduler: Any) -> None:
        if hasattr(scheduler.config, "sigma_data"):
            scheduler.register_to_config(sigma_data=1.0)

    def time_arguments(self, steps: int) -> dict[str, Any]:
        return {"intermediate_timesteps": intermediate_timesteps(steps)}

    def times(self, scheduler: Any) -> Tensor:
        return cast(Tensor, scheduler.timesteps[:-1])


@dataclass(frozen=True)
class SanaSprintFamily(SanaFamily):
    r"""SANA-Sprint: SANA distilled into few steps as a continuous-time consistency model (Chen et al. 2025,
    arXiv 2503.09641), with its guidance as an input.

    The network is SANA's, a flow network, read through TrigFlow. At the angle $\theta$, with $c = 1 / (\cos\theta +
    \sin\theta)$, it is given $c\, x_t$, which lies on flow matching's straight line, at the line's time
    $c \sin\theta$, and predicts the line's velocity u there. TrigFlow's own is

    $$v = c\, (\cos\theta - \sin\theta)\, x_t + c\, u,$$

    so that $\hat x_0 = \cos\theta\, x_t - \sin\theta\, v = c\, x_t - c \sin\theta\, u$ is flow matching's.

    Attributes:
        steps: that the folder's scheduler records; a generator of another number makes other images.
        embedded_guidance: the guidance that the network is told, by default that of the stock pipeline's call.
        reference_class: SANA's, as whose distillation it predicts the end of a path and no mean.
    """

    steps: int = 1
    embedded_guidance: float = 4.5
    pipeline_class: ClassVar[str] = "SanaSprintPipeline"
    binned: ClassVar[Mapping[int, int]] = {32: 1024}
    unguided: ClassVar[Mapping[str, Any]] = {}
    stock_call: ClassVar[StockCall] = SprintCall(scales=False, begins_at_zero=True, second_pass=False)
    reference_class: ClassVar[str] = "SanaPipeline"

    def configured(self, folder: Path) -> SanaSprintFamily:
        """With the number of steps that the folder's scheduler records.

        Raises:
            RequestError: the transformer takes no guidance scale, and `SanaSprintPipeline` always gives it one.
        """
        network = component_config(folder, self.network_name)
        if network and not network.get("guidance_embeds"):
            raise RequestError(
                f"The transformer in {folder} takes no guidance scale (guidance_embeds), and SanaSprintPipeline gives "
                "it one. If it is SANA's, say SanaPipeline in model_index.json."
            )
        return replace(self, steps=recorded_steps(read_scheduler_config(folder)))

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, Any]:
        """As SANA's, with nothing between the steps where they are not two: the call has an angle as its default."""
        arguments = super().call_arguments(network, vae)
        between = intermediate_timesteps(self.steps)
        return arguments if between is not None else {**arguments, "intermediate_timesteps": None}

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        angle = network_time.expand(len(x_t))
        cosine, sine = angle.cos(), angle.sin()
        onto_line: Float[Tensor, " batch"] = 1 / (cosine + sine)
        told = self.embedded_guidance * cast(Any, network).config.guidance_embeds_scale
        velocity = self.call(
            network,
            expand_like(onto_line, x_t) * x_t,
            onto_line * sine,
            condition,
            guidance=torch.full((len(x_t),), told, device=x_t.device),
        )
        return expand_like(onto_line * (cosine - sine), x_t) * x_t + expand_like(onto_line, x_t) * velocity

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline with the parts of `SanaPipeline`'s of the same seed."""
        from .twins import write_sana_sprint_twin

        write_with(write_sana_sprint_twin, folder, self.pipeline_class, options)
