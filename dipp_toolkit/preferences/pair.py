"""Images that can be compared, and what a voter said of two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..evaluation.image_files import read_image

FIRST, SECOND, EQUAL = "first", "second", "equal"
OUTCOMES = {FIRST: 1.0, EQUAL: 0.5, SECOND: 0.0}
"""What a choice is worth to the first image; a tie is half a win of each."""


@runtime_checkable
class Picture(Protocol):
    """Where an image's pixels are, which are read when they are needed."""

    def read(self) -> Float[Tensor, "3 height width"]:
        """The pixels in [0, 1].

        Raises:
            RequestError: the image is missing or damaged.
        """

    def encoded(self) -> bytes:
        """The image as a file that browsers show: PNG, JPEG or WebP.

        Raises:
            RequestError: the image is missing.
        """


@dataclass(frozen=True)
class PictureFile:
    """An image in a file.

    Attributes:
        path: of any format that `evaluation.image_files` reads; of one that browsers show where it is served.
    """

    path: Path

    def read(self) -> Float[Tensor, "3 height width"]:
        """The pixels in [0, 1].

        Raises:
            RequestError: the file is missing or damaged.
        """
        return read_image(self.path).pixels

    def encoded(self) -> bytes:
        """The file as it is.

        Raises:
            RequestError: it is missing or cannot be read.
        """
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise RequestError(f"There is no image {self.path}.") from None
        except OSError as error:
            raise RequestError(f"The image {self.path} cannot be read: {error.strerror or error}.") from error


@dataclass(frozen=True)
class Candidate:
    """An image that can be voted on.

    Attributes:
        id: which image of its file or dataset it is.
        prompt: what it was made for.
        maker: what made it, such as a generator's label; empty where nothing says it.
        picture: where its pixels are.
        category: of its prompt; empty where the prompts have none.
    """

    id: int
    prompt: str
    maker: str
    picture: Picture
    category: str = ""


@dataclass(frozen=True)
class Comparison:
    """What a voter said of two images of one prompt.

    Attributes:
        first: one image; on the page, the left one.
        second: the other.
        outcome: 1 where the first was preferred, 0 where the second was, 0.5 where neither was.
        voter: who said it.
        repeat: whether this voter had been asked about this pair before; it measures how consistent a voter is, and
            counts in no fit.
    """

    first: Candidate
    second: Candidate
    outcome: float
    voter: str
    repeat: bool = False

    @property
    def winner(self) -> Candidate | None:
        """The preferred image; None of a tie."""
        return (
            None if self.outcome == OUTCOMES[EQUAL] else self.first if self.outcome > OUTCOMES[EQUAL] else self.second
        )

    @property
    def loser(self) -> Candidate | None:
        """The image that was not preferred; None of a tie."""
        return (
            None if self.outcome == OUTCOMES[EQUAL] else self.second if self.outcome > OUTCOMES[EQUAL] else self.first
        )

    @property
    def pair(self) -> frozenset[int]:
        """The two images' ids, in no order."""
        return frozenset((self.first.id, self.second.id))


def joined(parts: Iterable[Sequence[Comparison]]) -> list[Comparison]:
    """The comparisons of several files, whose images are numbered anew so that no two share an id."""
    together: list[Comparison] = []
    after = 0
    for part in parts:
        moved = [
            replace(
                one,
                first=replace(one.first, id=one.first.id + after),
                second=replace(one.second, id=one.second.id + after),
            )
            for one in part
        ]
        after = max([after, *(image.id + 1 for one in moved for image in (one.first, one.second))])
        together += moved
    return together


def fitted_on(comparisons: list[Comparison]) -> list[Comparison]:
    """Those that a fit counts: all but repeats."""
    return [comparison for comparison in comparisons if not comparison.repeat]
