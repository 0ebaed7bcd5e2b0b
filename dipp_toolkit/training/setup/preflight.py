"""What `--dry-run` checks: everything about a run short of downloading or loading weights. Nothing is written.

Every check is the one that the run itself makes; what is not known without weights is found out by the run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...config import TrainConfig
from ...distributed import launched_count
from ...errors import RequestError
from ...evaluation.loading import find_metric
from ...models.blueprints import PipelineBlueprint
from ...models.components import check_component, empty_component
from ...models.files.fetching import NotHere, check_fetching, without_fetching
from ...models.files.folders import family_of, resolve_folder
from ...models.files.named_folders import shrink_of
from ...models.files.saved_generators import DIFFUSERS, saved_generator
from ...models.generator import DiffusersGenerator
from ...models.generator_options import GUIDANCE, generator_options, guidance_option, pipeline_of_reference
from ...models.guidance_embedding import with_guidance_embedding
from ...models.published import PublishedGenerator
from ...models.reference import check_pipeline_folder, check_score, check_steps, latent_shape_of
from ...models.shared_components.choice import parts_text
from ...models.shared_components.pair import check_pair
from ...models.sizes import asked_sizes, in_pixels
from ...planning.recipes.recipe import recipe_text
from ...prompts.loading import load_prompts
from ...registry import get_registry
from ...rewards.groups import declared_samples
from ...rewards.loading import files_of, find_reward
from ...utils.assignments import is_remote_name
from ...utils.device import choose_device
from ...utils.image_sizes import size_text
from ...utils.imports import find_in_python, is_python_name
from ...utils.paths import is_there
from ..listeners import Trackers
from ..monitor import check_held_out
from ..optim import check_optimizer
from ..publish import check_repository
from ..run_state.checkpoint import checkpoints
from ..run_state.run_folder import choose_folder
from ..run_state.start_settings import as_begun
from .assembly import check_frozen_precision, check_generator, check_groups, reference_options
from .origins import licence_notices
from .prompt_weights import prompt_weights
from .resolve import resolve
from .run_sizes import no_sizes, run_sizes


@dataclass(frozen=True)
class Preflight:
    """What would be done.

    Attributes:
        rows: what matters of it, by what it is.
        fetched: what would come over the network.
    """

    rows: Mapping[str, str]
    fetched: tuple[str, ...]


@dataclass
class Parts:
    """Looks at parts by name, each once.

    Attributes:
        fetched: what would come over the network, in the keys.
    """

    fetched: dict[str, None] = field(default_factory=dict)
    _known: dict[str, Any] = field(default_factory=dict, repr=False)

    def rewards(self, names: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> None:
        """Look at rewards: their packages, files, environments, addresses and options.

        Raises:
            RequestError: one cannot be used.
        """
        for name in names:
            self._once(("reward", name, options.get(name, {})), lambda: self._reward(name, options.get(name, {})))  # noqa: B023

    def metrics(self, names: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> None:
        """Look at metrics: their packages, files and options.

        Raises:
            RequestError: one cannot be used.
        """
        for name in names:
            self._once(("metric", name, options.get(name, {})), partial(find_metric, name, **options.get(name, {})))

    def prompts(self, name: str) -> int | None:
        """How many prompts there are; None where they would have to be fetched.

        Raises:
            RequestError: they cannot be used.
        """

        def count() -> int | None:
            try:
                return len(load_prompts(name).prompts)
            except NotHere:
                return None

        length: int | None = self._once(("prompts", name), count)
        return length

    def pipeline(self, kind: str, name: str, options: Mapping[str, Any] | None = None) -> tuple[Path, bool] | None:
        """The folder of a reference or generator, and whether its weights are in it.

        Args:
            kind: `"reference"` or `"generator"`.
            name: as `load_reference` and `load_generator` take it.
            options: that it will be loaded with.

        Returns:
            The folder of a published one that is not here is its blueprint's, of configurations alone. None where
            nothing is known before its plugin loads it, or before it is fetched.

        Raises:
            RequestError: the name is unknown, a package is not installed, or the folder cannot be used.
        """
        place: tuple[Path, bool] | None = self._once(
            (kind, name, options), lambda: self._pipeline(kind, name, options or {})
        )
        return place

    def latent_shape(self, name: str, folder: Path) -> tuple[int, ...]:
        """The shape of one latent of a generator or a reference.

        Args:
            name: as somebody typed it.
            folder: its pipeline's.

        Raises:
            RequestError: the folder's configurations do not say it.
        """
        return latent_shape_of(folder, family_of(folder), shrink_of(name))

    def _once(self, key: Any, find: Any) -> Any:
        text = repr(key)
        if text not in self._known:
            self._known[text] = find()
        return self._known[text]

    def _reward(self, name: str, options: Mapping[str, Any]) -> None:
        files_of(find_reward(name, **options), options)

    def _pipeline(self, kind: str, name: str, options: Mapping[str, Any]) -> tuple[Path, bool] | None:
        registry = get_registry()
        entry = registry.entries[kind].get(name)
        if entry is None and kind == "generator":
            entry = pipeline_of_reference(name, options)
        elif entry is not None:
            entry.find_factory(options)
        if entry is not None:
            blueprint = registry.entries["blueprint"].get(name)
            published = blueprint.build() if blueprint is not None else None
            return self._published(published) if isinstance(published, PipelineBlueprint) else None
        if kind == "generator" and saved_generator(name) is not None:
            return None
        if is_python_name(name):
            find_in_python(name, kind, options)
            return None
        return self._folder(name.removeprefix(DIFFUSERS))

    def _published(self, blueprint: PipelineBlueprint) -> tuple[Path, bool]:
        if "/" not in blueprint.hub:  # no repository's: it comes with its plugin, weights and all
            return blueprint.folder, True
        return self._folder(blueprint.hub) or (blueprint.folder, False)

    def _folder(self, place: str) -> tuple[Path, bool] | None:
        try:
            folder = resolve_folder(place)
            if not is_there(place):
                self._check_whole(folder, place)
            return folder, True
        except NotHere:
            return None

    def _check_whole(self, folder: Path, hub: str) -> None:
        """Of a folder in the hub's cache, the run would fetch what is missing.

        Raises:
            NotHere: something is.
        """
        try:
            check_pipeline_folder(folder)
        except RequestError:
            check_fetching(f"what is missing of huggingface.co/{hub}")


@contextmanager
def dry_run_parts() -> Iterator[Parts]:
    """Nothing is fetched meanwhile, and a Python file that is imported leaves no compiled one beside it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with without_fetching() as fetched:
            yield Parts(fetched)
    finally:
        sys.dont_write_bytecode = before


def preflight(config: TrainConfig) -> Preflight:
    """Look at everything a training needs.

    Args:
        config: settings; those left unset are filled from what the generator's plugin recommends.

    Returns:
        What would be done.

    Raises:
        RequestError: what the training would be refused with.
    """
    with dry_run_parts() as parts:
        return Preflight(check_run(config, parts), tuple(parts.fetched))


def check_run(config: TrainConfig, parts: Parts) -> dict[str, str]:
    """Look at everything a training needs; see `preflight`.

    Raises:
        RequestError: what the training would be refused with.
    """
    config = resolve(config)
    device = choose_device(config.device)
    folder = choose_folder(config)
    begun = ""
    if config.resume:
        step = folder.check_resumable(config)
        config = as_begun(config, folder.saved_config())
        folder.check_step(step, config)
        warming = bool(checkpoints(folder.checkpoints))
        begun = ", goes on in the assistant's warm-up" if warming else ", begins anew: it has no checkpoint"
        begun = f", goes on from step {step}" if step else begun
    if config.push_to_hub is not None:
        check_repository(config.push_to_hub)
    Trackers(config.trackers)
    check_optimizer(config.optimizer)
    check_frozen_precision(config)
    names = dict.fromkeys([*config.rewards, *config.floors, config.judge, *config.monitor_rewards])
    parts.rewards(
        (name for name in names if name is not None), {name: config.options_of(name) for name in config.reward_options}
    )
    check_groups(config, declared_samples(config))
    trained, held_out = parts.prompts(config.prompts or ""), None
    if trained is not None:
        prompt_weights(config, load_prompts(config.prompts or "").prompts)
    if config.eval_prompts is not None:
        held_out = parts.prompts(config.eval_prompts)
    measured = trained if config.eval_prompts is None else held_out
    if measured is not None:
        check_held_out(config, min(measured, config.eval_count))
    joined = check_networks(config, parts)
    batch = config.batch_size * config.accumulation * launched_count()
    rows = {
        "recipe": recipe_text(config),
        "generator": config.generator or "starts as the reference's network",
        "start weights": ", ".join(filter(None, [config.weights, *config.lora])),
        "reference": str(config.reference),
        "parts": joined,
        "rewards": _rewards_text(config),
        "judge": config.judge or "",
        "prompts": counted(str(config.prompts), trained),
        "held-out prompts": counted(config.eval_prompts, held_out) if config.eval_prompts is not None else "",
        "objective": f"{config.term}, guidance {config.guidance_schedule or f'{config.guidance:g}'}",
        "steps": f"{config.steps} of {batch} samples" + ("" if config.mode == "full" else f", {config.mode}"),
        "sizes": _sizes_text(config, parts),
        "assistant": config.assistant_model or "",
        "warm-up": f"{config.assistant_warmup} assistant updates before the first step"
        if config.assistant_warmup
        else "",
        "device": f"{device}, {config.precision}" + _processes_text(),
        "folder": f"{folder.path}{begun}",
        "licence": " ".join(licence_notices(config)),
    }
    return {name: text for name, text in rows.items() if text}


def check_networks(config: TrainConfig, parts: Parts) -> str:
    """Look at the configurations of the reference and the generator, and whether they fit each other.

    Args:
        config: resolved settings.
        parts: where they are looked for.

    Returns:
        Whose text encoders, tokenizers and autoencoder are used; nothing where there is but one set, or none known.

    Raises:
        RequestError: what the training would be refused with.
    """
    reference = parts.pipeline("reference", config.reference or "", reference_options(config))
    options, record = generator_options(config), None
    if config.generator is not None:
        generator = parts.pipeline("generator", config.generator, options)
        entry = get_registry().entries["generator"].get(config.generator)
        if entry is not None and isinstance(entry.factory, PublishedGenerator):
            record, options = entry.factory, entry.factory.options(options)
    else:  # it starts from the reference's network, whose scheduler says nothing of a generator
        generator, options = reference, {"input_scale": "unit"} | options
    if reference is not None:
        family = check_pipeline_folder(*reference)
        with_guidance_embedding(family, guidance_option(config, "reference").get(GUIDANCE), reference[0])
        check_score(reference[0], family)
        check_steps(reference[0], family, config.reference_steps)
    if config.resolution is not None or config.aspects:
        for place, name in ((generator, config.generator or ""), (reference, config.reference or "")):
            if place is None and is_python_name(name):
                raise RequestError(no_sizes(config))
    if generator is None:
        return ""
    folder, has_weights = generator
    if reference is not None:
        named = (config.generator or config.reference or "", config.reference or "")
        check_pair(folder, reference[0], config.parts, weights=False, shrink=shrink_of(named[1]), names=named)
    name = family_of(folder).network_name
    if has_weights:
        check_component(folder, name)
    loaded = DiffusersGenerator.load(str(folder), **options)
    if record is not None:
        loaded = record.as_made(loaded)
    shell = loaded.with_network(empty_component(folder, name))
    shape = loaded.latent_shape if reference is None else parts.latent_shape(config.reference or "", reference[0])
    of = folder if reference is None else reference[0]
    sizes = run_sizes(config, of, family_of(of), shape, loaded.sizes)
    if sizes:
        shell, shape = shell.sized(sizes), (shape[0], *sizes[0])
    check_generator(shell, config, shape)
    return parts_text(folder, reference[0], config.parts) if reference is not None else ""


def _sizes_text(config: TrainConfig, parts: Parts) -> str:
    """The sizes that the settings ask for, in pixels; nothing where they ask for none, or before they are known."""
    name = config.reference or ""
    reference = parts.pipeline("reference", name, reference_options(config))
    if reference is None:
        return ""
    folder, family = reference[0], family_of(reference[0])
    sizes = asked_sizes(folder, family, parts.latent_shape(name, folder), config.resolution, config.aspects)
    return ", ".join(map(size_text, in_pixels(folder, family, sizes)))


def counted(name: str, count: int | None) -> str:
    """Prompts with their number, as far as it is known."""
    return f"{name}, to be fetched" if count is None else f"{name}, {count}"


def _rewards_text(config: TrainConfig) -> str:
    if not config.rewards and not config.floors:
        return "none: distillation alone"
    texts = [f"{name}={weight:g}" for name, weight in config.rewards.items()]
    texts += [
        f"{name} {weight:g} for {prompts}" for prompts, own in config.reward_for.items() for name, weight in own.items()
    ]
    texts += [f"{name} held above {level:g}" for name, level in config.floors.items()]
    asked = any(is_remote_name(name) for name in (*config.rewards, *config.floors))
    return f"{', '.join(texts)}; {config.strength}" + (" (servers not asked)" if asked else "")


def _processes_text() -> str:
    count = launched_count()
    return f", {count} processes" if count > 1 else ""


__all__ = ["Parts", "Preflight", "check_run", "counted", "dry_run_parts", "preflight"]
