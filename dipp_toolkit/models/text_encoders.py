"""A pipeline's text encoders: loaded when a prompt must be encoded, released when none will be."""

from __future__ import annotations

import gc
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ..diffusion.condition import Condition
from ..errors import RequestError, first_line
from ..protocols import EncoderReference, Reference
from ..utils.json_files import read_json
from ..utils.packages import how_to_install, missing_of
from .components import empty_component, load_component
from .family import (
    EncodingSettings,
    MaxTokens,
    OptionalEncoders,
    PipelineFamily,
    RewrittenTexts,
    SharedEncoding,
)
from .files.folders import quiet_loading
from .files.safety import stock_pipeline

LongPrompts = Literal["refuse", "cut"]
ENCODER, TOKENIZER = "text_encoder", "tokenizer"
"""How the names of these components begin; a second and third one have a number behind it."""

LENGTH = "model_max_length"
"""The setting of a tokenizer that limits its tokens."""

TOKENIZER_CONFIG = "tokenizer_config.json"
"""The file that has it."""

BATCH = 32
"""Prompts that go through the text encoders at once."""


@dataclass
class PromptEncoder:
    """Encodes prompts with the text encoders of a pipeline folder.

    Attributes:
        folder: the pipeline's folder.
        family: what is particular to its class.
        dtype: of the text encoders' weights. Embeddings are rounded to it, and float32 always.
        device: where the encoders run.
        long_prompts: what becomes of a prompt with more tokens than are read: `"refuse"` or `"cut"`.
        how_to_cut: what to type to have them cut, where the command that encodes has something.
    """

    folder: Path
    family: PipelineFamily
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    long_prompts: LongPrompts = "refuse"
    how_to_cut: str = ""
    _pipeline: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The text encoders' names in `model_index.json`."""
        return tuple(name for name, present in self._components.items() if present and name.startswith(ENCODER))

    @property
    def _components(self) -> dict[str, bool]:
        """The components that `model_index.json` names, and whether the pipeline has them: others are null there."""
        index = read_json(self.folder / "model_index.json")
        named = {name: entry for name, entry in index.items() if isinstance(entry, list) and not name.startswith("_")}
        return {name: bool(entry and entry[0]) for name, entry in named.items()}

    def _unused(self, parts: Collection[str]) -> list[str]:
        """Components that the pipeline lacks, or that no prompt goes through, such as a safety checker."""
        named = {name: present for name, present in self._components.items() if name not in parts}
        return [name for name, present in named.items() if not (present and name.startswith((TOKENIZER, "scheduler")))]

    @property
    def settings(self) -> dict[str, Any]:
        """What embeddings depend on beside encoders and tokenizers.

        It is what the pipeline's index says of itself (SDXL's `force_zeros_for_empty_prompt`), and what the family's
        `encoding_settings` adds, or its `max_tokens`.
        """
        index = read_json(self.folder / "model_index.json")
        own = {name: value for name, value in index.items() if not name.startswith("_") and not isinstance(value, list)}
        family = self.family
        if isinstance(family, EncodingSettings):
            return own | dict(family.encoding_settings(self.folder))
        return own | {"max_tokens": family.max_tokens if isinstance(family, MaxTokens) else None}

    @property
    def loaded(self) -> bool:
        """Whether the text encoders are in memory."""
        return self._pipeline is not None

    def load(self) -> Any:
        """The stock pipeline with real text encoders; its other networks are shells without weights.

        Raises:
            RequestError: an encoder or a tokenizer is missing or cannot be loaded.
        """
        if self._pipeline is None:
            pipeline_class: Any = _pipeline_class(self.folder)
            self._check_encoders()
            self._check_tokenizers()
            parts: dict[str, Any] = {
                name: load_component(self.folder, name, dtype=self.dtype).eval().requires_grad_(False).to(self.device)
                for name in self.names
            }
            parts |= {name: empty_component(self.folder, name) for name in (self.family.network_name, "vae")}
            parts |= dict.fromkeys(self._unused(parts))
            try:
                with quiet_loading(), torch.random.fork_rng(devices=[]):
                    self._pipeline = pipeline_class.from_pretrained(self.folder, **parts)
            except Exception as error:  # tokenizers raise errors of several libraries
                raise RequestError(f"The tokenizers of {self.folder} cannot be loaded: {first_line(error)}") from error
            for name in self.names:
                limit_tokens(tokenizer_in(getattr(self._pipeline, name.replace(ENCODER, TOKENIZER), None)), parts[name])
            if hasattr(self._pipeline, "tokenizer_max_length"):  # read off the first tokenizer as it was
                self._pipeline.tokenizer_max_length = tokenizer_in(self._pipeline.tokenizer).model_max_length
        return self._pipeline

    def _check_encoders(self) -> None:
        """Refuse a pipeline that lacks a text encoder which its stock class cannot do without."""
        family = self.family
        optional = family.optional_encoders if isinstance(family, OptionalEncoders) else None
        missing = [name for name, present in self._components.items() if not present and name.startswith(ENCODER)]
        needed = [] if optional is None else [name for name in missing if name not in optional]
        if needed:
            raise RequestError(
                f"The pipeline {self.folder} has no {needed[0]}: model_index.json says null, and without it no prompt "
                "can be encoded. Name the pipeline it was taken from as the reference, or copy the encoder and its "
                "tokenizer beside it and name their classes in model_index.json."
            )

    def _check_tokenizers(self) -> None:
        """Refuse a T5 tokenizer that is there as sentencepiece's model alone, where that package is missing."""
        for place in sorted(self.folder.glob(f"{TOKENIZER}*")):
            converted = not (place / "spiece.model").is_file() or (place / "tokenizer.json").is_file()
            missing = [] if converted else missing_of(["sentencepiece", "google"])
            if missing:
                raise RequestError(
                    f"{place / 'spiece.model'} is read by sentencepiece and protobuf, which are missing. "
                    f"Install them with: {how_to_install(missing)}"
                )

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """Encode prompts, padded to one length, in batches of `BATCH`.

        Raises:
            RequestError: a prompt has more tokens than are read, and such prompts are refused.
        """
        pipeline = self.load()
        self.check_lengths(prompts)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            condition = Condition.cat(
                [
                    self.family.encode(pipeline, list(prompts[start : start + BATCH]))
                    for start in range(0, len(prompts), BATCH)
                ]
            )
        # Under autocast a GPU computes norms in float32; a stock pipeline of this precision has them in its own.
        return condition.to(self.dtype).to(torch.float32)

    def too_long(self, prompts: Sequence[str]) -> dict[str, int]:
        """Those with more tokens than are read, with how many they have."""
        pipeline, family = self.load(), self.family
        tokenizer, limit = family.token_limit(pipeline)
        texts = family.texts_read(pipeline, prompts) if isinstance(family, RewrittenTexts) else list(prompts)
        counts = map(len, tokenizer(texts).input_ids)
        return {prompt: count for prompt, count in zip(prompts, counts, strict=True) if count > limit}

    def check_cut(self, prompts: Sequence[str]) -> None:
        """Refuse prompts of which a cache holds the beginning alone, unless such are to be cut.

        Raises:
            RequestError: there is one.
        """
        for prompt in () if self.long_prompts == "cut" else prompts[:1]:
            raise RequestError(
                f"The prompt '{_beginning(prompt)}' has more tokens than the text encoder reads, and the prompt cache "
                f"holds its beginning alone. Shorten it{self._or_cut}."
            )

    def check_lengths(self, prompts: Sequence[str]) -> None:
        """Refuse prompts with more tokens than are read, unless such are to be cut.

        Raises:
            RequestError: there is one.
        """
        if self.long_prompts == "cut":
            return
        pipeline = self.load()
        for prompt, count in self.too_long(prompts).items():
            raise RequestError(
                f"The prompt '{_beginning(prompt)}' has {count} tokens, and the text encoder reads "
                f"{self.family.token_limit(pipeline)[1]}. Shorten it{self._or_cut}."
            )

    @property
    def _or_cut(self) -> str:
        return f", or have such prompts cut with {self.how_to_cut}" if self.how_to_cut else ""

    def set_long_prompts(self, treatment: LongPrompts, how_to_cut: str = "") -> None:
        """Refuse or cut prompts with more tokens than are read; see the attributes."""
        self.long_prompts, self.how_to_cut = treatment, how_to_cut

    def serve(self, family: PipelineFamily) -> None:
        """Encode prompts as the network of another family reads them too, where the two read different lengths."""
        if isinstance(self.family, SharedEncoding):
            self.family = self.family.encoding_for(family)

    def release(self) -> None:
        """Free the text encoders; they are loaded again if a prompt must be encoded."""
        self._pipeline = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def to(self, device: torch.device | str) -> PromptEncoder:
        """Move the encoders; returns itself."""
        self.device = torch.device(device)
        if self._pipeline is not None:
            for name in self.names:
                getattr(self._pipeline, name).to(self.device)
        return self


def _beginning(prompt: str) -> str:
    return prompt if len(prompt) <= 60 else prompt[:57] + "..."


def _pipeline_class(folder: Path) -> Any:
    index = read_json(folder / "model_index.json")
    stock = stock_pipeline(index)
    if stock is None:
        raise RequestError(
            f"The installed diffusers has no {index.get('_class_name')}, which {folder} is. Upgrade diffusers."
        )
    return stock


def prompt_encoder(reference: Reference) -> PromptEncoder | None:
    """The text encoders of a diffusers pipeline's reference; None of another kind of reference."""
    encoder = reference.encoder if isinstance(reference, EncoderReference) else None
    return encoder if isinstance(encoder, PromptEncoder) else None


def tokenizer_in(component: Any) -> Any:
    """The tokenizer that a component is, or that it has: of a model of images and text it is a processor's part."""
    return getattr(component, "tokenizer", component)


def limit_tokens(tokenizer: Any, encoder: Any) -> None:
    """Give a loaded tokenizer a length that its text encoder can take.

    A tokenizer without a `model_max_length` has one of 1e30, to which no stock pipeline can pad CLIP's tokens.
    """
    if tokenizer is not None:
        positions = getattr(encoder.config, "max_position_embeddings", None)  # T5 has none: it takes any length
        length = fitting_length(tokenizer.model_max_length, positions)
        if length is not None:
            tokenizer.model_max_length = length


def write_limit(folder: Path, tokenizer: str, encoder: str) -> None:
    """The same for the tokenizer in a pipeline's folder, so that the stock pipeline can pad to it.

    Args:
        folder: the pipeline's.
        tokenizer: the component's name.
        encoder: that of its text encoder.
    """
    from transformers import CLIPTextConfig

    config = read_json(folder / encoder / "config.json")
    if config.get("model_type") != CLIPTextConfig.model_type:
        return
    path = folder / tokenizer / TOKENIZER_CONFIG
    settings = read_json(path) if path.is_file() else {}
    positions = config.get("max_position_embeddings", CLIPTextConfig().max_position_embeddings)
    length = fitting_length(settings.get(LENGTH), positions)
    if length is not None:
        path.write_text(json.dumps(settings | {LENGTH: length}, indent=2) + "\n", encoding="utf-8")


def fitting_length(length: Any, positions: Any) -> int | None:
    """The length that a tokenizer must have in place of `length`; None where that can stay.

    Args:
        length: its `model_max_length`.
        positions: of its text encoder; not a number for encoders of any length, such as T5.
    """
    fits = isinstance(length, int) and isinstance(positions, int) and 0 < length <= positions
    return None if fits or not isinstance(positions, int) else positions
