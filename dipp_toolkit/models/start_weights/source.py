"""Where start weights lie: a file or folder of this machine, or of a repository of the hub, with a scale for LoRA.

`./file.safetensors`, `OWNER/REPO:path/in/repo.safetensors`, `OWNER/REPO:folder` and `OWNER/REPO`; `=0.5` behind any of
them is the scale. What is here comes before what the hub may have.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import RequestError
from ...utils.messages import nearest, shown
from ...utils.paths import is_there, user_path
from ..files.fetching import NotHere, hub_file
from ..files.hub_problems import hub_problem

REPOSITORY = re.compile(r"(?P<hub>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<inside>.*))?")
ADDRESS = re.compile(r"https?://huggingface\.co/(?P<hub>[^/]+/[^/]+)/(?:resolve|blob)/[^/]+/(?P<inside>[^?#]+)")
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Of files that hold weights."""
EXPECTED = "expected a local file, or OWNER/REPO:path/in/repo.safetensors"


@dataclass(frozen=True)
class WeightSource:
    """Where weights lie.

    Attributes:
        text: as it was typed, without the scale.
        hub: the repository, `owner/name`; None for what is on this machine.
        inside: path of a file or folder in the repository; empty for the repository itself.
        scale: of a LoRA's update, any finite number; 1 where none was given.
    """

    text: str
    hub: str | None = None
    inside: str = ""
    scale: float = 1.0

    @property
    def is_file(self) -> bool:
        """Whether it is named as one file of weights, by its ending."""
        return PurePosixPath(self.inside if self.hub else self.text).suffix.lower() in ENDINGS

    def file(self) -> Path:
        """The file, from this machine, the hub's cache or the hub.

        Raises:
            RequestError: it is not there or cannot be fetched; the message says the way out.
            NotHere: it would have to be fetched, and this is a dry run.
        """
        if self.hub is None:
            path = user_path(self.text)
            if path.is_file():
                return path
            raise RequestError(_not_here(path))
        if not self.inside:
            raise RequestError(f"'{shown(self.text)}' names a repository; {EXPECTED}.")
        try:
            return hub_file(self.hub, self.inside)
        except NotHere:
            raise
        except Exception as error:  # the hub's client raises its own and its HTTP library's errors
            raise RequestError(hub_problem(error, self.hub, self.inside)) from error


def parse_source(text: str, *, scaled: bool = False) -> WeightSource:
    """What somebody typed.

    Args:
        text: see the module.
        scaled: whether `=SCALE` may stand behind it.

    Raises:
        RequestError: it is neither a path nor an address, or its scale is not a number.
    """
    text = text.strip()
    scale = 1.0
    if scaled and not is_there(text):
        text, scale = _split_scale(text)
    address = ADDRESS.fullmatch(text)
    if address is not None:
        raise RequestError(f"'{shown(text)}' is the address of a web page; write {address['hub']}:{address['inside']}")
    if not text or "://" in text:
        raise RequestError(f"'{shown(text)}' does not name weights; {EXPECTED}.")
    match = REPOSITORY.fullmatch(text)
    if match is None or is_there(text) or (match["inside"] is None and Path(text).suffix.lower() in ENDINGS):
        return WeightSource(text, scale=scale)
    inside = match["inside"] or ""
    if inside.startswith("/") or "\\" in inside or ".." in inside.split("/"):
        raise RequestError(f"'{shown(inside)}' leads out of the repository {match['hub']}; expected a path inside it.")
    return WeightSource(text, match["hub"], inside.strip("/"), scale)


def check_source(text: str, *, scaled: bool = False) -> None:
    """Refuse, before anything is loaded, what cannot be an address, or names a file of this machine that is not there.

    Args:
        text: as for `parse_source`.
        scaled: as for `parse_source`.

    Raises:
        RequestError: as `parse_source` and `WeightSource.file`.
    """
    source = parse_source(text, scaled=scaled)
    if source.hub is None and not is_there(source.text):
        source.file()


def _split_scale(text: str) -> tuple[str, float]:
    name, sign, number = text.rpartition("=")
    if not sign:
        return text, 1.0
    try:
        scale = float(number)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise RequestError(f"'{shown(text)}' has the scale '{shown(number)}'; expected a number, such as {name}=0.125.")
    return name, scale


def _not_here(path: Path) -> str:
    others = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
    guess = nearest(path.name, others)
    hint = f" Did you mean {path.parent / guess}?" if guess else ""
    what = "is a folder" if path.is_dir() else "is not there"
    return f"The file {path} {what} (looked in {path.parent.resolve()}); {EXPECTED}.{hint}"
