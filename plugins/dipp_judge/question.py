"""One question to a judge: what is sent to the server, and a name under which the answer is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import data_address

from .template import Template

MOST_LIKELY = 20
"""Log-probabilities of the first word that are asked for: the most that OpenAI's own servers give."""

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Question:
    """Images of one prompt, and what is asked about them.

    Attributes:
        template: what is asked.
        model: who is asked.
        prompt: of the images.
        images: as many as the template shows.
        extra: further fields of the request, such as a server's own.
    """

    template: Template
    model: str
    prompt: str
    images: Sequence[Pixels]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that an answer may depend on. Images count by their pixels, since the same picture compresses
        to other bytes with another version of zlib; where the server is does not count."""
        pictures = [
            f"{pixels.shape[0]}x{pixels.shape[1]} {hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()}"
            for pixels in self.images
        ]
        return digest_of(self._request(pictures))

    def body(self) -> bytes:
        """The request: JSON for `/chat/completions`, with the images as PNG in `data:` addresses."""
        pictures = [data_address(Image.fromarray(np.ascontiguousarray(pixels)), "png") for pixels in self.images]
        return json.dumps(self._request(pictures)).encode()

    def _request(self, pictures: Sequence[str]) -> dict[str, Any]:
        left = iter(pictures)
        content = [
            {"type": "text", "text": piece}
            if piece is not None
            else {"type": "image_url", "image_url": {"url": next(left)}}
            for piece in self.template.pieces(self.prompt)
        ]
        system = [{"role": "system", "content": self.template.system}] if self.template.system else []
        likely = {"logprobs": True, "top_logprobs": MOST_LIKELY} if self.template.ask == "yes-no" else {}
        return {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": content}],
            "max_tokens": self.template.max_tokens,
            "temperature": 0,
            "seed": 0,
            **likely,
            **self.extra,
        }
