"""The toolkit's own recipes, registered like anybody's: the YAML files of this folder."""

from __future__ import annotations

from pathlib import Path

from ...hooks import Register, hookimpl
from .files import register_recipes


@hookimpl
def dipp_register_recipes(register: Register) -> None:
    register_recipes(register, Path(__file__).parent)
