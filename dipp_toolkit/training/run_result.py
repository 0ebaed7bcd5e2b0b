"""What a finished run leaves, as one looks at it in Python: pictures, numbers, the pipeline, the generator."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, RequestError
from ..models.files.folders import quiet_loading
from ..models.files.saved_generators import FILE, INDEX
from ..report.run_files import read_metrics, read_run
from ..report.table import scores_of
from ..report.write import PICTURE, REPORT
from ..utils.messages import number_text, short_name
from ..utils.tables import as_table

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..evaluation.comparison import Comparison


class RunImages(Mapping[str, list["Image"]]):
    """The pictures of a run's comparison by column: `"before"`, `"after"` and `"reference"`, of the same noises.

    `images.before[i]` and `images.after[i]` are of the prompt `images.prompts[i]`: each prompt stands as often as it
    has noises.

    Args:
        comparison: as it was saved.
    """

    def __init__(self, comparison: Comparison):
        from ..models.drawing import as_pictures

        self.prompts = [prompt for prompt in comparison.prompts for _ in comparison.seeds]
        self._columns = {name: as_pictures(images.flatten(0, 1)) for name, images in comparison.images.items()}

    def __getitem__(self, column: str) -> list[Image]:
        return self._columns[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def before(self) -> list[Image]:
        """Made before the first step."""
        return self["before"]

    @property
    def after(self) -> list[Image]:
        """Made by the finished generator."""
        return self["after"]

    @property
    def reference(self) -> list[Image]:
        """Made by the reference, in its many steps."""
        return self["reference"]

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(pictures)} {name}" for name, pictures in self.items())
        return f"<images of a run: {counts}>"


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a finished run leaves: its folder, what `summary.json` holds, and everything in the folder as objects.

    In a notebook it shows the picture of before and after.

    Attributes:
        folder: the run's.
        summary: what `summary.json` holds.
        given: generator and reference, by these words, where they were given as objects: what the run saved is loaded
            by the generator's own method.
    """

    folder: Path
    summary: dict[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def load(cls, folder: str | Path) -> RunResult:
        """The result of a run that finished earlier.

        Raises:
            CheckpointError: the folder is not of a finished run.
        """
        run = read_run(Path(folder).expanduser())
        return cls(run.folder, dict(run.summary))

    @property
    def final(self) -> Path:
        """The folder of the finished generator."""
        return self.folder / "final"

    @cached_property
    def pipeline(self) -> Any:
        """The exported `diffusers` pipeline, loaded: `result.pipeline("fox on blue", num_inference_steps=1)`.

        Raises:
            RequestError: the generator is no diffusers pipeline.
        """
        import torch
        from diffusers import DiffusionPipeline

        if not (self.final / INDEX).is_file():
            raise RequestError(
                f"{self.final} is {self.summary.get('final') or 'no diffusers pipeline'}. Draw with result.generator."
            )
        with quiet_loading(), torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
            return DiffusionPipeline.from_pretrained(str(self.final))

    @cached_property
    def generator(self) -> Any:
        """The finished generator, loaded: `result.generator("fox on blue", seed=0)`.

        Raises:
            RequestError: it cannot be loaded again.
        """
        from ..models.loading import load_generator, load_reference
        from ..models.own_network import OwnGenerator
        from ..protocols import Reloadable

        given = self.given.get("generator")
        if given is None or not (self.final / FILE).is_file():
            with quiet_loading():
                return load_generator(str(self.final))
        if not isinstance(given, Reloadable):
            raise RequestError(
                f"{self.final} holds what save_pretrained of your {type(given).__name__} wrote, and that has no "
                "load_pretrained(folder) to load it again. Add that method; the run need not be repeated."
            )
        made = given.load_pretrained(self.final)
        if isinstance(made, OwnGenerator) and made.reference is None:
            with quiet_loading():
                made.reference = self.given.get("reference") or load_reference(self.summary["reference"])
        return made

    @cached_property
    def images(self) -> RunImages:
        """The pictures of the comparison before and after.

        Raises:
            CheckpointError: they are not there, or damaged.
        """
        comparison = read_run(self.folder).comparison
        if comparison is None:
            raise CheckpointError(f"The run {self.folder} has no images of before and after.")
        return RunImages(comparison)

    @cached_property
    def metrics(self) -> Any:
        """The numbers of every step: a `pandas.DataFrame` with one row a step, or without pandas a list of mappings."""
        return as_table(read_metrics(self.folder / "metrics.jsonl"), "step")

    @property
    def report(self) -> Path:
        """The page with pictures, curves and settings: `webbrowser.open(result.report.resolve().as_uri())`."""
        return self.folder / REPORT

    @property
    def picture(self) -> Image | None:
        """The picture of before and after; None where the run has none."""
        from PIL import Image

        path = self.folder / PICTURE
        return Image.open(path) if path.is_file() else None

    @property
    def warnings(self) -> list[str]:
        """What the run warned of, sentences."""
        return list(self.summary.get("warnings") or ())

    def _scores(self) -> Iterator[tuple[str, str, str]]:
        """Of every reward and the judge: its name, and its mean before and after."""
        rows = dict(self.summary.get("rewards") or {})
        judge = self.summary.get("judge")
        if isinstance(judge, dict) and "name" in judge:
            rows[f"{judge['name']}"] = judge
        for name, columns in rows.items():
            scores = scores_of(columns)
            if "before" in scores and "after" in scores:
                yield short_name(name), number_text(scores["before"].mean), number_text(scores["after"].mean)

    def __repr__(self) -> str:
        scores = "; ".join(f"{name} {before} → {after}" for name, before, after in self._scores())
        steps = self.summary.get("steps")
        return f"<RunResult {str(self.folder)!r}, {steps} step{'s' * (steps != 1)}{'; ' + scores if scores else ''}>"

    def _repr_html_(self) -> str:
        from ..utils.images import data_address

        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{before}</td><td>{after}</td></tr>"
            for name, before, after in self._scores()
        )
        table = f"<table><tr><th></th><th>before</th><th>after</th></tr>{rows}</table>" if rows else ""
        picture = self.picture
        shown = "" if picture is None else f'<img alt="before and after" src="{data_address(picture, "png")}">'
        noted = "".join(f"<p>Warning: {html.escape(warning)}</p>" for warning in self.warnings)
        head = f"<p>{html.escape(str(self.folder))}, {html.escape(json.dumps(self.summary.get('steps')))} steps</p>"
        return f"<div>{head}{table}{noted}{shown}</div>"

    def _repr_png_(self) -> bytes | None:
        path = self.folder / PICTURE
        return path.read_bytes() if path.is_file() else None
