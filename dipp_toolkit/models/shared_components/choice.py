"""Whose text encoders, tokenizers and autoencoder a generator and its reference are joined by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from ...errors import RequestError
from ...utils.json_files import read_json
from ...utils.messages import shown
from ..family import BlankConditions
from ..files.folders import family_of
from ..files.weight_files import weights_in
from .differences import differing_parts, part_names

Parts = Literal["same", "reference", "generator"]
SETTING = "name whose are used in training and exported, with --set parts=reference or --set parts=generator"
"""The way out of a training; what else there is says the caller."""


def check_conditions(generator: Path, reference: Path, names: tuple[str, str] | None = None) -> None:
    """Refuse two pipelines whose networks cannot read one condition, by their configurations.

    Args:
        generator: the pipeline's folder.
        reference: the other's.
        names: of the two, as somebody typed them; their folders' where None.

    Raises:
        RequestError: they are of different kinds, or read embeddings of another width.
    """
    kinds = [str(read_json(folder / "model_index.json").get("_class_name")) for folder in (generator, reference)]
    widths = [_widths(folder) for folder in (generator, reference)]
    if widths[0] is None or widths[1] is None:
        return
    called = names or (str(generator), str(reference))
    for name in sorted(widths[0].keys() | widths[1].keys()):
        given = [each.get(name) for each in widths if each is not None]
        if given[0] == given[1]:
            continue
        read = [f"{width} channels of {name}" if width is not None else f"no {name}" for width in given]
        raise RequestError(
            f"The network of the generator {shown(called[0])} ({kinds[0]}) reads {read[0]}, that of the reference "
            f"{shown(called[1])} ({kinds[1]}) {read[1]}: no prompt can be encoded for both. Name a reference that the "
            "generator was made from, or another of its kind, with --reference."
        )


def check_latents(generator: Sequence[int], reference: Sequence[int]) -> None:
    """Refuse a generator that makes latents of another shape than the reference's.

    Raises:
        RequestError: the shapes differ.
    """
    if tuple(generator) != tuple(reference):
        raise RequestError(
            f"The generator makes latents of shape {tuple(generator)} and the reference of shape {tuple(reference)}; "
            "they must share a latent space."
        )


def _widths(folder: Path) -> Mapping[str, int] | None:
    """Channels of each tensor of floats that a pipeline's network reads of a prompt; None where unknown."""
    family = family_of(folder)
    if not isinstance(family, BlankConditions):
        return None
    try:
        tensors = family.blank(read_json(folder / family.network_name / "config.json"), 1).tensors
    except (LookupError, TypeError, ValueError):  # loading reports what the configuration lacks
        return None
    return {name: int(tensor.shape[-1]) for name, tensor in tensors.items() if tensor.is_floating_point()}


def check_parts(generator: Path, reference: Path, way_out: str = SETTING, *, weights: bool = True) -> None:
    """Refuse two pipelines of which one encodes prompts or decodes latents otherwise than the other.

    Args:
        generator: the pipeline's folder.
        reference: the other's.
        way_out: what somebody does about it, behind "either name a reference with the generator's parts, or".
        weights: whether weights are compared too; without them nothing large is read.

    Raises:
        RequestError: with every part that differs, and how.
    """
    differing = differing_parts(generator, reference, weights=weights)
    if not differing:
        return
    listed = ", ".join(f"{name} ({how})" for name, how in differing.items())
    raise RequestError(
        f"The generator in {generator} and the reference in {reference} have different parts: {listed}. Prompts are "
        f"encoded and latents decoded by one set of them: name a reference with the generator's parts, or {way_out}."
    )


def chosen_folder(generator: Path, reference: Path, parts: Parts) -> Path:
    """The folder whose text encoders, tokenizers and autoencoder are used and exported.

    Of two that have the same it is the reference's, unless weights are missing there: with encoded prompts at hand a
    training does without those of text encoders.
    """
    lacking = parts == "same" and any(
        weights_in(reference / name) is None and weights_in(generator / name) is not None
        for name in part_names(reference)
    )
    return generator if parts == "generator" or lacking else reference


def parts_text(generator: Path, reference: Path, parts: Parts) -> str:
    """What a dry run says of parts that were compared by their configurations alone; nothing of one folder's."""
    if generator.resolve() == reference.resolve():
        return ""
    if parts == "same":
        return "the same by their configurations; weights are compared as the run begins"
    return f"text encoders, tokenizers and autoencoder of the {parts}, {chosen_folder(generator, reference, parts)}"
