"""Recipes as files: a YAML file each, registered under its name. Nothing of YAML is imported before one is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import PluginError, RequestError
from ...utils.messages import quoted, shown

if TYPE_CHECKING:
    from ...hooks import Register
    from .recipe import Recipe

TITLE = "title: "
"""What a recipe's file begins with, so that a listing reads one line of it."""


@dataclass(frozen=True)
class RecipeFile:
    """A recipe's file. Called, it gives the recipe.

    Attributes:
        path: the file, whose name without `.yaml` is the recipe's.
    """

    path: Path

    def __call__(self) -> Recipe:
        """Read the recipe.

        Raises:
            PluginError: the file is missing or holds no recipe; the message says what is wrong.
        """
        from ...utils.yaml_loader import load_yaml
        from .recipe import parse_recipe

        try:
            return parse_recipe(load_yaml(self.path, "recipe"))
        except RequestError as error:
            raise PluginError(f"The recipe {shown(self.path)} cannot be used. {error}") from error

    @property
    def text(self) -> str:
        """The file as it stands, with its comments."""
        return self.path.read_text(encoding="utf-8")

    @property
    def title(self) -> str:
        """What its first line says.

        Raises:
            PluginError: it does not begin with its title.
        """
        with self.path.open(encoding="utf-8") as file:
            line = file.readline().strip()
        if not line.startswith(TITLE):
            raise PluginError(f"the recipe {self.path} begins with {quoted(line)}; expected its title, 'title: ...'")
        return line.removeprefix(TITLE).strip("'\" ")


def register_recipes(register: Register, folder: Path) -> None:
    """Register every recipe of a folder; for the hook `dipp_register_recipes` of a plugin.

    Args:
        register: as the hook is given it.
        folder: holds a YAML file for each recipe, whose first line is its title.

    Raises:
        PluginError: a file does not begin with its title.
    """
    for path in sorted(folder.glob("*.yaml")):
        recipe = RecipeFile(path)
        register(path.stem, recipe, summary=recipe.title)
