"""From images and answers to the rows of the leaderboard."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...config import TrainConfig, make_config
from ...events import Warned
from ...monitoring.monitors import find_warnings, trained_on
from ...monitoring.snapshot import Snapshot
from ...protocols import Metric, NotedMetric, PromptSet, SeedsNeeded
from ...registry import get_registry
from ...utils.device import choose_device, environment
from ...utils.images import data_address
from ...utils.lazy_sequence import evenly_spaced
from .entries import BenchEntry
from .rows import SKEW_CORRECTED, EvaluationProtocol, Figure, Picture, Row, Subject
from .settings import BenchSettings
from .statistics import cost_figures, mean_figure, metric_figures
from .store import ImageStore


@dataclass
class Measured:
    """What is known of an entry.

    Attributes:
        entry: as it was named.
        fingerprint: of all that decides its images.
        evaluations: network passes an image.
        keys: its images in the store, prompt by prompt.
        costs: by metric, `{"costs": {figure: values}, "better": {...}}`.
        tables: by reward or metric, its rows `(P, S, D)`.
    """

    entry: BenchEntry
    fingerprint: str
    evaluations: int
    keys: list[str]
    costs: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Tensor] = field(default_factory=dict)


def prompts_digest(prompts: PromptSet) -> str:
    """SHA-256 of the prompts' ids and texts, in order."""
    text = "".join(f"{prompt.id}\0{prompt.text}\n" for prompt in prompts.prompts)
    return hashlib.sha256(text.encode()).hexdigest()


def make_rows(
    settings: BenchSettings,
    prompts: PromptSet,
    measured: Mapping[str, Measured],
    metrics: Mapping[str, Metric],
    versions: Mapping[str, str],
    store: ImageStore,
) -> list[Row]:
    """A row for every entry, with figures, warnings and pictures."""
    categories = [prompt.category for prompt in prompts.prompts]
    first = store.read([next(iter(measured.values())).keys[0]])
    protocol = EvaluationProtocol(
        prompts=prompts.name,
        digest=prompts_digest(prompts),
        count=len(prompts.prompts),
        seeds=settings.seeds,
        size=(first.shape[-2], first.shape[-1]),
        versions={},
    )
    about = environment(choose_device(settings.device)) | {"date": datetime.date.today().isoformat()}
    noted = [metric for metric in metrics.values() if isinstance(metric, NotedMetric)]
    rows = []
    for subject in measured.values():
        figures, from_whom = _figures(settings, subject, categories, metrics)
        size = store.read([subject.keys[0]]).shape[-2:]
        rows.append(
            Row(
                subject=_subject(subject),
                protocol=protocol.model_copy(
                    update={
                        "versions": {name: versions[who] for name, who in from_whom.items() if who in versions},
                        "size": (size[0], size[1]),
                    }
                ),
                figures=figures,
                notes=tuple(note for metric in noted for note in metric.notes),
                pictures=pictures_of(prompts, subject.keys, settings.seeds, settings.pictures, store),
                command=settings.command,
                environment=about,
                intervals=SKEW_CORRECTED,
            )
        )
    entries = {subject.entry.label: subject.entry for subject in measured.values()}
    return [_with_warnings(row, rows, settings, entries[row.label]) for row in rows]


def _figures(
    settings: BenchSettings, subject: Measured, categories: Sequence[str], metrics: Mapping[str, Metric]
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Figures by name, and which reward or metric each comes from."""
    figures: dict[str, Figure] = {}
    origin: dict[str, str] = {}
    for role, names in (("reward", settings.rewards), ("judge", settings.judges)):
        for name in names:
            figures[name] = mean_figure(subject.tables[name].squeeze(-1), categories, role, "higher")
            origin[name] = name
    for name, metric in metrics.items():
        if subject.tables[name].shape[1] < 2 and isinstance(metric, SeedsNeeded) and metric.needs_seeds:
            continue
        new = metric_figures(name, metric, subject.tables[name], categories)
        figures |= new
        origin |= dict.fromkeys(new, name)
    for name, cost in subject.costs.items():
        new = cost_figures(cost["costs"], cost["better"])
        figures |= new
        origin |= dict.fromkeys(new, name)
    return figures, origin


def _subject(measured: Measured) -> Subject:
    entry, run = measured.entry, measured.entry.run_settings
    return Subject(
        label=entry.label,
        name=entry.name,
        evaluations=measured.evaluations,
        settings={**entry.options, **entry.about},
        fingerprint=measured.fingerprint,
        trained_on=tuple(_trained_on(entry)),
        started_from=str(run.get("generator") or ""),
        is_reference=entry.is_reference,
    )


def _trained_on(entry: BenchEntry) -> dict[str, float]:
    """Rewards that a run's settings let count, with their weights; none where it is no run."""
    settings = {name: value for name, value in entry.run_settings.items() if name in TrainConfig.model_fields}
    return trained_on(make_config(settings))


def baseline_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of what a training started from, by name or label; None where it is not among them."""
    start = row.subject.started_from
    return next(
        (other for other in rows if start and start in (other.subject.name, other.label) and other is not row), None
    )


def reference_of(run: Mapping[str, Any], rows: Sequence[Row]) -> Row | None:
    """The row of the reference that a run was trained with, by name or label.

    A bench may hold references of several worlds, and colours are only held against those of one's own. Where a run's
    reference has no registered name, or the run is of no settings, it is the first one that the bench has.

    Args:
        run: the run's settings; empty for what is no run.
        rows: of the whole bench.
    """
    references = [row for row in rows if row.subject.is_reference]
    name = str(run.get("reference") or "")
    own = [row for row in references if name and name in (row.subject.name, row.label)]
    registered = name in get_registry().entries["reference"]
    return next(iter(own if own or registered else references), None)


def _with_warnings(row: Row, rows: Sequence[Row], settings: BenchSettings, entry: BenchEntry) -> Row:
    start = baseline_of(row, rows)
    if start is None:
        return row
    names = [*settings.rewards, *settings.judges]
    reference = reference_of(entry.run_settings, rows)
    warnings = find_warnings(
        snapshot_of(row, names),
        snapshot_of(start, names),
        _trained_on(entry),
        snapshot_of(reference, names) if reference is not None else None,
    )
    warned = tuple(Warned(name=warning.name, text=warning.text) for warning in warnings)
    return row.model_copy(update={"baseline": start.label, "warnings": warned})


def snapshot_of(row: Row, rewards: Sequence[str]) -> Snapshot:
    """Rewards, diversity and colours of a row, prompt by prompt.

    Args:
        row: with `saturation`, `contrast` and `clipped` among its figures, and `diversity` where it has several seeds.
        rewards: names of the figures that are rewards or judges.
    """

    def values(name: str) -> Tensor:
        return torch.tensor(row.figures[name].per_prompt or (), dtype=torch.float64)

    return Snapshot(
        rewards={name: values(name) for name in rewards},
        diversity=values("diversity") if "diversity" in row.figures else None,
        saturation=values("saturation"),
        contrast=values("contrast"),
        clipped=values("clipped"),
    )


SIDE = 192
"""Larger images are made smaller, to at most so many pixels a side."""
LOSSLESS = 96
"""Images up to this side stay PNG."""


def small_address(store: ImageStore, key: str) -> str:
    """A stored image, small, as a `data:` address."""
    with Image.open(store.path(key), formats=("PNG",)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if max(image.size) <= LOSSLESS:
        return data_address(image, "png", optimize=True)
    return data_address(image, "webp", quality=80)


def pictures_of(
    prompts: PromptSet, keys: Sequence[str], seeds: Sequence[int], count: int, store: ImageStore
) -> tuple[Picture, ...]:
    """Pictures of `count` prompts, evenly over the set, each with its first seed."""
    total = len(prompts.prompts)
    pictures = []
    for index in sorted(set(evenly_spaced(total, count)[:total])):
        prompt = prompts.prompts[index]
        data = small_address(store, keys[index * len(seeds)])
        pictures.append(Picture(prompt=prompt.text, seed=seeds[0], category=prompt.category, data=data))
    return tuple(pictures)
