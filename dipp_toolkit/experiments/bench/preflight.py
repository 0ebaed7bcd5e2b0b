"""What `dipp bench --dry-run` looks at; see `dipp_toolkit.training.setup.preflight`."""

from __future__ import annotations

from ...models.components import check_component
from ...models.files.folders import family_of
from ...models.generator_options import GUIDANCE
from ...models.guidance_embedding import with_guidance_embedding
from ...models.reference import check_pipeline_folder, latent_shape_of
from ...training.setup.preflight import Parts, Preflight, counted, dry_run_parts
from ...utils.device import choose_device
from .entries import BenchEntry
from .run import check_bench
from .settings import METRICS, BenchSettings


def preflight_bench(settings: BenchSettings) -> Preflight:
    """Look at everything a bench needs.

    Returns:
        What would be done.

    Raises:
        RequestError: what the bench would be refused with.
    """
    with dry_run_parts() as parts:
        return Preflight(look_at_bench(settings, parts), tuple(parts.fetched))


def look_at_bench(settings: BenchSettings, parts: Parts) -> dict[str, str]:
    """Look at everything a bench needs; see `preflight_bench`.

    Raises:
        RequestError: what the bench would be refused with.
    """
    check_bench(settings)
    parts.rewards((*settings.rewards, *settings.judges), settings.options)
    prompts = parts.prompts(settings.prompts)
    device = choose_device(settings.device)
    for entry in settings.entries:
        look_at_entry(entry, parts)
    images = len(settings.entries) * len(settings.seeds)
    rows = {
        "generators": ", ".join(entry.label for entry in settings.entries),
        "rewards": ", ".join(settings.rewards),
        "judges": ", ".join(settings.judges),
        "metrics": ", ".join(dict.fromkeys([*METRICS, *settings.metrics])),
        "prompts": counted(settings.prompts, prompts),
        "images": f"{images} for each prompt" + ("" if prompts is None else f", {images * prompts}"),
        "device": str(device),
        "folder": str(settings.out),
    }
    return {name: text for name, text in rows.items() if text}


def look_at_entry(entry: BenchEntry, parts: Parts) -> None:
    """Look at the folders of an entry and of its decoder.

    Raises:
        RequestError: one cannot be used, or they do not fit each other.
    """
    if entry.is_reference:
        pipeline = parts.pipeline("reference", entry.name)
        if pipeline is not None:
            with_guidance_embedding(
                check_pipeline_folder(*pipeline), entry.generator_options.get(GUIDANCE), pipeline[0]
            )
        return
    generator, reference = (
        parts.pipeline("generator", entry.name),
        parts.pipeline("reference", entry.decoder),
    )
    if reference is not None:
        check_pipeline_folder(*reference)
    if generator is None or reference is None:
        return
    with_guidance_embedding(family_of(generator[0]), entry.generator_options.get(GUIDANCE), generator[0])
    if generator[1]:
        check_component(generator[0], family_of(generator[0]).network_name)
    entry.check_shapes(
        latent_shape_of(generator[0], family_of(generator[0])), parts.latent_shape(entry.decoder, reference[0])
    )
