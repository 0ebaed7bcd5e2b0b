"""`plan`: memory and time of a training, before anything is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..planning.estimate import Plan, make_plan
from ..training.setup.resolve import with_recommended
from ..utils.python_words import python_words
from .parts import GivenParts
from .train import gathered, named


class PlanResult(dict[str, Any]):
    """A plan as `dipp plan --json` prints it, with its peak in bytes as `peak`."""

    def __init__(self, plan: Plan):
        super().__init__(plan.as_dict())

    @property
    def peak(self) -> int:
        """Bytes of memory at the peak of a step."""
        return int(self["peak"])

    def __repr__(self) -> str:
        return f"<PlanResult: {self.peak / 2**30:.2f} GiB at the peak, {self['trainable'] / 1e6:,.1f} M trained>"


def plan(config: TrainConfig | str | Path | None = None, **settings: Any) -> PlanResult:
    """Memory and time of a training, by the settings that `train` takes; no weights are loaded.

        >>> plan(generator="emoji-onestep", batch_size=8).peak > 0
        True

    Args:
        config: settings, or a YAML file of them; the keywords stand above it.
        settings: as `train` takes them. Objects count as far as a folder says what they are: a `diffusers` pipeline.

    Raises:
        RequestError: a name is unknown, has no blueprint, or a value is out of range.
    """
    with python_words():
        objects = GivenParts()
        values = named(objects, {name: value for name, value in settings.items() if value is not None})
        with objects.lent():
            return PlanResult(make_plan(with_recommended(gathered(config, values))))
