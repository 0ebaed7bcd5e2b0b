"""From flags, `--set` and a YAML file to a `TrainConfig`.

Later layers win: the defaults of `TrainConfig`, those recommended by plugins, those of a recipe (the toolkit
fills both in), the settings file or the resumed run, then flags and `--set`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.planning.recipes.recipe import find_recipe
from dipp_toolkit.training.run_state.run_folder import (
    choose_folder,
    no_run,
    run_of_settings,
    settings_for_a_new_run,
)
from dipp_toolkit.training.run_state.start_settings import read_begun_settings
from dipp_toolkit.training.setup.name_checks import check_names
from dipp_toolkit.utils.assignments import parse_assignments
from dipp_toolkit.utils.messages import shown
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.setting_layers import flat_name, merge, over, replace_in, spread

AUTO, ALWAYS = "auto", "always"


def given_settings(flags: Mapping[str, Any], assignments: list[str]) -> dict[str, Any]:
    """The settings that flags and `--set` give.

    Raises:
        RequestError: a setting is given by both, with different values, or an assignment is invalid.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    assigned = parse_assignments(assignments)
    for name, value in assigned.items():
        flag = given.get(flat_name(name), value)
        if str(flag) != str(value):
            raise RequestError(f"The setting {name} is given twice: as a flag {flag} and with --set {value}.")
    return replace_in(given, assigned)


def gather(
    flags: Mapping[str, Any],
    assignments: list[str],
    file: Path | None = None,
    resume: str | None = None,
    fallback: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """One validated set of settings.

    Args:
        flags: settings by name; None for those not given.
        assignments: `NAME=VALUE` texts.
        file: YAML file of settings.
        resume: None for a new run, `"always"` to resume the run in the folder `out`, `"auto"` to do so
            where there is one. Without `out`, a run's own `config.yaml` as `file` says which run.
        fallback: settings for which nothing else has a value.

    Raises:
        RequestError: a name is unknown, a value is out of range, or a file cannot be used.
        CheckpointError: there is no run to resume.
    """
    path = user_path(file) if file is not None else None
    of_file, words = settings_for_a_new_run(path) if path is not None else {}, given_settings(flags, assignments)
    values = merge(of_file, words)
    if resume is None:
        _check_recipe(words, of_file)
        return _checked(_with_fallback(values, fallback))
    if resume not in (AUTO, ALWAYS):
        raise RequestError(f"--resume {resume} is not valid; expected --resume alone, or --resume auto.")
    if path is not None and values.get("out") is None:
        values["out"] = run_of_settings(path)
    # Validated now, because `out` may come from a file.
    folder = choose_folder(make_config({**values, "resume": True})) if resume != AUTO else None
    out = folder.path if folder is not None else make_config(values).out
    if out is None:
        raise RequestError("Name the run folder to resume with --out.")
    saved = user_path(out) / "config.yaml"
    if not saved.is_file():
        if resume == AUTO:
            _check_recipe(words, of_file)
            return _checked(_with_fallback(values, fallback))
        raise no_run(saved.parent)
    own = read_begun_settings(saved)
    if "recipe" in words and words["recipe"] != own.get("recipe"):
        raise RequestError(
            f"The run in {shown(saved.parent)} was not started with the recipe {shown(words['recipe'])}, and resumes "
            "with its own settings. Leave the recipe out, or start a new run with it in another folder."
        )
    return _checked(merge(own, {**values, "resume": True}))


def _with_fallback(values: Mapping[str, Any], fallback: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings, with those of `fallback` that nothing gives; where there is a recipe, it says what is trained."""
    given = dict(fallback or {})
    if isinstance(values.get("recipe"), str):
        recipe = find_recipe(values["recipe"]).values
        given = {name: value for name, value in given.items() if not value and name not in recipe}
    return over(given, values)


def _check_recipe(words: Mapping[str, Any], of_file: Mapping[str, Any]) -> None:
    """Refuse a recipe beneath a file that says all of its settings, a run's own say.

    Raises:
        RequestError: there is no such recipe, or it would change nothing.
    """
    name = words.get("recipe")
    in_file = {flat_name(setting) for setting in spread(of_file)}
    if isinstance(name, str) and of_file.get("recipe") != name and find_recipe(name).values.keys() <= in_file:
        raise RequestError(
            f"The settings file gives every setting of the recipe {shown(name)} and takes precedence, so the recipe "
            "would change nothing. Leave out one of the two."
        )


def _checked(values: Mapping[str, Any]) -> TrainConfig:
    """Valid settings whose names exist: generators, rewards, files, whatever else may be missing."""
    config = make_config(values)
    check_names(config)
    return config
