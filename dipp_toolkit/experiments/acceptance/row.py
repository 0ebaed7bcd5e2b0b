"""The JSON row of an acceptance: what was found, with which files, on which machine, and nothing about a person."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import re
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ...config import TrainConfig
from ...errors import RequestError, first_line, without_secrets
from ...utils.assignments import is_isolated_name, is_remote_name
from ...utils.atomic import write_text
from ...utils.imports import is_python_name
from ...utils.json_files import parse_untrusted, read_bytes
from ...utils.json_forms import mistake_in
from ...utils.paths import is_there
from .check import Outcome, Verdict
from .settings import public_name
from .subject import Subject
from .weights_used import COMMIT, WeightFile

PLACE = "a folder of this machine"
PATH = re.compile(
    r"""(?x)
    (?<![\w.:/\\-])(?:file://)?                # what stands before a path, not inside a word or an address
    (?: ~[\w.-]* (?=/|\\)                      # a home
      | [A-Za-z]:(?=[\\/])                     # a drive
      | \\(?=\\\w)                             # a share
      | \.{0,2} (?=/\w) )                      # the root, or where the program was started
    (?: [\\/]+ [^\s'"<>|,;:()\[\]{}\\/]+ )+ [\\/]?
    """
)
LONGEST = 600
"""Characters of a text in a row."""

MOST_BYTES = 500_000
"""Of a file with a row."""
MOST_FILES, MOST_CHECKS, MOST_NUMBERS = 400, 200, 64
PERSONAL = ("out", "push_to_hub", "prompt_cache", "trackers", "resume", "device")
"""Settings that are of a machine, or decide nothing of what was measured."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_ -]{0,39}$")]
Text = Annotated[str, StringConstraints(max_length=1000)]
Name = Annotated[str, StringConstraints(max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Weights(_Part):
    """A weight file, as in `WeightFile`."""

    role: Name
    source: Name
    revision: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40})?$")]
    file: Name
    sha256: Digest
    bytes: Annotated[int, Field(ge=1, le=2**42)]


class CheckRow(_Part):
    """A row of the table, as in `Outcome`."""

    check: Word
    compared: Text
    expected: Text
    measured: Text
    verdict: Verdict
    why: Text = ""
    numbers: dict[Name, Number] = Field(default_factory=dict)
    bounds: dict[Name, Annotated[tuple[Number, Number], Field(strict=False)]] = Field(default_factory=dict)


class Machine(_Part):
    """What it ran on: the device's name and memory, and versions."""

    device: Name
    kind: Annotated[str, StringConstraints(pattern=r"^[a-z]{1,12}$")]
    memory_bytes: Annotated[int, Field(ge=0, le=2**42)]
    python: Name
    torch: Name
    diffusers: Name
    transformers: Name


class Toolkit(_Part):
    """The toolkit's version, its commit where it is a checkout's, and a digest of its sources."""

    version: Name
    commit: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40})?$")]
    sources: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class AcceptedRow(_Part):
    """An acceptance.

    Attributes:
        schema_version: of this form.
        name: what was accepted: a registered name, a hub id, or `a folder`.
        kind: `generator` or `reference`.
        reference: that it was held against.
        rewards: that were trained on.
        date: in UTC.
        toolkit: which one.
        machine: what it ran on.
        weights: every weight file that was used.
        settings: of the short alignment, those of a person's machine aside.
        settings_digest: SHA-256 of `settings` as JSON with sorted keys.
        scores: of the golden images, by reward.
        score_weights: by reward, what its golden numbers are kept under.
        checks: what was found.
        complete: whether it was run to its end, and not interrupted.
    """

    schema_version: Literal[1] = 1
    name: Name
    kind: Literal["generator", "reference"]
    reference: Name
    rewards: Annotated[tuple[Name, ...], Field(max_length=20, strict=False)]
    date: Annotated[str, StringConstraints(pattern=r"^20[2-9][0-9]-[01][0-9]-[0-3][0-9]$")]
    toolkit: Toolkit
    machine: Machine
    weights: Annotated[tuple[Weights, ...], Field(max_length=MOST_FILES, strict=False)]
    settings: dict[Name, Any]
    settings_digest: Digest
    scores: dict[Name, Annotated[tuple[Number, ...], Field(max_length=64, strict=False)]] = Field(default_factory=dict)
    score_weights: dict[Name, Text] = Field(default_factory=dict)
    checks: Annotated[tuple[CheckRow, ...], Field(min_length=1, max_length=MOST_CHECKS, strict=False)]
    complete: bool = True

    @property
    def failing(self) -> list[CheckRow]:
        """The rows that fail."""
        return [row for row in self.checks if row.verdict == "fail"]


def settings_digest(settings: Any) -> str:
    """SHA-256 of settings as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def make_row(subject: Subject, outcomes: Sequence[Outcome], complete: bool, now: datetime | None = None) -> AcceptedRow:
    """The row of what was found.

    Args:
        subject: what was accepted.
        outcomes: what its checks found.
        complete: whether all of them had their turn.
        now: when; the machine's clock unless said.
    """
    settings = public_settings(subject.config)
    return AcceptedRow(
        name=public(subject.candidate.public_name),
        kind="generator" if subject.generator is not None else "reference",
        reference=public(public_name(subject.reference)),
        rewards=tuple(_reward_name(name) for name in subject.config.rewards),
        date=(now or datetime.now(UTC)).date().isoformat(),
        toolkit=_toolkit(),
        machine=_machine(subject.device),
        weights=tuple(map(_weights, subject.weights)),
        settings=settings,
        settings_digest=settings_digest(settings),
        scores={_reward_name(name): scored.scores for name, scored in subject.scores.items()},
        score_weights={_reward_name(name): scored.weights for name, scored in subject.scores.items()},
        checks=tuple(map(_check_row, outcomes)),
        complete=complete,
    )


def public_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings without what is of a machine; folders, files and code of somebody's own as what they are."""
    plain = config.model_dump(mode="json", exclude=set(PERSONAL))
    named = {
        name: {_reward_name(key): value for key, value in plain[name].items()}
        for name in ("rewards", "floors", "reward_options")
    }
    public_values: dict[str, Any] = _public_value({**plain, **named})
    return public_values


def _public_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {public(str(key)): _public_value(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_public_value(child) for child in value]
    if not isinstance(value, str):
        return value
    return public(public_name(value) if is_there(value) or is_python_name(value) else value)


def _reward_name(name: str) -> str:
    """A reward's name as others may read it: neither addresses nor files of somebody's own."""
    elsewhere = is_remote_name(name) or is_isolated_name(name)
    return "a reward elsewhere" if elsewhere else public(public_name(name))


def _weights(file: WeightFile) -> Weights:
    return Weights(role=public(file.role), source=public(file.source), revision=file.revision, file=public(file.file),
        sha256=file.sha256, bytes=file.bytes)  # fmt: skip


def _check_row(outcome: Outcome) -> CheckRow:
    texts = {name: public(getattr(outcome, name)) for name in ("compared", "expected", "measured", "why")}
    numbers = dict(list(outcome.numbers.items())[:MOST_NUMBERS])
    return CheckRow(
        check=outcome.check, **texts, verdict=outcome.verdict, numbers=numbers,
        bounds={name: (float(low), float(high)) for name, (low, high) in outcome.bounds.items()},
    )  # fmt: skip


def _toolkit() -> Toolkit:
    from ...utils.fingerprint import software
    from ...utils.version import VERSION

    return Toolkit(version=VERSION, commit=_commit(), sources=software()["dipp-toolkit"])


def _commit() -> str:
    """The commit of the checkout that the toolkit is; empty where it is installed, or git says nothing."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    words = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return commit if COMMIT.fullmatch(commit) else ""


def _machine(device: torch.device) -> Machine:
    import diffusers
    import transformers

    cuda = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if cuda else 0
    name = torch.cuda.get_device_name(device) if cuda else f"{platform.machine()} {device.type}"
    return Machine(
        device=name, kind=device.type, memory_bytes=int(memory), python=platform.python_version(),
        torch=str(torch.__version__), diffusers=diffusers.__version__, transformers=transformers.__version__,
    )  # fmt: skip


def write_row(path: Path, row: AcceptedRow) -> None:
    """Write a row; the file appears whole or not at all.

    Raises:
        RequestError: it cannot be written.
    """
    text = json.dumps(row.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text + "\n")
    except OSError as error:
        raise RequestError(f"Cannot write the row {path}: {error.strerror or error}.") from error


def read_row(path: Path) -> AcceptedRow:
    """A row that somebody sent in.

    Raises:
        RequestError: the file is missing, or is not a row; the message names the field.
    """
    try:
        content = parse_untrusted(read_bytes(path, MOST_BYTES).decode("utf-8-sig"))
        return AcceptedRow.model_validate(content)
    except OSError as error:
        raise RequestError(f"Cannot read the row {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError:
        raise RequestError(f"The row {path} is not UTF-8 text; expected what dipp accept writes.") from None
    except ValidationError as error:
        raise RequestError(f"{path} is not a row of an acceptance: {mistake_in(error)}.") from error
    except RecursionError:
        raise RequestError(f"{path} is not a row of an acceptance: it is nested too deeply.") from None
    except ValueError as error:
        raise RequestError(f"{path} is not valid JSON: {first_line(error)}.") from error


def file_name(name: str) -> str:
    """The file that a row of a name goes to where none is named."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "row"
    return f"accepted-{plain[:80]}.json"


def public(text: str) -> str:
    """A text for a row: paths, the user's and the machine's names and secrets of addresses are out of it.

    Args:
        text: a sentence of the toolkit, or of a library, that may name files.
    """
    text = without_secrets(text)
    for place in _places():
        text = text.replace(place, PLACE)
    text = PATH.sub(PLACE, text)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    for name in _names():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "...", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _places() -> list[str]:
    """Folders whose names say something of somebody, the longest first."""
    places = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir()}
    return sorted((place for place in places if len(place) > 1), key=len, reverse=True)


def _names() -> list[str]:
    """The user's and the machine's names, where these are more than a word that others have too."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = ""
    plain = {"", "root", "user", "ubuntu", "runner", "localhost", "admin", "worker", "node"}
    return [name for name in (user, platform.node()) if name.lower() not in plain and len(name) > 2]


def has_path(text: str) -> bool:
    """Whether a text names a place on somebody's machine."""
    return PATH.search(text) is not None
