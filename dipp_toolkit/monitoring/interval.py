"""How often a run is monitored and diagnosed where neither the user nor a plugin sets it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..models.files.saved_generators import place_of
from ..models.files.weight_files import NAME, PICKLE, weights_in
from ..registry import get_registry
from ..utils.imports import is_python_name
from ..utils.paths import is_there, user_path

EVERY = 50
"""Generator updates between the monitors' looks, and between diagnoses."""
LOOKS = {"monitor_every", "diagnose_every"}
"""The settings that say it."""
SMALL = 2**28
"""Bytes of a pipeline's networks, text encoders aside, up to which looking is taken to be cheap.

A first look samples the reference for `monitor_count` prompts and two noises, 64 images of `reference_steps` steps: a
few updates' worth of passes for a network of this size, and an hour for a published one on a CPU.
"""


def usual_looks(generator: str | None, reference: str | None) -> dict[str, int]:
    """`monitor_every` and `diagnose_every`, where both networks are the user's own or small; nothing elsewhere."""
    named = [name for name in (generator, reference) if name is not None]
    if not named or not all(_is_cheap(name) for name in named):
        return {}
    return {"monitor_every": EVERY, "diagnose_every": EVERY}


def _is_cheap(name: str) -> bool:
    registry = get_registry()
    entries = [registry.entries[kind][name] for kind in ("generator", "reference") if name in registry.entries[kind]]
    if entries:  # a plugin may recommend it; published models of full size have blueprints
        return any(LOOKS & entry.defaults.keys() for entry in entries) or name not in registry.entries["blueprint"]
    if is_python_name(name):
        return True
    return are_small(folders_of(name))


def folders_of(name: str) -> tuple[Path, ...]:
    """A pipeline's folder and the one inside a run's; none of what is not on this machine, a hub id."""
    place = place_of(name).removeprefix("diffusers:")
    if not is_there(place):
        return ()
    folder = user_path(place)
    return folder, folder / "final"


def are_small(folders: Sequence[Path]) -> bool:
    """Whether a pipeline's networks in its folders are small; one that is not on this machine is taken not to be."""
    return bool(folders) and sum(map(bytes_of_networks, folders)) <= SMALL


def bytes_of_networks(folder: Path) -> int:
    """Bytes of the weights in a pipeline's folder, text encoders aside."""
    places = [path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("text_encoder")]
    return sum(path.stat().st_size for place in (*places, folder) for path in _weights_of(place) if path.is_file())


def _weights_of(place: Path) -> list[Path]:
    """Files of weights, those of another precision than is read left out; a user's own generator names them freely."""
    chosen = weights_in(place) or weights_in(place, PICKLE)
    own = [path for path in place.glob("*.safetensors") if NAME.fullmatch(path.name) is None]
    return own if chosen is None else [*own, *(place / file for file in chosen.files)]
