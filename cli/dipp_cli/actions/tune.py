"""What `dipp tune` does: tune with settings, show progress, and print the result."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.experiments.tuning.run import TuneResult, tune
from dipp_toolkit.experiments.tuning.settings import AdapterRequest, TuneSettings
from dipp_toolkit.utils.paths import user_path

from ..terminal.output import plain_line, print_json, print_line, quiet_stdout
from ..terminal.progress import listener


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """The words of the command line that are not settings of a run."""

    pictures: Path
    captions: str | None
    caption: str | None
    way: str
    strength: float
    naive: bool
    adapter_steps: int
    adapter_batch: int
    adapter_rank: int
    adapter_learning_rate: float
    caption_dropout: float
    adapter_save_every: int

    def settings(self, config: TrainConfig) -> TuneSettings:
        """Both together."""
        train = {name: getattr(config, name) for name in config.model_fields_set if name != "out"}
        return TuneSettings(
            pictures=user_path(self.pictures),
            out=user_path(config.out or Path()),
            captions=self.captions,
            caption=self.caption,
            way=self.way,
            strength=self.strength,
            naive=self.naive,
            adapter=AdapterRequest(
                steps=self.adapter_steps,
                batch=self.adapter_batch,
                rank=self.adapter_rank,
                learning_rate=self.adapter_learning_rate,
                caption_dropout=self.caption_dropout,
                save_every=self.adapter_save_every,
            ),
            train=train,
        )


@dataclass
class Progress:
    """Lines on stderr; no bar, as the distillation draws one of its own while this one would still stand.

    Attributes:
        quiet: whether work is left out, and notes alone are told.
    """

    quiet: bool
    total: int = 0
    done: int = 0

    def begin(self, what: str, total: int) -> None:
        self.total, self.done = total, 0
        if not self.quiet:
            print_line(f"{what}: {total} to do" if total else f"{what}: nothing to do", file=sys.stderr)

    def advance(self, count: int) -> None:
        before, self.done = self.done, self.done + count
        if not self.quiet and self.done * 10 // self.total > before * 10 // self.total:
            print_line(f"{self.done} of {self.total}", file=sys.stderr)

    def note(self, sentence: str) -> None:
        print_line(plain_line(sentence), file=sys.stderr)


def run(request: TuneRequest, config: TrainConfig, as_json: bool, quiet: bool) -> None:
    """Tune, then print where everything is, or the JSON object.

    Raises:
        DippError: as `dipp_toolkit.experiments.tuning.run.tune` does.
    """
    settings = request.settings(config)
    with quiet_stdout(), listener(quiet) as progress:
        result = tune(settings, Progress(quiet), [progress])
    if as_json:
        print_json({"folder": str(result.folder), **result.summary})
        return
    describe(result)


def describe(result: TuneResult) -> None:
    """Print the judge's scores and the files."""
    judge = result.summary["judge"]
    if judge is not None:
        for column in result.summary["columns"]:
            score = judge[column]
            print_line(f"{judge['name']}, {column}: {score['mean']:.3f} ({score['low']:.3f} to {score['high']:.3f})")
    for warning in result.summary["warnings"]:
        print_line(f"Warning: {warning}")
    meaning = {
        "run/final": "the tuned generator, a diffusers pipeline",
        "reference": "the tuned reference, a diffusers pipeline",
        "reference-adapter": "its adapter, for peft and diffusers",
        "run/report.html": "the distillation's pictures and curves",
        "report/beside.png": "images side by side",
    }
    width = max(len(str(result.folder / name)) for name in meaning)
    for name, what in meaning.items():
        print_line(f"{result.folder / name!s:<{width}}  {what}")
    sys.stdout.flush()
