"""The messages between a run and a reward in another process or on another machine: safetensors, never pickle.

One format serves both transports, the socket of an isolated worker and HTTP. A message is a safetensors file in memory:
a tensor `message`, the UTF-8 bytes of a JSON object that says what it is, and the tensors it speaks of.

    request   {"kind": "score", "prompts": [...], "gradients": true}   images (batch, 3, height, width) float32
    reply     {"kind": "scores"}      scores (batch,) float32, gradients like images where they were requested
              with report/NAME (batch,) float32 for what the reward says of each image beside its score
              with "identity": "..."  a digest of the reward's code and weights, where the other side sends one
    error     {"kind": "error", "error": "a sentence", "wrong_request": false}

Whoever decodes trusts nothing: whatever the bytes are, the outcome is a checked message or a `ProtocolError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float32
from safetensors.torch import load, save
from torch import Tensor

from ...errors import RunError
from ...utils.messages import is_broken

VERSION = 1
MESSAGE = "message"
SHARED = "shared"
"""In a worker's request the shape of its images, in a reply whether there are gradients: in memory that both see."""
ROOM = 2**20
"""Bytes that a message may be larger than its tensors: headers, an error sentence, a description."""
MEGABYTE = 2**20
REPORT = "report/"
"""What the tensors' names begin with that a reward says of images beside their scores."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
IDENTITY = re.compile(r"[0-9A-Za-z+/=_.:-]{1,128}")
MOST_HEADER, MOST_TEXT = 2**16, 2**24
"""Bytes of a message's safetensors header, which lists three tensors or so, and of its JSON."""


class ProtocolError(RunError):
    """Bytes from another process or machine that are not a message of this protocol."""


@dataclass(frozen=True)
class Message:
    """A message's content and its tensors.

    Attributes:
        content: a JSON object; its `kind` says what kind of message it is.
        tensors: by name.
    """

    content: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Such as `scores`."""
        return str(self.content.get("kind"))


@dataclass(frozen=True)
class Request:
    """Images to score.

    Attributes:
        images: in [0, 1], `(batch, 3, height, width)`, float32.
        prompts: one an image.
        gradients: whether the gradient of each score with respect to its image is wanted too.
    """

    images: Float32[Tensor, "batch 3 height width"]
    prompts: Sequence[str]
    gradients: bool


def encode(content: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """A message as bytes; tensors may be anywhere and of any layout."""
    text = torch.frombuffer(bytearray(json.dumps(content, allow_nan=False).encode()), dtype=torch.uint8)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()}
    return save({MESSAGE: text, **plain})


def decode(data: bytes) -> Message:
    """The message in these bytes.

    Raises:
        ProtocolError: they are not safetensors, or do not hold a JSON object with a kind.
    """
    announced = int.from_bytes(data[:8], "little")
    if len(data) >= 8 and announced > MOST_HEADER:
        raise ProtocolError(
            f"The message of {len(data)} bytes is not in the safetensors format: its header has {announced} bytes; "
            f"expected {MOST_HEADER} at most."
        )
    try:
        tensors = load(data)
    except Exception as error:  # safetensors and torch raise errors of several kinds for bytes that are neither's
        raise ProtocolError(
            f"The message of {len(data)} bytes is not in the safetensors format: {_short(error)}."
        ) from error
    text = tensors.pop(MESSAGE, None)
    if text is None or text.dtype != torch.uint8 or text.ndim != 1:
        raise ProtocolError(f"The message has no tensor '{MESSAGE}' of bytes.")
    if len(text) > MOST_TEXT:
        raise ProtocolError(f"The message's tensor '{MESSAGE}' has {len(text)} bytes; expected {MOST_TEXT} at most.")
    try:
        content = json.loads(text.numpy().tobytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"The message's tensor '{MESSAGE}' is not JSON: {_short(error)}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise ProtocolError(f"The message's tensor '{MESSAGE}' is not a JSON object with a kind.")
    return Message(content, tensors)


def encode_request(images: Float[Tensor, "batch 3 height width"], prompts: Sequence[str], gradients: bool) -> bytes:
    """A request to score images, sent in float32."""
    content = {"kind": "score", "protocol": VERSION, "prompts": list(prompts), "gradients": gradients}
    return encode(content, {"images": images.float()})


def encode_shared_request(shape: Sequence[int], prompts: Sequence[str], gradients: bool) -> bytes:
    """A request to score images of a shape that lie in memory which both sides see."""
    content = {"kind": "score", "protocol": VERSION, "prompts": list(prompts), "gradients": gradients}
    return encode(content | {SHARED: list(shape)})


def decode_request(message: Message) -> Request:
    """A request, checked.

    Raises:
        ProtocolError: with what was found and what was expected.
    """
    content = message.content
    if content["kind"] != "score" or content.get("protocol") != VERSION:
        raise ProtocolError(
            f"The message is of kind {_quoted(content['kind'])} and protocol {_quoted(content.get('protocol'))}; "
            f"expected 'score' and {VERSION}."
        )
    images = message.tensors.get("images")
    if images is None or images.dtype != torch.float32 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ProtocolError(
            f"The request has {_described(images)} as images; expected float32, (batch, 3, height, width)."
        )
    prompts, gradients = content.get("prompts"), content.get("gradients")
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ProtocolError("The request's prompts are not a list of strings.")
    if any(map(is_broken, prompts)):
        raise ProtocolError("A prompt of the request is not valid text: it contains half of a character.")
    if len(prompts) != len(images):
        raise ProtocolError(f"The request has {len(images)} images and {len(prompts)} prompts; expected one for each.")
    if not isinstance(gradients, bool):
        raise ProtocolError("The request does not say whether it wants gradients.")
    return Request(images, prompts, gradients)


def encode_scores(
    scores: Float[Tensor, " batch"],
    gradients: Tensor | None,
    identity: str = "",
    shared: bool = False,
    report: Mapping[str, Tensor] | None = None,
) -> bytes:
    """A reply with scores, and with the gradients of each score with respect to its image where there are any.

    Args:
        scores: of the images.
        gradients: None where there are none, or where they are `shared`.
        identity: a digest of the reward's code and weights.
        shared: whether the gradients lie in memory that both sides see.
        report: further numbers, one an image, by name.
    """
    tensors = {"scores": scores.float()}
    # Copies: a score may be one of them, and safetensors keeps no tensor twice.
    tensors |= {f"{REPORT}{name}": numbers.detach().float().clone() for name, numbers in (report or {}).items()}
    if gradients is not None:
        tensors["gradients"] = gradients.float()
    more = ({"identity": identity} if identity else {}) | ({SHARED: True} if shared else {})
    return encode({"kind": "scores", "protocol": VERSION} | more, tensors)


def decode_scores(message: Message, shape: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Scores and gradients of a reply, checked; whether the numbers are finite is for those who use them to say.

    Args:
        message: of any kind but an error.
        shape: of the images that were sent.

    Returns:
        Scores `(batch,)`, and gradients of the images' shape or None, both float32.

    Raises:
        ProtocolError: with what was found and what was expected.
    """
    if message.kind != "scores":
        raise ProtocolError(f"The reply is of kind {_quoted(message.kind)}; expected 'scores'.")
    scores, gradients = message.tensors.get("scores"), message.tensors.get("gradients")
    if scores is None or scores.dtype != torch.float32 or scores.shape != (shape[0],):
        raise ProtocolError(f"The reply has {_described(scores)} as scores; expected float32, ({shape[0]},).")
    if gradients is not None and (gradients.dtype != torch.float32 or gradients.shape != tuple(shape)):
        raise ProtocolError(f"The reply has {_described(gradients)} as gradients; expected float32, {tuple(shape)}.")
    return scores, gradients


def decode_report(message: Message, batch: int) -> dict[str, Float32[Tensor, " batch"]]:
    """What a reply says of each image beside its score, checked.

    Args:
        message: a reply with scores.
        batch: images that were sent.

    Raises:
        ProtocolError: with what was found and what was expected.
    """
    report = {}
    for name, numbers in message.tensors.items():
        if not name.startswith(REPORT):
            continue
        short = name.removeprefix(REPORT)
        if not NAME.fullmatch(short) or numbers.dtype != torch.float32 or numbers.shape != (batch,):
            raise ProtocolError(
                f"The reply has {_described(numbers)} as report {_quoted(short)}; expected float32, ({batch},), and a "
                "short name of letters, digits and underscores."
            )
        report[short] = numbers
    return report


def encode_error(sentence: str, wrong_request: bool = False) -> bytes:
    """A reply that says what went wrong, and whether it was with the request."""
    return encode({"kind": "error", "protocol": VERSION, "error": sentence, "wrong_request": wrong_request})


def error_of(message: Message) -> str | None:
    """The sentence of a reply that is an error, on one line; None for any other reply."""
    if message.kind != "error":
        return None
    return one_line(message.content.get("error") or "it gave no reason")


def differentiable_of(content: Any) -> bool | None:
    """Whether a description says that a reward has gradients; None where it does not know.

    Raises:
        ProtocolError: it is not a description, or it is of another version of the protocol.
    """
    if not isinstance(content, Mapping) or content.get("protocol", VERSION) != VERSION:
        raise ProtocolError(f"The other side does not speak version {VERSION} of the protocol.")
    differentiable = content.get("differentiable")
    if differentiable is not None and not isinstance(differentiable, bool):
        raise ProtocolError(
            f"The other side describes its reward as differentiable={_quoted(differentiable)}; expected true or false."
        )
    return differentiable


def identity_in(content: Any) -> str:
    """What a description or a reply says that its reward is, as a digest; empty where it says nothing usable."""
    identity = content.get("identity") if isinstance(content, Mapping) else None
    return identity if isinstance(identity, str) and IDENTITY.fullmatch(identity) else ""


def largest_reply(shape: Sequence[int], gradients: bool) -> int:
    """Bytes that a valid reply to images of this shape does not exceed."""
    count = shape[0] * (1 + (shape[1] * shape[2] * shape[3] if gradients else 0))
    return 4 * count + ROOM


def one_line(text: Any, length: int = 2000) -> str:
    """Somebody else's text on one line, cut to a length that a person reads, without control characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)[: 4 * length]).split())
    return line if len(line) <= length else line[:length] + " ..."


def _short(error: BaseException) -> str:
    return one_line(error, 200).rstrip(".") or type(error).__name__


def _quoted(value: Any) -> str:
    return f"'{one_line(value, 60)}'"


def _described(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
