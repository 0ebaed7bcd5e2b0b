"""A training's generator and reference, joined by one set of text encoders, tokenizers and autoencoder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ...distributed import Processes
from ...errors import DippError
from ...protocols import Generator, Reference
from ..files.folders import family_of
from ..files.named_folders import configured_folder, named_folder, shrink_of
from .choice import Parts, check_conditions, check_latents, check_parts, chosen_folder

if TYPE_CHECKING:
    from ...config import TrainConfig


def compare_named(config: TrainConfig, processes: Processes) -> tuple[Path, Path] | None:
    """Refuse a generator and a reference that do not belong together, before any weights are loaded.

    Args:
        config: names both, and says whose parts are used where they differ.
        processes: those that share the run; the first one compares.

    Returns:
        The two folders; None where they are not known before they are loaded.

    Raises:
        RequestError: their networks cannot read one condition, or their text encoders, tokenizers or autoencoders
            differ and the settings do not say whose are used.
        RunError: another process found that.
    """
    failure, folders = None, None
    try:
        if config.generator is not None:
            names = (("generator", config.generator), ("reference", config.reference or ""))
            shrink = shrink_of(config.reference or "")
            generator, reference = (configured_folder(kind, name) for kind, name in names)
            if generator is not None and reference is not None:  # before gigabytes are fetched
                _check_networks(generator, reference, shrink, (config.generator, config.reference or ""))
            generator, reference = (named_folder(kind, name) for kind, name in names)
            if generator is not None and reference is not None:
                folders = generator, reference
                if processes.main:
                    check_pair(generator, reference, config.parts, shrink=shrink)
    except DippError as error:
        failure = error
    processes.agree(failure)
    return folders


def check_pair(
    generator: Path,
    reference: Path,
    parts: Parts,
    *,
    weights: bool = True,
    shrink: int | Fraction = 1,
    names: tuple[str, str] | None = None,
) -> None:
    """Refuse two pipelines that do not belong together.

    Args:
        generator: the pipeline's folder.
        reference: the other's.
        parts: whose are used where they differ.
        weights: whether these are there to be compared.
        shrink: by what the sides of the reference's images are divided.
        names: of the two, as somebody typed them.

    Raises:
        RequestError: as a sentence that names what differs.
    """
    _check_networks(generator, reference, shrink, names)
    if parts == "same":
        check_parts(generator, reference, weights=weights)


def _check_networks(
    generator: Path, reference: Path, shrink: int | Fraction, names: tuple[str, str] | None = None
) -> None:
    from ..reference import latent_shape_of

    check_latents(
        latent_shape_of(generator, family_of(generator)), latent_shape_of(reference, family_of(reference), shrink)
    )
    check_conditions(generator, reference, names)


def check_named(generator: str, reference: str, option: str) -> None:
    """Refuse to draw with a generator through another pipeline's parts, before either is loaded.

    Args:
        generator: its name.
        reference: name of the reference that encodes prompts and decodes latents for it.
        option: that names another reference, such as `--reference {}`.

    Raises:
        RequestError: their networks cannot read one condition, or their parts differ.
    """
    own, other = named_folder("generator", generator), named_folder("reference", reference)
    if own is not None and other is not None:
        check_conditions(own, other, (generator, reference))
        check_parts(own, other, f"draw with the generator's own: {option.format(own)}")


def join(generator: Generator, reference: Reference, parts: Parts, compared: tuple[Path, Path] | None) -> None:
    """Let a generator and a reference use one set of parts, which an export of the generator carries.

    Args:
        generator: as loaded.
        reference: as loaded, on no device yet.
        parts: whose are used where they differ.
        compared: folders that were compared already.

    Raises:
        RequestError: they do not belong together, or the generator's parts cannot be loaded.
    """
    from ..generator import DiffusersGenerator
    from ..reference import DiffusersReference

    if not (isinstance(generator, DiffusersGenerator) and isinstance(reference, DiffusersReference)):
        return
    folders = generator.folder, reference.folder
    if folders != compared:  # a plugin's names say nothing of folders before they are loaded
        check_pair(*folders, parts, shrink=reference.shrink)
    generator.parts = chosen_folder(*folders, parts)
    if parts == "generator" and generator.folder != reference.folder:
        reference.use_parts(generator.folder)
    encode_for(generator, reference)


def encode_for(generator: Generator, reference: Reference) -> None:
    """Let a reference encode prompts as a generator's network reads them: FLUX.1-schnell's reads fewer tokens."""
    from ..generator import DiffusersGenerator
    from ..reference import DiffusersReference

    if isinstance(generator, DiffusersGenerator) and isinstance(reference, DiffusersReference):
        reference.encoder.serve(generator.family)
