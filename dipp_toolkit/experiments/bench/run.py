"""A bench, top to bottom: images of every entry, their scores by every reward and metric, rows."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from ...distributed import Processes
from ...errors import RequestError
from ...evaluation.loading import find_metric, load_metric
from ...prompts.loading import load_prompts
from ...protocols import CostMetric, Metric, PromptSet, close, moved
from ...rewards.groups import refuse_alone
from ...rewards.loading import find_reward, load_reward
from ...rewards.scores import ask
from ...training.run_state.reserved_folder import own_folder
from ...utils.atomic import write_text
from ...utils.device import choose_device
from ...utils.disk_errors import AGAIN, explained
from ...utils.fingerprint import circumstances, digest_of
from ...utils.images import Images
from ...utils.json_files import read_json
from ...utils.json_forms import in_form
from ...utils.paths import below
from .entries import BenchEntry
from .rows import Row, write_rows
from .score_cache import ScoreCache, fill, folder_of, version_of
from .settings import METRICS, BenchSettings
from .sources import Source
from .store import ImageStore, image_key
from .summary import Measured, make_rows

RESULTS = "results.jsonl"


@runtime_checkable
class Listener(Protocol):
    """Told of a bench's progress."""

    def begin(self, what: str, total: int) -> None:
        """A piece of work of `total` images begins."""

    def advance(self, count: int) -> None:
        """So many images of it are done."""


class Silent:
    """A listener that ignores everything."""

    def begin(self, what: str, total: int) -> None: ...

    def advance(self, count: int) -> None: ...


@dataclass
class Bench:
    """One process's view of a bench.

    Attributes:
        settings: what is compared.
        prompts: the prompt set.
        device: where networks run.
        processes: those that share the work.
        store: the images.
        listener: told of the progress.
        measured: by label, what is known of each entry.
        versions: by figure or reward, what it is: what its numbers depend on beside the images and `circumstances`.
        circumstances: what the last bits of images and numbers depend on.
    """

    settings: BenchSettings
    prompts: PromptSet
    device: torch.device
    processes: Processes
    store: ImageStore
    listener: Listener
    measured: dict[str, Measured] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @cached_property
    def circumstances(self) -> dict[str, Any]:
        return circumstances(self.device, self.settings.batch)

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Every prompt with every seed, prompt by prompt."""
        return [(prompt.text, seed) for prompt in self.prompts.prompts for seed in self.settings.seeds]

    def make_images(self, entry: BenchEntry, costs: Mapping[str, CostMetric]) -> None:
        """Generate what the store does not hold of an entry, and measure what making images costs."""
        source = entry.source(self.device)
        fingerprint = source.fingerprint()
        pairs = self.pairs
        made_by = digest_of([fingerprint, self.circumstances])
        keys = [image_key(made_by, prompt, seed) for prompt, seed in pairs]
        pair_of = dict(zip(keys, pairs, strict=True))
        todo = self.processes.share(self.store.missing(keys))
        # No process may list what is missing while others are writing already.
        self.processes.wait()
        if todo:
            source.prepare([pair_of[key][0] for key in todo])
        self.listener.begin(f"images of {entry.label}", len(todo))
        for start in range(0, len(todo), self.settings.batch):
            batch = todo[start : start + self.settings.batch]
            prompts, seeds = zip(*(pair_of[key] for key in batch), strict=True)
            self.store.add(batch, source.images(prompts, seeds))
            self.listener.advance(len(batch))
        self.processes.wait()
        measured = Measured(entry, fingerprint, source.evaluations, keys)
        if self.processes.main:
            measured.costs = self._costs(source, fingerprint, costs)
        self.measured[entry.label] = measured
        self.processes.wait()

    def _costs(self, source: Source, fingerprint: str, metrics: Mapping[str, CostMetric]) -> dict[str, Any]:
        prompts = [prompt.text for prompt in self.prompts.prompts[:32]]
        versions = {name: self.version(name, metric) for name, metric in metrics.items()}
        depends = digest_of([fingerprint, self.circumstances, prompts, versions])
        path = below(self.settings.out, "answers", "costs", f"{depends[:24]}-{self.device.type}.json")
        measured = _known_costs(path)
        for name, metric in metrics.items():
            if name not in measured:
                self.listener.begin(f"{name}", 0)
                values = {key: list(map(float, values)) for key, values in metric.costs(source, prompts).items()}
                measured[name] = {"costs": values, "better": dict(metric.better)}
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(measured))
        return {name: measured[name] for name in metrics}

    def version(self, name: str, thing: Any) -> str:
        """What a reward or metric is, as a digest."""
        return version_of(name, self.settings.options.get(name, {}), thing)

    def ask(self, name: str, thing: Any, rows_of: Callable[[Images, Sequence[str]], Tensor]) -> None:
        """Have a reward or metric look at every image it has not seen."""
        version = self.version(name, thing)
        depends = digest_of([version, self.circumstances])[:16]
        answers = ScoreCache(folder_of(self.settings.out, name, depends), self.processes.rank)
        answers.refresh()
        prompt_of = {
            key: prompt
            for subject in self.measured.values()
            for key, (prompt, _) in zip(subject.keys, self.pairs, strict=True)
        }
        todo = self.processes.share(answers.missing(prompt_of))
        self.processes.wait()
        self.listener.begin(name, len(todo))

        def ask(keys: Sequence[str], prompts: Sequence[str]) -> Tensor:
            with torch.no_grad():
                return rows_of(self.store.read(keys).to(self.device), prompts)

        fill(answers, [(key, prompt_of[key]) for key in todo], ask, self.settings.batch, self.listener.advance)
        self.processes.wait()
        answers.refresh()
        self.versions[name] = version
        for subject in self.measured.values():
            subject.tables[name] = answers.table(subject.keys, len(self.prompts.prompts))

    def ask_reward(self, name: str) -> None:
        """Score every image with a reward that is loaded for that and let go after it."""
        reward = moved(load_reward(name, **self.settings.options.get(name, {})), self.device)
        refuse_alone(name, reward, "A bench")

        def rows_of(images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch 1"]:
            return ask(name, reward, images, prompts).detach().cpu().double().unsqueeze(1)

        try:
            self.ask(name, reward, rows_of)
        finally:
            close(reward)

    def ask_metric(self, name: str, metric: Metric) -> None:
        """Keep a metric's features of every image."""

        def rows_of(images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch dimensions"]:
            return metric.features(images, list(prompts)).detach().cpu()

        self.ask(name, metric, rows_of)


class _Costs(BaseModel):
    """What a metric of costs measured: values by figure, and which way each figure is better."""

    costs: dict[str, list[float]]
    better: dict[str, str]


def _known_costs(path: Path) -> dict[str, Any]:
    """What was measured before, without what is damaged: that is measured again."""
    known = {}
    with suppress(RequestError):
        for name, entry in (read_json(path) if path.is_file() else {}).items():
            with suppress(RequestError):
                in_form(entry, _Costs, str(path), "")
                known[name] = entry
    return known


def check_bench(settings: BenchSettings) -> None:
    """Refuse a bench whose rewards or metrics are unavailable, before hours go into images.

    Raises:
        RequestError: a name is unknown, its file or an option of it cannot be used, or a package is not installed.
    """
    settings.check()
    for name in (*settings.rewards, *settings.judges):
        find_reward(name, **settings.options.get(name, {}))
    names = dict.fromkeys([*METRICS, *settings.metrics])
    for name in settings.options:
        if name not in (*names, *settings.rewards, *settings.judges):
            raise RequestError(f"Options are given for '{name}', which this bench does not use.")
    for name in names:
        find_metric(name, **settings.options.get(name, {}))


def run_bench(settings: BenchSettings, listener: Listener | None = None) -> list[Row]:
    """Measure, and write `results.jsonl` in the bench's folder.

    Images and scores are kept by content, so a bench that was stopped resumes where it was, and another one with the
    same folder makes only what is new.

    Args:
        settings: what is compared.
        listener: told of the progress.

    Returns:
        The rows, in the order of the entries; in every process but the first, none.

    Raises:
        RequestError: something that was named cannot be used.
        RunError: a reward or metric failed, or a file cannot be written.
    """
    with explained(AGAIN):
        return _run_bench(settings, listener or Silent())


def _run_bench(settings: BenchSettings, listener: Listener) -> list[Row]:
    check_bench(settings)
    prompts = load_prompts(settings.prompts)
    names = dict.fromkeys([*METRICS, *settings.metrics])
    metrics = {name: load_metric(name, **settings.options.get(name, {})) for name in names}
    device = choose_device(settings.device)
    processes = Processes.launched(device)
    with own_folder(settings.out, processes):
        return _measure(settings, prompts, metrics, device, processes, listener)


def _measure(
    settings: BenchSettings,
    prompts: PromptSet,
    metrics: Mapping[str, Metric | CostMetric],
    device: torch.device,
    processes: Processes,
    listener: Listener,
) -> list[Row]:
    store = ImageStore(settings.images or settings.out / "images", processes.rank)
    bench = Bench(settings, prompts, device, processes, store, listener)
    costs = {name: metric for name, metric in metrics.items() if isinstance(metric, CostMetric)}
    for entry in settings.entries:
        bench.make_images(entry, costs)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    for name in (*settings.rewards, *settings.judges):
        bench.ask_reward(name)
        gc.collect()
    set_metrics = {name: metric for name, metric in metrics.items() if isinstance(metric, Metric)}
    for name, metric in set_metrics.items():
        bench.ask_metric(name, moved(metric, device))
    if not processes.main:
        return []
    rows = make_rows(settings, prompts, bench.measured, set_metrics, bench.versions, store)
    write_rows(settings.out / RESULTS, rows)
    return rows


def results_path(folder: Path) -> Path:
    """Where a bench in this folder leaves its rows."""
    return folder / RESULTS
