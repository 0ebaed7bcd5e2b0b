"""Load: what a record or a reference claims of the files is what the files say, and both pipelines load from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ....diffusion.predictions import prediction_from_config
from ....diffusion.schedules import VariancePreserving, schedule_from_config
from ....errors import DippError
from ....models.components import heeded_scheduler_config, load_scheduler
from ....models.files.folders import family_of
from ....models.files.named_folders import shrink_of
from ....models.generator import DiffusersGenerator
from ....models.generator_options import generator_options
from ....models.loading import load_generator, load_reference
from ....models.published import PublishedGenerator, PublishedPipeline
from ....models.readout import recorded_input_scale, stock_readout
from ....models.reference import DiffusersReference, latent_shape_of
from ....models.shared_components.choice import check_conditions, check_latents
from ....models.shared_components.differences import differing_parts, function_config, part_names
from ....models.shared_components.pair import encode_for
from ....models.sized import decoder_beside
from ....training.setup.assembly import reference_options
from ....utils.json_files import read_json
from ....utils.messages import shown
from ..check import Check, Outcome, equal, failed, judged, skipped
from ..subject import Subject

SAME_ALPHA = 1e-5
"""Of the noise schedule's signal coefficient; float32 and the ways to write one schedule differ by less."""
SAME_TIME = 5e-4
"""Of a read-out in [0, 1]: half a timestep of a thousand."""


def run(subject: Subject) -> Iterator[Outcome]:
    """Rows about claims, which need no weights but those of shared parts; then both are loaded."""
    generator, reference = subject.generator_folder, subject.reference_folder
    for kind, name, folder in (
        ("generator", subject.generator, generator),
        ("reference", subject.reference, reference),
    ):
        record = None if name is None else subject.record(kind, name)
        if folder is not None and record is not None:
            yield from _as_published(kind, record, folder, subject)
    if generator is not None and reference is not None and generator.resolve() != reference.resolve():
        if subject.record("generator", subject.generator or "") is None:
            yield _schedules("generator's noise schedule", generator, "its reference's", reference)
        yield _shared_parts(subject, generator, reference)
        yield _fitting(subject, generator, reference)
    yield from _loaded(subject)


def _as_published(kind: str, record: PublishedPipeline, folder: Path, subject: Subject) -> Iterator[Outcome]:
    """The files of a registered name against the configurations that its plugin has as published."""
    index, published = (read_json(place / "model_index.json") for place in (folder, record.configs))
    name = "_class_name"
    yield equal(
        f"{kind}'s pipeline class", published.get(name), shown(index.get(name)), "The files are of another pipeline."
    )
    if index.get(name) != published.get(name):
        return
    differences = _differing_configs(folder, record.configs)
    yield Outcome(
        f"{kind}'s configurations", "as published", "as published" if not differences else "; ".join(differences),
        "fail" if differences else "pass", "The files are not those that the name stands for." if differences else "",
    )  # fmt: skip
    if kind == "reference":
        yield _sampler(folder, record.configs)
    else:
        yield _schedules("generator's noise schedule", folder, "the published one", record.configs, _predicts(record))


def _predicts(record: PublishedPipeline) -> str | None:
    return record.prediction if isinstance(record, PublishedGenerator) else None


def _differing_configs(folder: Path, published: Path) -> list[str]:
    """What the networks' configurations of two folders of one class say otherwise; parts that one lacks aside."""
    network = family_of(folder).network_name
    differences = []
    for name in (network, *(part for part in part_names(published) if not part.startswith("tokenizer"))):
        if not all((place / name / "config.json").is_file() for place in (folder, published)):
            continue
        ours, theirs = function_config(folder, name), function_config(published, name)
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                differences.append(f"{name}'s {key} is {shown(ours.get(key))} and not {shown(theirs.get(key))}")
    return differences[:4]


def _sampler(folder: Path, published: Path) -> Outcome:
    """The reference's own scheduler, every setting of which changes what it samples."""
    ours, theirs = (
        {"class": type(scheduler).__name__, **scheduler.config}
        for scheduler in map(load_scheduler, (folder, published))
    )
    keys = sorted(key for key in ours.keys() | theirs.keys() if not key.startswith("_"))
    differing = [
        f"{key} is {shown(ours.get(key))} and not {shown(theirs.get(key))}"
        for key in keys
        if _plain(ours.get(key)) != _plain(theirs.get(key))
    ]
    return Outcome(
        "reference's scheduler", f"{theirs['class']} as published",
        "; ".join(differing[:4]) or f"{ours['class']} as published", "fail" if differing else "pass",
        "The folder has another scheduler than the published one." if differing else "",
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _schedules(what: str, folder: Path, whose: str, other: Path, prediction: str | None = None) -> Outcome:
    """Whether two folders' schedulers mean one noise schedule and prediction, wherever each one's ends."""
    sides = []
    for place in (folder, other):
        family = family_of(place)
        config = heeded_scheduler_config(place, family)
        sides.append((schedule_from_config(config, latent_shape_of(place, family)), prediction_from_config(config)))
    (ours, _), (theirs, _) = sides
    # What a record says of the prediction overrules what a folder's scheduler says.
    predicts, expected = (prediction or stated for _, stated in sides)
    why = (
        f"The scheduler's configuration in the folder is not {whose}: the network would be read with wrong "
        "coefficients. Put back the scheduler_config.json that belongs to these weights."
    )
    named = f"{whose}, predicting {expected}"
    if type(ours) is not type(theirs):
        return failed(what, why, f"{type(theirs).__name__}, {named}", type(ours).__name__)
    if isinstance(ours, VariancePreserving) and isinstance(theirs, VariancePreserving):
        count = min(len(ours.alphas_cumprod), len(theirs.alphas_cumprod))
        pair = [scheduler.alphas_cumprod[:count].double().sqrt() for scheduler in (ours, theirs)]
        difference = float((pair[0] - pair[1]).abs().max())
        measured = f"alpha off by {difference:.2g} at most over {count} times, predicting {predicts}"
        if predicts != expected:
            return failed(what, why, named, measured)
        return judged(what, named, measured, {"alpha": difference}, {"alpha": (0.0, SAME_ALPHA)}, why)
    return equal(what, f"flow matching, {expected}", f"flow matching, {predicts}", why)


def _shared_parts(subject: Subject, generator: Path, reference: Path) -> Outcome:
    """Text encoders, tokenizers and autoencoder, weights included."""
    what, expected = "generator's parts", "the reference's text encoders, tokenizers and autoencoder"
    differing = differing_parts(generator, reference)
    if not differing:
        return Outcome(what, expected, "the same", "pass")
    measured = "; ".join(f"{name}: {how}" for name, how in differing.items())
    if subject.config.parts != "same":
        return Outcome(
            what, expected, measured, "skipped", f"--set parts={subject.config.parts} says whose are used in training."
        )
    return failed(
        what,
        "The folder has another part than its reference, so that it would be trained with one and drawn with the "
        "other. Put back the part that belongs to these weights, or say whose are meant with --set parts=generator.",
        expected,
        measured,
    )


def _fitting(subject: Subject, generator: Path, reference: Path) -> Outcome:
    """Whether latents and conditions of the two are of one shape."""
    what = "latents and prompts of both"
    own = latent_shape_of(generator, family_of(generator))
    try:
        check_latents(own, latent_shape_of(reference, family_of(reference), shrink_of(subject.reference)))
        check_conditions(generator, reference, (subject.generator or "", subject.reference))
    except DippError as error:
        return failed(what, str(error))
    return Outcome(what, "one shape", f"latents of {' x '.join(map(str, own))}", "pass")


def _loaded(subject: Subject) -> Iterator[Outcome]:
    reference = load_reference(subject.reference, **reference_options(subject.config))
    generator = None
    if subject.generator is not None:
        generator = load_generator(subject.generator, **generator_options(subject.config))
    if isinstance(generator, DiffusersGenerator) and isinstance(reference, DiffusersReference):
        if subject.config.parts == "generator" and generator.folder != reference.folder:
            reference.use_parts(generator.folder)
        encode_for(generator, reference)
        reference = decoder_beside(reference, generator)
        yield from _read_out(subject, generator)
    networks = [reference.denoiser.network] + ([] if generator is None else [generator.network])
    parameters = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    subject.loaded = generator, reference
    bad = [name for network in networks for name, parameter in network.named_parameters() if not _finite(parameter)]
    measured = " and ".join(f"{count / 1e6:,.1f} million parameters" for count in parameters)
    why = f"Weights are not finite, such as {shown(bad[0])}: the file is damaged." if bad else ""
    yield Outcome("weights", "load, and are finite", measured, "fail" if bad else "pass", why)


@torch.no_grad()
def _finite(parameter: torch.Tensor) -> bool:
    return bool(torch.isfinite(parameter).all())


def _read_out(subject: Subject, generator: DiffusersGenerator) -> Iterator[Outcome]:
    """Where and of what the network is read, where a record says it."""
    record = subject.record("generator", subject.generator or "")
    if not isinstance(record, PublishedGenerator):
        yield skipped("read-out", f"No record says it; it is {_where(generator)}.")
        return
    published, options = record.blueprint().scheduler_config, subject.load_options
    expected = options.get("readout", stock_readout(published))
    yield judged(
        "read-out",
        f"{expected:.4g} of the schedule",
        f"{generator.readout:.4g}",
        {"readout": generator.readout},
        {"readout": (expected - SAME_TIME, expected + SAME_TIME)},
        "The generator is read out elsewhere than its record says.",
    )
    scale = options.get("input_scale") or recorded_input_scale(published)
    why = "The folder's scheduler starts its network from other noise than the published one does."
    yield equal("network's input", scale, generator.input_scale, why)


def _where(generator: DiffusersGenerator) -> str:
    return f"{generator.readout:.4g}, {generator.input_scale} input"


CHECK = Check("load", 20, run, "the files say what the record and the reference claim, and load")
