"""What a recipe's file holds: what it reproduces, and settings in groups that say where their values come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...config import TrainConfig, make_config, no_such_setting
from ...errors import DippError, RequestError
from ...registry import get_registry
from ...utils.messages import shown
from ...utils.setting_layers import flat_name, flatten, spread

OURS = "ours"
"""Where a value comes from that no source states."""
NOT_IN_A_RECIPE = frozenset({"recipe", "out", "resume", "device", "trackers", "push_to_hub", "prompt_cache"})
"""Settings that belong to one run or one machine."""
SETTINGS = TrainConfig.model_fields.keys() - NOT_IN_A_RECIPE - {"pull"}
"""What a run's own settings say all of; a pull stands in them only where it is what counts."""
Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SettingGroup(_Part):
    """Settings whose values come from one place.

    Attributes:
        origin: `from` in the file: the source that states the values, or `ours` where none does.
        because: why these values; a group of ours says it.
        values: by the names of `TrainConfig`, flat or in its groups.
    """

    origin: Text = Field(alias="from")
    because: str = ""
    values: Annotated[dict[str, Any], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> SettingGroup:
        for name in spread(self.values):
            if flat_name(name) not in TrainConfig.model_fields:
                raise ValueError(no_such_setting(name))
            if name in NOT_IN_A_RECIPE:
                raise ValueError(f"{name} belongs to one run or one machine and cannot be in a recipe")
        if self.origin == OURS and not self.because:
            raise ValueError("values that are 'ours' need a reason, as in 'because: the source does not state them'")
        return self


class Recipe(_Part):
    """A published training as settings.

    Attributes:
        title: one line.
        reproduces: what the source reports, and how far these settings follow it.
        source: papers and their tables, repositories, scripts.
        reported_with: by what it is, what the source states that is no setting here, or one in other units.
        settings: in groups, each setting in one of them.
    """

    title: Text
    reproduces: Text
    source: Annotated[tuple[Text, ...], Field(min_length=1)]
    reported_with: dict[str, str] = Field(default_factory=dict)
    settings: Annotated[tuple[SettingGroup, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sound(self) -> Recipe:
        names = [name for group in self.settings for name in flatten(group.values)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the setting {twice} appears twice")
        try:
            make_config(self.values)
        except RequestError as error:
            raise ValueError(str(error).removesuffix(".")) from error
        return self

    @property
    def values(self) -> dict[str, Any]:
        """Its settings, by flat name."""
        return {name: value for group in self.settings for name, value in flatten(group.values).items()}

    @property
    def origins(self) -> dict[str, str]:
        """By setting, where its value comes from; `ours` where no source states it."""
        return {name: group.origin for group in self.settings for name in flatten(group.values)}


def settings_or_recipe(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings that a YAML file gives, be it plain settings or a recipe, such as one that was printed and changed.

    Args:
        content: of the file.
        path: of it, for messages.

    Raises:
        RequestError: it is a recipe with a mistake.
    """
    if not isinstance(content.get("settings"), list):
        return content
    try:
        return parse_recipe(content).values
    except RequestError as error:
        raise RequestError(f"The recipe {shown(path)} cannot be used. {error}") from error


def parse_recipe(content: Any) -> Recipe:
    """The recipe that the content of a YAML file means.

    Raises:
        RequestError: it is not a recipe; one sentence for each mistake, naming where it is.
    """
    if not isinstance(content, dict):
        raise RequestError(f"It contains {type(content).__name__}; expected title, reproduces, source and settings.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RequestError(" ".join(_sentences(error))) from error


def _sentences(error: ValidationError) -> Iterator[str]:
    for mistake in error.errors():
        where = ".".join(map(str, mistake["loc"])) or "the recipe"
        message = mistake["msg"].removeprefix("Value error, ")
        yield f"{shown(where)}: {message[0].lower()}{message[1:].rstrip('.')}{'' if message.endswith('?') else '.'}"


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
