"""What a tuning is told, and what of it decides its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import RequestError
from ...utils.messages import unknown_name

Way = Literal["reference", "difference"]
WAYS: tuple[str, ...] = get_args(Way)
TERM = "tuned_difference"

DISTILLATION: Mapping[str, Any] = {"rewards": {}, "steps": 300, "cooldown": 150, "ema": 0.98, "monitor_every": 0}
"""Settings of the second stage where nothing else is asked for: no reward, so that the pictures alone decide."""

ANYWHERE = ("device", "trackers", "push_to_hub", "resume", "checkpoint_every", "sample_every")
"""Settings that a tuning may be gone on with otherwise."""


@dataclass(frozen=True, kw_only=True)
class AdapterRequest:
    """How the adapter on the reference is trained.

    Attributes:
        steps: its updates.
        batch: pictures an update.
        learning_rate: Adam's.
        rank: of the adapter.
        caption_dropout: share of captions that are left empty, so that guidance goes on working.
        save_every: updates between two checkpoints.
    """

    steps: int = 500
    batch: int = 8
    learning_rate: float = 1e-3
    rank: int = 16
    caption_dropout: float = 0.1
    save_every: int = 100

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            RequestError: a number is out of its range.
        """
        for name in ("steps", "batch", "rank", "save_every"):
            if getattr(self, name) < 1:
                raise RequestError(f"{flag(name)} is {getattr(self, name)}; expected at least 1.")
        if not 0 < self.learning_rate < 1:
            raise RequestError(f"{flag('learning_rate')} is {self.learning_rate}; expected a number between 0 and 1.")
        if not 0 <= self.caption_dropout < 1:
            raise RequestError(f"{flag('caption_dropout')} is {self.caption_dropout}; expected 0 to below 1.")


def flag(name: str) -> str:
    """How a part of `AdapterRequest` is typed."""
    own = {"caption_dropout": "--caption-dropout", "save_every": "--adapter-save-every"}
    return own.get(name, f"--adapter-{name.replace('_', '-')}")


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """What is to be done.

    Attributes:
        pictures: the folder of pictures.
        out: where everything goes.
        captions: a file of captions, or a prompt set; None for what lies beside the pictures.
        caption: one caption for all; None for none.
        way: `"reference"` distils towards the tuned reference, `"difference"` keeps the base reference and takes what
            tuning added as an implicit reward.
        strength: of that difference.
        naive: whether the generator's own network is tuned by the denoising loss as well, to stand beside.
        adapter: how the adapter is trained.
        train: settings of the second stage by name, `generator` among them; see `TrainConfig`.
    """

    pictures: Path
    out: Path
    captions: str | None = None
    caption: str | None = None
    way: str = "reference"
    strength: float = 1.0
    naive: bool = False
    adapter: AdapterRequest = field(default_factory=AdapterRequest)
    train: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot be, before anything is read.

        Raises:
            RequestError: as a sentence.
        """
        if self.way not in WAYS:
            raise RequestError(unknown_name("way", self.way, WAYS))
        if not self.strength > 0:
            raise RequestError(f"--strength is {self.strength:g}; expected a number above 0.")
        if self.strength != 1 and self.way != "difference":
            raise RequestError("--strength is of the difference to the tuned reference: give it with --way difference.")
        if self.captions is not None and self.caption is not None:
            raise RequestError("--captions and --caption both say the pictures' captions: give one of them.")
        for name in ("term", "term_options"):
            if name in self.train:
                raise RequestError("The term of a tuning is chosen by --way: leave term out.")
        self.adapter.check()

    def decides(self, digest: str, reference: str) -> dict[str, Any]:
        """What the outputs in the folder depend on, for `tune.json`."""
        adapter = {name: value for name, value in asdict(self.adapter).items() if name != "save_every"}
        run = {name: str(value) for name, value in sorted(self.train.items()) if name not in ANYWHERE}
        return {
            **run,
            "pictures": digest,
            "reference": reference,
            "way": self.way,
            "strength": self.strength,
            **{f"adapter_{name}": value for name, value in adapter.items()},
        }
