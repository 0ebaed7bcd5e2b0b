"""The contract of a pipeline family: what the toolkit relies on, tried on the family's tiny twin.

A family whose twin keeps it is drawn, trained, resumed, exported and planned like those that the toolkit brings.
`dipp plugins check MyPipeline` runs it, and so does `tests/models/family_contract.py`; docs/guide/a-family.md goes
through it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import make_config
from ..models.autoencoding import autoencoding_of
from ..models.blueprints import PipelineBlueprint, parameter_count
from ..models.decoding import DecodeOptions
from ..models.family import BlankConditions, DistilledFrom
from ..models.files.download_lists import INDEX
from ..models.files.folders import component_config
from ..models.generator import DiffusersGenerator
from ..models.published import PublishedPipeline
from ..models.recomputed_blocks import recompute_blocks
from ..models.reference import DiffusersReference
from ..models.sampling import fixed_noise
from ..models.sizes import call_size, rules_of
from ..models.stock_call import stock_call_of
from ..models.tiny_pipelines import write_twin
from ..registry import get_registry
from ..training.publish import call_arguments
from ..training.run import train
from ..utils.exception_text import raised
from ..utils.image_sizes import Size
from ..utils.json_files import read_json
from ..utils.step_settings import Stepping
from .acceptance.plain_pipeline import plain_image, plain_images, plain_pipeline

PROMPTS = ("a red cat", "the big dog in the small house by the sea", "sun")
"""Of different lengths, so that padding shows."""
SEED = 3
STEPS, GUIDANCE = 4, 3.0
"""Of the multi-step samples."""
CLOSE = 1e-4
"""The largest difference of two images in [0, 1], and of what a network says of two batches."""
SAME = 1e-5
"""The largest difference of samples of another size than the configuration's, and of what recomputed blocks predict."""
SEEN = 1e-5
"""The least difference of what the network says of two prompts; random weights hear little of them."""
ROUNDED = 0.06
"""Authors round their models' sizes: 0.6 B, 1.6 B."""
RUN: dict[str, Any] = {
    "rewards": {}, "steps": 2, "batch_size": 2, "eval_count": 2, "reference_steps": 2, "assistant_warmup": 0,
    "device": "cpu", "checkpoint_every": 1, "judge": None, "lora_rank": 2, "learning_rate": 1e-3,
}  # fmt: skip
"""Settings of the trainings: towards the reference alone."""


@dataclass(frozen=True)
class Kept:
    """One line of the contract.

    Attributes:
        line: what was tried.
        found: what came out of it, or why it is not kept.
        kept: whether it is.
    """

    line: str
    found: str
    kept: bool = True


@dataclass(frozen=True)
class Twin:
    """A family's twin, loaded.

    Attributes:
        kind: the pipeline class's name.
        folder: of the twin.
        reference: it, as a reference.
    """

    kind: str
    folder: Path
    reference: DiffusersReference


@contextmanager
def twin_of(kind: str) -> Iterator[Twin]:
    """The twin of a pipeline class, in a temporary folder.

    Args:
        kind: the class's name.

    Raises:
        RequestError: it is unknown or has no twin.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = write_twin(kind, Path(folder) / "twin")
        yield Twin(kind, place, DiffusersReference.load(str(place)))


def check_family(kind: str) -> list[Kept]:
    """Try every line of the contract on a family's twin; what a line raises is what was found.

    Args:
        kind: the pipeline class's name.

    Raises:
        RequestError: it is unknown or has no twin.
    """
    with twin_of(kind) as twin:
        return [row for name in LINES for row in _tried(name, twin)]


def _tried(name: str, twin: Twin) -> Iterator[Kept]:
    try:
        yield from LINES[name](twin)
    except Exception as error:  # noqa: BLE001 -- anybody's code; whatever it raises is what was found
        yield Kept(name, f"{raised(error).rstrip('.')}.", False)


def conditions(twin: Twin) -> Iterator[Kept]:
    """Prompts are encoded to one length, each as though it were alone, and blank conditions have their shapes."""
    reference = twin.reference
    noise, times = _noise(reference), torch.tensor([0.2, 0.5, 0.8])
    whole = reference.encode(PROMPTS)
    with torch.no_grad():
        together = reference.denoiser.predict_x0(noise, times, whole)
        alone = [
            reference.denoiser.predict_x0(noise[[row]], times[[row]], reference.encode([prompt]))
            for row, prompt in enumerate(PROMPTS)
        ]
    yield _close("a prompt is encoded as though it were alone", together, torch.cat(alone))
    yield _differ("what the network predicts depends on the prompt", reference, whole, noise)
    if not isinstance(reference.family, BlankConditions):
        yield Kept("blank conditions", "The family has no `blank`, which dipp plan needs.", False)
        return
    blank = reference.at_size(reference.family.blank(component_config(twin.folder, reference.family.network_name), 2))
    given = whole[[0, 1]]
    shapes = [{name: tuple(tensor.shape) for name, tensor in one.tensors.items()} for one in (given, blank)]
    yield Kept(
        "a blank condition has the shapes of an encoded one",
        "It has." if shapes[0] == shapes[1] else f"It has {shapes[1]}, an encoded one {shapes[0]}.",
        shapes[0] == shapes[1],
    )


def sampling(twin: Twin) -> Iterator[Kept]:
    """The reference's samples are the stock pipeline's, and its decoder lets a gradient through."""
    reference, folder = twin.reference, twin.folder
    noise, condition = _noise(reference), reference.encode(PROMPTS)
    pipeline = plain_pipeline(folder, torch.float32, torch.device("cpu"))
    call = stock_call_of(reference.family)
    for guidance in (1.0, GUIDANCE) if reference.takes_two_passes(GUIDANCE) else (1.0,):
        arguments = call_arguments(folder, STEPS)
        if guidance > 1:
            arguments |= call.guidance_arguments(guidance, len(PROMPTS))
        ours = reference.decode(reference.sample(condition, noise, STEPS, guidance))
        theirs = plain_images(pipeline, folder, PROMPTS, noise, arguments)
        yield _close(f"{STEPS} steps at guidance {guidance:g} are the stock pipeline's", ours, theirs)
    latents = noise[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reference.reward_decoder(DecodeOptions())(latents).square().sum(), latents)
    alive = bool(gradient.isfinite().all() and gradient.abs().max() > 0)
    yield Kept("a gradient goes through the decoder", "It does." if alive else "It is zero or not finite.", alive)
    autoencoding, latents = autoencoding_of(reference.family), noise[:1]
    with torch.no_grad():
        pixels = autoencoding.decode(reference.vae, latents)
        encoded = autoencoding.encode(reference.vae, pixels.clamp(-1, 1))
    same = encoded.shape == latents.shape
    yield Kept("encoded images have the shape of a latent", f"{tuple(encoded.shape[1:])}", same)


def sizes(twin: Twin) -> Iterator[Kept]:
    """At a size that is not square, the reference's samples and a generator's are the stock pipeline's, and what is
    exported knows its size."""
    folder, family = twin.folder, twin.reference.family
    size = _other_size(twin)
    reference = twin.reference.sized(size)
    noise, condition = _noise(reference), reference.encode(PROMPTS)
    called = call_size(folder, family, size)
    arguments = {**call_arguments(folder, STEPS), **called}
    pixels = f"{called['width']} x {called['height']} pixels"
    guidance = GUIDANCE if reference.takes_two_passes(GUIDANCE) else 1.0
    if guidance > 1:
        arguments |= stock_call_of(family).guidance_arguments(guidance, len(PROMPTS))
    ours = reference.decode(reference.sample(condition, noise, STEPS, guidance))
    theirs = plain_images(plain_pipeline(folder, torch.float32, torch.device("cpu")), folder, PROMPTS, noise, arguments)
    yield _close(f"{pixels} are the stock pipeline's", ours, theirs, SAME)
    with tempfile.TemporaryDirectory() as scratch:
        final = Path(scratch) / "final"
        DiffusersGenerator.load(str(folder)).sized([size]).save_pretrained(final)
        generator = DiffusersGenerator.load(str(final))
        yield _exported(replace(twin, reference=reference), generator, final, f"a generator of {pixels}")


def _other_size(twin: Twin) -> Size:
    """Height and width of latents of another aspect than the twin's own, as its rules have them."""
    rules = rules_of(twin.folder, twin.reference.family)
    height, width = twin.reference.latent_shape[1:]
    wider = width + rules.multiple
    fits = rules.most is None or wider <= rules.most
    return (height, wider) if fits else (height - rules.multiple, width)


def few_steps(twin: Twin) -> Iterator[Kept]:
    """A generator of one step, and of two, is what the stock pipeline of its export draws.

    Where a class's scheduler sees tokens, the noise it draws between two steps lies otherwise on the image than a
    generator's: the same law, another image. Such a class is tried in one step, and in two deterministic ones, which
    those of consistency models do not have.
    """
    for steps in (1, 2) if stock_call_of(twin.reference.family).patch is None else (1,):
        generator = DiffusersGenerator.load(str(twin.folder)).in_steps(steps)
        with tempfile.TemporaryDirectory() as scratch:
            final = Path(scratch) / "final"
            generator.save_pretrained(final)
            yield _exported(twin, generator, final, f"a generator of {steps} step{'s' * (steps > 1)}")
    if isinstance(twin.reference.family, DistilledFrom):
        return
    generator = DiffusersGenerator.load(str(twin.folder)).in_steps(2).with_stepping(Stepping("none"))
    with tempfile.TemporaryDirectory() as scratch:
        generator.save_pretrained(final := Path(scratch) / "final")
        yield _exported(twin, generator, final, "a generator of 2 deterministic steps")


def training(twin: Twin) -> Iterator[Kept]:
    """Recomputed blocks predict what others do; a run changes the network, goes on after a stop to the same bits, and
    leaves what plain diffusers draws."""
    name = twin.reference.family.network_name
    yield _recomputed(twin.reference)
    for mode in ("full", "lora"):
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            whole = _trained(twin, place / "whole", mode, 2)
            before, after = _weights(twin.folder / name), _weights(whole / name)
            moved = before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)
            yield Kept(f"{mode}: a training changes the network", "It does." if moved else "It does not.", moved)
            yield _exported(twin, DiffusersGenerator.load(str(whole)), whole, f"{mode}: what a training leaves")
            if mode == "full":  # what a checkpoint keeps depends on the mode, and no more on the family
                continue
            _trained(twin, place / "parts", mode, 1)
            again = _weights(_trained(twin, place / "parts", mode, 2, resume=True) / name)
            same = after.keys() == again.keys() and all(torch.equal(after[key], again[key]) for key in after)
            yield Kept("a resumed run ends in the same bits", "It does." if same else "It does not.", same)


def published(kind: str) -> Iterator[Kept]:
    """Published names of the class have the size that their authors state."""
    for model in published_models(kind):
        blueprint = model.blueprint()
        with torch.device("meta"):
            count = parameter_count(blueprint.build(blueprint.family.network_name)) / 1e9
        line = f"{model.name} has its authors' size"
        if model.parameters is None:
            yield Kept(line, f"{count:.3g} B; its record states none.")
            continue
        close = abs(count / model.parameters - 1) <= ROUNDED
        yield Kept(line, f"{count:.4g} B by its configuration, {model.parameters:g} B as stated", close)


def published_models(kind: str) -> list[PublishedPipeline]:
    """The records of published pipelines of a class, a name once.

    Args:
        kind: the class's name.
    """
    registry, found = get_registry(), dict[str, PublishedPipeline]()
    for sort in ("reference", "generator"):
        for entry in registry.entries[sort].values():
            if isinstance(entry.factory, PublishedPipeline) and _class_of(entry.factory.blueprint()) == kind:
                found.setdefault(entry.factory.name, entry.factory)
    return list(found.values())


LINES: Mapping[str, Callable[[Twin], Iterator[Kept]]] = {
    "conditions": conditions,
    "sampling": sampling,
    "sizes": sizes,
    "few steps": few_steps,
    "training": training,
    "published": lambda twin: published(twin.kind),
}
"""The contract, in the order in which a new family comes to keep it."""


def _class_of(blueprint: PipelineBlueprint) -> str:
    return str(read_json(blueprint.folder / INDEX)["_class_name"])


def _noise(reference: DiffusersReference) -> Tensor:
    return fixed_noise(len(PROMPTS), reference.latent_shape, SEED)


def _close(line: str, ours: Tensor, theirs: Tensor, most: float = CLOSE) -> Kept:
    if ours.shape != theirs.shape:
        return Kept(line, f"{tuple(ours.shape)} here, {tuple(theirs.shape)} there.", False)
    largest = float((ours - theirs).abs().max())
    return Kept(line, f"They differ by {largest:.2g}, of {most:g} at most.", largest <= most)


def _recomputed(reference: DiffusersReference) -> Kept:
    plain, recomputed = reference.denoiser.trainable_copy(), reference.denoiser.trainable_copy()
    recompute_blocks(recomputed.network, reference.family)
    noise, times, condition = _noise(reference), torch.tensor([0.2, 0.5, 0.8]), reference.encode(PROMPTS)
    theirs, ours = (one.predict_x0(noise, times, condition).detach() for one in (plain, recomputed))
    return _close("blocks that are recomputed predict what others do", ours, theirs, SAME)


def _differ(line: str, reference: DiffusersReference, condition: Any, noise: Tensor) -> Kept:
    times = torch.full((2,), 0.5)
    with torch.no_grad():
        first, second = reference.denoiser.predict_x0(noise[[0, 0]], times, condition[[0, 1]])
    largest = float((first - second).abs().max())
    return Kept(line, f"Two prompts differ by {largest:.2g}.", largest > SEEN)


@torch.no_grad()
def _exported(twin: Twin, generator: DiffusersGenerator, final: Path, what: str) -> Kept:
    reference = twin.reference
    noise = _noise(reference)
    generator.network.eval()
    ours = reference.decode(generator.generate(noise, reference.encode(PROMPTS)))
    pipeline = plain_pipeline(final, torch.float32, torch.device("cpu"))
    call = call_arguments(final, generator.steps)
    theirs = torch.cat(  # one at a time: some classes draw the noise between steps for all images together
        [plain_image(pipeline, final, prompt, noise[[row]], call) for row, prompt in enumerate(PROMPTS)]
    )
    return _close(f"{what} is drawn by plain diffusers", ours, theirs)


def _trained(twin: Twin, out: Path, mode: str, steps: int, resume: bool = False) -> Path:
    prompts = out.parent / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
    family, against = twin.reference.family, twin.folder
    if isinstance(family, DistilledFrom):
        against = out.parent / "reference"
        if not against.exists():
            write_twin(family.reference_class, against)
    networks = {"generator": f"diffusers:{twin.folder}", "reference": f"diffusers:{against}"}
    places = {**networks, "prompts": str(prompts), "eval_prompts": str(prompts)}
    train(make_config({**RUN, **places, "out": out, "mode": mode, "steps": steps, "resume": resume}))
    return out / "final"


def _weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
