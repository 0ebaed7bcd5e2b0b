"""A run's recipe: the layer of settings that it puts beneath everything somebody says, and how a run names it."""

from __future__ import annotations

from typing import Any

from ...config import TrainConfig
from ...errors import DippError
from ...registry import get_registry
from .recipe import NOT_IN_A_RECIPE, Recipe

SETTINGS = TrainConfig.model_fields.keys() - NOT_IN_A_RECIPE - {"pull"}
"""What a run's own settings say all of; a pull stands in them only where it is what counts."""


def find_recipe(name: str) -> Recipe:
    """A registered recipe.

    Raises:
        RequestError: there is none of this name; the message names the nearest.
        PluginError: its file holds none.
    """
    recipe: Recipe = get_registry().find("recipe", name).build()
    return recipe


def recipe_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that a run's recipe gives; what somebody said goes before them.

    A run's own `config.yaml` says every setting, and its `recipe` is then but where they came from: the recipe may
    have changed since, or be gone with its plugin.

    Raises:
        RequestError: there is no recipe of this name.
    """
    if config.recipe is None or config.model_fields_set >= SETTINGS:
        return {}
    return find_recipe(config.recipe).values


def recipe_text(config: TrainConfig) -> str:
    """The name of a run's recipe, its title and its source, in one line; empty where it has none."""
    if config.recipe is None:
        return ""
    try:
        recipe = find_recipe(config.recipe)
    except DippError:  # it is gone with its plugin; the run's settings are all in its config.yaml
        return config.recipe
    return f"{config.recipe}: {recipe.title} ({'; '.join(recipe.source)})"
