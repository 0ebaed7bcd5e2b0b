"""The recipes as a table, and one of them as its file."""

from __future__ import annotations

import re
import sys
from typing import Any

from dipp_toolkit.errors import PluginError
from dipp_toolkit.planning.recipes.files import RecipeFile
from dipp_toolkit.planning.recipes.recipe import Recipe
from dipp_toolkit.registry import get_registry

from ..terminal.output import plain_lines, print_json, print_line

ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")
"""Numbers of papers; a table has no room for more, and a recipe's own file says where in them."""


def print_one(name: str, as_json: bool) -> None:
    """Print a recipe's file as it stands, or as a JSON object.

    Raises:
        RequestError: there is none of this name.
        PluginError: its file does not hold a recipe.
    """
    entry = get_registry().find("recipe", name)
    recipe: Recipe = entry.build()
    text = entry.factory.text if isinstance(entry.factory, RecipeFile) else recipe_yaml(recipe)
    if as_json:
        settings = {
            setting: {"value": value, "from": group.origin, "because": group.because}
            for group in recipe.settings
            for setting, value in group.values.items()
        }
        content = recipe.model_dump(mode="json", exclude={"settings"})
        print_json({"name": name, **content, "settings": settings, "file": text})
    else:
        sys.stdout.write(plain_lines(text.rstrip("\n")) + "\n")
        sys.stdout.flush()


def recipe_yaml(recipe: Recipe) -> str:
    """A recipe that a plugin made without a file, as the file that it would have."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def print_all(as_json: bool) -> None:
    """Print a table of all recipes, or a JSON object; one that cannot be used is named on stderr."""
    from rich.table import Table

    from ..terminal.tables import show

    recipes: dict[str, tuple[str, Recipe]] = {}
    for entry in get_registry().entries["recipe"].values():
        try:
            recipes[entry.name] = entry.plugin, entry.build()
        except PluginError as error:
            print_line(error, file=sys.stderr)
    if as_json:
        print_json({"recipes": [_row(name, plugin, recipe) for name, (plugin, recipe) in recipes.items()]})
        return
    table = Table(title="Published trainings as settings", title_justify="left")
    for column in ("name", "what", "starts from", "arXiv"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "starts from"))
    for name, (plugin, recipe) in recipes.items():
        row = _row(name, plugin, recipe)
        papers = dict.fromkeys(ARXIV.findall(" ".join(recipe.source)))
        table.add_row(name, recipe.title, row["generator"] or row["reference"] or "", "\n".join(papers))
    show(table)
    print_line("Print one, each value with its source, with dipp recipes NAME, see what it costs with")
    print_line("dipp plan --recipe NAME, and run it with dipp train --recipe NAME --prompts FILE; every flag, --set")
    print_line("and --config take precedence over it.")


def _row(name: str, plugin: str, recipe: Recipe) -> dict[str, Any]:
    networks = {kind: recipe.values.get(kind) for kind in ("generator", "reference")}
    return {"name": name, "title": recipe.title, **networks, "source": list(recipe.source), "plugin": plugin}
