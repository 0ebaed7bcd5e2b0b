"""What a judge is asked and how its answer is read: a template, one YAML file each.

A template asks for one of four things. A *yes or no* is read by the probabilities of the answer's first word, so that
it is a number and no verdict; a *rating* is a number that the answer writes after a label; a *comparison* is shown two
images, and says which is better or rates both. *Questions* are asked for about a prompt alone, without an image, for
`soft-tifa`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.messages import unknown_name
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.yaml_loader import load_yaml

FOLDER = Path(__file__).parent / "templates"
PROMPT = "{prompt}"
"""Where the image's prompt goes in a template's text."""
IMAGE = "{image}"
"""Where an image goes; all come before the text where it names no place."""

FIELDS = {True: "yes", False: "no"}
"""What YAML makes of these fields' names."""

Words = tuple[str, ...]


class Template(BaseModel):
    """A template.

    Attributes:
        ask: which of the four.
        text: what is asked, with `{prompt}` once or more, and `{image}` where each image goes; before it otherwise.
        system: the system message; none where empty.
        max_tokens: of an answer.
        source: where it is from, for people.
        yes: what the first word of a *yes* may be; case and white space do not count.
        no: as for `yes`.
        labels: of a rating or of a rated comparison: what stands before each number. Numbers are averaged.
        optional: labels that may have no number.
        every: whether all numbers after a label count, as of several aspects; the last one otherwise.
        lowest: of a number; a lower one is no answer.
        highest: of a number.
        sides: of a rated comparison: what stands after each label for the first and for the second image.
        first: of a comparison: sentences that say the first image is better.
        second: that the second is.
        tie: that neither is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ask: Literal["yes-no", "rating", "comparison", "questions"]
    text: str
    system: str = ""
    max_tokens: int = Field(1, ge=1, le=65536)
    source: str = ""
    yes: Words = Field(("yes",), min_length=1)
    no: Words = Field(("no",), min_length=1)
    labels: Words = ()
    optional: Words = ()
    every: bool = False
    lowest: float = 1.0
    highest: float = 5.0
    sides: tuple[str, str] = ("A", "B")
    first: Words = ()
    second: Words = ()
    tie: Words = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Template:
        if PROMPT not in self.text:
            raise ValueError(f"its text has no {PROMPT}, so every image would be asked about alike")
        if self.text.count(IMAGE) not in (0, self.images):
            raise ValueError(f"its text has {IMAGE} {self.text.count(IMAGE)} times, and a question shows {self.images}")
        if self.ask == "rating" and not self.labels:
            raise ValueError("a rating needs labels: what stands before each number in an answer")
        if self.ask == "comparison" and not self.labels and not (self.first and self.second):
            raise ValueError("a comparison needs labels, or sentences for first and second")
        if set(self.optional) - set(self.labels):
            raise ValueError("optional names a label that is not among labels")
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self

    @property
    def images(self) -> int:
        """How many images a question shows."""
        return {"comparison": 2, "questions": 0}.get(self.ask, 1)

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest score of an image."""
        return (self.lowest, self.highest) if self.ask == "rating" else (0.0, 1.0)

    @cached_property
    def digest(self) -> str:
        """Of all that decides a score."""
        return digest_of(self.model_dump(mode="json", exclude={"source"}))

    def pieces(self, prompt: str) -> list[str | None]:
        """What is asked about images of a prompt, in order; None stands for the next image. Braces of the prompt's own
        stay as they are."""
        texts = [prompt.join(part.split(PROMPT)) for part in self.text.split(IMAGE)]
        if len(texts) == 1:
            return [*[None] * self.images, *texts]
        pieces = [piece for text in texts for piece in (text, None)][:-1]
        return [piece for piece in pieces if piece is None or piece.strip()]


def template_names() -> list[str]:
    """Of those that come with the toolkit."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_template(name: str) -> Template:
    """A template by its name, or by the path of a file that ends in `.yaml` or `.yml`.

    Raises:
        RequestError: there is none, or it is not a template.
    """
    if name.endswith((".yaml", ".yml")):
        path = user_path(name)
    elif name in template_names():
        path = FOLDER / f"{name}.yaml"
    else:
        raise RequestError(
            f"{unknown_name('template of a judge', name, template_names())} A file of your own ends in .yaml."
        )
    return parse_template(path, load_yaml(path, "template"))


def parse_template(path: Path, content: Any) -> Template:
    """A template from what its file holds.

    Raises:
        RequestError: a field is missing, unknown or wrong.
    """
    if not isinstance(content, Mapping):
        raise RequestError(f"The template {path} is no mapping; expected fields such as 'ask: rating' and 'text: ...'.")
    try:
        return Template.model_validate({FIELDS.get(key, str(key)): value for key, value in content.items()})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ")
        raise RequestError(f"The template {path} cannot be used: {field + ': ' if field else ''}{what}.") from None
