"""A pipeline's text encoders: loaded when a prompt must be encoded, released when none will be."""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ..diffusion.condition import Condition
from ..errors import RequestError, first_line
from ..utils.packages import how_to_install, missing_of
from ..utils.plain_json import read_json
from .components import empty_component, load_component
from .family import EncodingSettings, MaxTokens, OptionalEncoders, PipelineFamily, RewrittenTexts
from .files.folders import quiet_loading
from .files.safety import stock_pipeline
from .files.token_lengths import limit_tokens

LongPrompts = Literal["refuse", "cut"]
ENCODER, TOKENIZER = "text_encoder", "tokenizer"
"""How the names of these components begin; a second and third one have a number behind it."""

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
        said = {name: one for name, one in index.items() if not name.startswith("_") and not isinstance(one, list)}
        if isinstance(self.family, EncodingSettings):
            return said | dict(self.family.encoding_settings(self.folder))
        return said | {"max_tokens": self.family.max_tokens if isinstance(self.family, MaxTokens) else None}

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
                with quiet_loading():
                    self._pipeline = pipeline_class.from_pretrained(self.folder, **parts)
            except Exception as error:  # tokenizers raise errors of several libraries
                raise RequestError(f"The tokenizers of {self.folder} cannot be loaded: {first_line(error)}") from error
            for name in self.names:
                limit_tokens(getattr(self._pipeline, name.replace(ENCODER, TOKENIZER), None), parts[name])
            if hasattr(self._pipeline, "tokenizer_max_length"):  # read off the first tokenizer as it was
                self._pipeline.tokenizer_max_length = self._pipeline.tokenizer.model_max_length
        return self._pipeline

    def _check_encoders(self) -> None:
        """Refuse a pipeline that lacks a text encoder which its stock class cannot do without."""
        lacking = [name for name, present in self._components.items() if not present and name.startswith(ENCODER)]
        optional = self.family.optional_encoders if isinstance(self.family, OptionalEncoders) else lacking
        needed = [name for name in lacking if name not in optional]
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
        self._check_lengths(pipeline, prompts)
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
        tokenizer, limit = self.family.token_limit(self.load())
        texts = list(prompts)
        if isinstance(self.family, RewrittenTexts):
            texts = self.family.texts_read(self.load(), prompts)
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

    def _check_lengths(self, pipeline: Any, prompts: Sequence[str]) -> None:
        if self.long_prompts == "cut":
            return
        for prompt, count in self.too_long(prompts).items():
            raise RequestError(
                f"The prompt '{_beginning(prompt)}' has {count} tokens, and the text encoder reads "
                f"{self.family.token_limit(pipeline)[1]}. Shorten it{self._or_cut}."
            )

    @property
    def _or_cut(self) -> str:
        return f", or have such prompts cut with {self.how_to_cut}" if self.how_to_cut else ""

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
    found = stock_pipeline(index)
    if found is None:
        raise RequestError(
            f"The installed diffusers has no {index.get('_class_name')}, which {folder} is. Upgrade diffusers."
        )
    return found
