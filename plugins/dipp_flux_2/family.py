"""How Flux.2's pipelines encode prompts and call their transformer: Klein's by Qwen3, dev's by Mistral 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.autoencoding import Autoencoding
from dipp_toolkit.models.files.folders import component_config, quiet_loading
from dipp_toolkit.models.stock_call import StockCall, pack, unpack
from dipp_toolkit.models.text_encoders import tokenizer_in
from dipp_toolkit.models.tiny_pipelines import write_with
from dipp_toolkit.utils.json_files import read_json

from .autoencoding import Flux2Autoencoding
from .schedule import Flux2StockCall

STOCK_SIDE = 64
"""Side of a latent that the stock pipeline draws where no size is named."""

STOCK_TOKENS = 512
"""Tokens of the stock pipeline where `max_sequence_length` is not given. A shorter prompt is padded, and the
transformer sees the padding's embeddings as well."""

AT_A_TIME = 4
"""Prompts that go through a language model at once: it makes logits of every token that nobody reads, 150 MB a
prompt."""

IMAGE_WORD = "[IMG]"
"""Stands for an image in what Mistral 3 reads; the pipeline takes it out of prompts."""

STOCK_GUIDANCE = 4.0
"""What the stock pipeline of FLUX.2-dev tells the transformer where `guidance_scale` is not given."""


class Flux2:
    """What both pipeline classes have in common: a flow-matching transformer over patches of 128 numbers, a token each.

    Attributes:
        network_name: the denoising component.
        autoencoding: latents are standardised patches of the autoencoder's.
        max_tokens: of a prompt, what the pipeline puts around it included.
        optional_encoders: none.
        image_stream: its joint blocks return the prompt's tokens first and the image's second.
    """

    network_name: ClassVar[str] = "transformer"
    autoencoding: ClassVar[Autoencoding] = Flux2Autoencoding()
    max_tokens: ClassVar[int] = STOCK_TOKENS
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    image_stream: ClassVar[int] = 1

    def latent_side(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of a latent: the transformer has no sample size of its own, the autoencoder's image size
        says it. Where it says none, it is what the stock pipeline draws."""
        return self.autoencoding.latent_side(vae, STOCK_SIDE)

    def call_arguments(self, network: Mapping[str, Any], vae: Mapping[str, Any]) -> dict[str, int]:
        """The size, where it is not the pipeline's own."""
        return self.autoencoding.size_arguments(vae, STOCK_SIDE)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Embeddings `(batch, tokens, channels)`, three layers of the language model side by side, the padding's
        included; the empty prompt is the null."""
        with quiet_loading():  # transformers has advice for how the pipeline calls its processor
            parts = [
                pipeline.encode_prompt(
                    list(prompts[start : start + AT_A_TIME]),
                    device=pipeline.text_encoder.device,
                    max_sequence_length=self.max_tokens,
                )[0].float()
                for start in range(0, len(prompts), AT_A_TIME)
            ]
        return Condition(tuple(prompts), {"encoder_hidden_states": torch.cat(parts)})

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        """A condition of the right shapes, for planning without a text encoder."""
        tokens = torch.zeros(batch, self.max_tokens, network_config["joint_attention_dim"])
        return Condition(("",) * batch, {"encoder_hidden_states": tokens})

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        batch, tokens = len(x_t), condition.tensors["encoder_hidden_states"]
        output: Tensor = network(
            hidden_states=pack(x_t, 1),
            timestep=network_time.expand(batch).to(x_t.dtype) / 1000,
            guidance=self.guidance_input(batch, x_t.device),
            encoder_hidden_states=tokens,
            txt_ids=text_places(tokens.shape[1], x_t.device),
            img_ids=image_places(x_t.shape[-2], x_t.shape[-1], x_t.device),
            return_dict=False,
        )[0]
        return unpack(output, x_t.shape, 1)

    def guidance_input(self, batch: int, device: torch.device) -> Tensor | None:
        """The guidance that the transformer is told, `(batch,)`, where it is told one."""
        return None


@dataclass(frozen=True)
class Flux2KleinFamily(Flux2):
    """FLUX.2-klein: 4 or 9 B parameters, prompts by Qwen3.

    The base models are guided by two passes. The distilled ones have guidance and steps distilled into them: their
    pipeline makes one pass, whatever guidance it is asked for.

    Attributes:
        distilled: whether the pipeline's index says `is_distilled`.
        since: the diffusers that has the class.
    """

    distilled: bool = False
    since: ClassVar[str] = "0.37"

    @property
    def stock_call(self) -> StockCall:
        """How the pipeline drives its scheduler."""
        return Flux2StockCall(
            scales=False, shift="always", even_sigmas=True, eta=None, begins_at_zero=True, patch=1,
            second_pass=not self.distilled,
        )  # fmt: skip

    def configured(self, folder: Path) -> Flux2KleinFamily:
        """Distilled where the folder's index says so."""
        return replace(self, distilled=bool(read_json(folder / "model_index.json").get("is_distilled", False)))

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer, min(self.max_tokens, pipeline.tokenizer.model_max_length)

    def texts_read(self, pipeline: Any, prompts: Sequence[str]) -> list[str]:
        """The prompts as questions of a user that are answered without a thought."""
        return [
            pipeline.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            for prompt in prompts
        ]

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        from .twins import write_flux_2_klein_twin

        write_with(write_flux_2_klein_twin, folder, "Flux2KleinPipeline", options)


@dataclass(frozen=True)
class Flux2Family(Flux2):
    """FLUX.2-dev: 32 B parameters, prompts by Mistral 3 behind the pipeline's system message.

    Guidance is distilled into an input of the network, which is told `embedded_guidance`; the pipeline makes one pass.

    Attributes:
        embedded_guidance: the network's guidance input, the stock pipeline's 4 unless a run says otherwise; None for a
            transformer without one.
        stock_call: how the pipeline drives its scheduler.
        since: the diffusers that has the class.
    """

    embedded_guidance: float | None = STOCK_GUIDANCE
    stock_call: ClassVar[StockCall] = Flux2StockCall(
        scales=False, shift="always", even_sigmas=True, eta=None, begins_at_zero=True, patch=1, second_pass=False
    )
    since: ClassVar[str] = "0.36"

    def configured(self, folder: Path) -> Flux2Family:
        """With guidance only where the folder's transformer takes some."""
        takes = component_config(folder, self.network_name).get("guidance_embeds", True)
        return self if takes else replace(self, embedded_guidance=None)

    def guidance_input(self, batch: int, device: torch.device) -> Tensor | None:
        if self.embedded_guidance is None:
            return None
        return torch.full((batch,), self.embedded_guidance, device=device)

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        """The texts have the token that a text begins with, which the tokenizer would put before them again."""
        tokenizer = tokenizer_in(pipeline.tokenizer)
        limit = min(self.max_tokens, tokenizer.model_max_length)
        return partial(tokenizer, add_special_tokens=False), limit

    def texts_read(self, pipeline: Any, prompts: Sequence[str]) -> list[str]:
        """The prompts as a user's message behind the system's, without the word that stands for an image."""

        def message(role: str, text: str) -> dict[str, Any]:
            return {"role": role, "content": [{"type": "text", "text": text}]}

        system = message("system", pipeline.system_message)
        return [
            pipeline.tokenizer.apply_chat_template(
                [system, message("user", prompt.replace(IMAGE_WORD, ""))], add_generation_prompt=False
            )
            for prompt in prompts
        ]

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline; see `dipp_toolkit.models.tiny_pipelines`."""
        from .twins import write_flux_2_twin

        write_with(write_flux_2_twin, folder, "Flux2Pipeline", options)


def text_places(tokens: int, device: torch.device) -> Tensor:
    """Places of a prompt's tokens, `(tokens, 4)`: the last of image, row, column and token."""
    places = torch.zeros(tokens, 4, device=device)
    places[:, 3] = torch.arange(tokens, device=device)
    return places


def image_places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Places of an image's tokens, `(rows * columns, 4)`: the second and third of image, row, column and token."""
    places = torch.zeros(rows, columns, 4, device=device)
    places[..., 1] = torch.arange(rows, device=device)[:, None]
    places[..., 2] = torch.arange(columns, device=device)
    return places.reshape(-1, 4)
