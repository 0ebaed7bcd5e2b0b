"""Flags that are made from the settings: type, range, choices and help are those of `TrainConfig`.

`FLAGS` says which settings have one, and what the settings do not say of it. A setting gets a flag by a row there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

ALWAYS, AUTO = "always", "auto"
"""What `--resume` says alone, and what may be typed behind it."""
ALONE = {
    "--resume": (ALWAYS, (AUTO, ALWAYS)),
    "--compile": ("on", ("auto", "on", "off", "graphs", "true", "false")),
}
"""Flags that may stand alone: what they say then, and what may be typed behind them."""
TYPES = {"boolean": bool, "integer": int, "number": float}
LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
"""What a JSON schema calls the ends of a range, and how they are told."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """What a setting does not say of its flag.

    Attributes:
        name: how it is typed; the setting's name with dashes where empty.
        metavar: what stands for the value in the help; the setting's choices where empty.
        more: a sentence that the help ends with.
        panel: the part of the help it stands in.
        of_rewards: whether it says something about rewards, which a distillation has none of.
    """

    name: str = ""
    metavar: str = ""
    more: str = ""
    panel: str | None = None
    of_rewards: bool = False


FLAGS = {
    "generator": Flag(metavar="NAME|FOLDER"),
    "reference": Flag(metavar="NAME|FOLDER"),
    "rewards": Flag(
        name="--reward",
        metavar="NAME[=WEIGHT],...",
        more="For example hps=2,imagereward or ./mine.py:blue.",
        of_rewards=True,
    ),
    "prompts": Flag(metavar="SET|FILE"),
    "reward_for": Flag(metavar="category=NAME: NAME=WEIGHT;...", of_rewards=True),
    "balance": Flag(of_rewards=True),
    "floors": Flag(name="--floor", metavar="NAME=LEVEL,...", of_rewards=True),
    "reward_scale": Flag(metavar="SCALE", of_rewards=True),
    "pull": Flag(metavar="RATIO", of_rewards=True),
    "kl_budget": Flag(metavar="NATS", of_rewards=True),
    "guidance": Flag(metavar="SCALE"),
    "term": Flag(metavar="NAME[=WEIGHT],...", more="For example integral_kl or ./mine.py:Term."),
    "judge": Flag(metavar="NAME"),
    "generator_steps": Flag(metavar="K"),
    "step_noise": Flag(),
    "generator_times": Flag(metavar="even|stock|TIME,..."),
    "steps": Flag(metavar="N"),
    "batch_size": Flag(metavar="N"),
    "resolution": Flag(metavar="PIXELS"),
    "aspects": Flag(metavar="WIDTH:HEIGHT,..."),
    "seed": Flag(metavar="N"),
    "out": Flag(metavar="FOLDER"),
    "recipe": Flag(metavar="NAME", more="dipp recipes lists them."),
    "trackers": Flag(name="--track", metavar="NAME,...", more="There are tensorboard, wandb and trackio."),
    "device": Flag(metavar="NAME"),
    "precision": Flag(),
    "push_to_hub": Flag(metavar="OWNER/NAME"),
    "mode": Flag(panel="Memory"),
    "reward_resolution": Flag(metavar="PIXELS", panel="Memory", of_rewards=True),
    "recompute_generator": Flag(panel="Memory"),
    "gradient_checkpointing": Flag(panel="Memory"),
    "channels_last": Flag(panel="Memory"),
    "compile": Flag(panel="Memory"),
    "optimizer": Flag(panel="Memory"),
}
"""The settings that have a flag, in the order of the help."""


def flag_name(setting: str) -> str:
    """How a setting's flag is typed; a setting without one is spelled as it would be."""
    return FLAGS.get(setting, Flag()).name or f"--{setting.replace('_', '-')}"


@cache
def setting_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of each setting, by the name that `--set` takes: its type, range, choices and description."""
    from dipp_toolkit.config import TrainConfig

    schemas: dict[str, dict[str, Any]] = TrainConfig.model_json_schema()["properties"]
    return schemas


def _kinds(setting: str) -> list[dict[str, Any]]:
    """The schemas that a setting's value may follow, without that of null."""
    schema = setting_schemas()[setting]
    return [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]


def _flag_type(setting: str) -> type:
    """What a flag's value is read as; a text, which the settings read, where it may be several things."""
    kinds = _kinds(setting)
    if len(kinds) == 1:
        return Path if kinds[0].get("format") == "path" else TYPES.get(kinds[0].get("type", ""), str)
    return str


def _choices(setting: str) -> str:
    """The choices of a setting, as `fp32|bf16`; empty where anything goes."""
    return "|".join(choice for kind in _kinds(setting) for choice in kind.get("enum", ()))


def _help(setting: str) -> str:
    """What a flag's help says: the setting's description, the range of a number, and what the table adds."""
    limits = []
    for kind in _kinds(setting):
        whole = kind.get("type") == "integer" and kind.get("exclusiveMinimum") == 0
        bounds = {**kind, "minimum": 1, "exclusiveMinimum": None} if whole else kind
        limits += [f"{word} {bounds[key]:g}" for key, word in LIMITS.items() if bounds.get(key) is not None]
    sentences = []
    for text in filter(None, (setting_schemas()[setting].get("description", ""), " and ".join(limits))):
        first = text[0].upper() if text.split()[0].isalpha() else text[0]  # alpha_cfg is a name
        sentences.append(f"{first}{text[1:]}.")
    return " ".join(filter(None, (*sentences, FLAGS[setting].more)))


def _parameter(setting: str, names: Sequence[str]) -> inspect.Parameter:
    """A setting's flag as a parameter of a function, as typer reads them."""
    flag, kind = FLAGS[setting], _flag_type(setting)
    option = typer.Option(
        *names,
        flag_name(setting),
        metavar=None if kind is bool else flag.metavar or _choices(setting),
        help=_help(setting),
        rich_help_panel=flag.panel,
    )
    return inspect.Parameter(
        setting, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _value(setting: str, value: Any) -> Any:
    """The value of a flag as the setting's: of a text that may be a number, the number."""
    if isinstance(value, str) and any(kind.get("type") == "number" for kind in _kinds(setting)):
        from dipp_toolkit.utils.assignments import parse_number

        return parse_number(value)
    return value


def _with_flags(
    function: Callable[..., Any], settings: Sequence[str], names: Mapping[str, Sequence[str]]
) -> Callable[..., Any]:
    """The function with a parameter for each setting's flag in place of its first, `flags`."""

    def command(**values: Any) -> Any:
        return function({name: _value(name, values.pop(name)) for name in settings}, **values)

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    arguments = [parameter for parameter in own if parameter.kind is not parameter.KEYWORD_ONLY]
    made = [_parameter(name, names.get(name, ())) for name in settings]
    signature = inspect.Signature([*arguments, *made, *own[len(arguments) :]])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return command


class SettingsCommand(TyperCommand):
    """A command whose options are made when somebody looks at them: to list commands nothing has to know settings.

    Args:
        make: gives the function with all parameters.
        options: as `TyperCommand` takes them.
    """

    def __init__(self, *, make: Callable[[], Callable[..., Any]], **options: Any):
        self._make: Callable[[], Callable[..., Any]] | None = make
        self._params: list[Any] = []
        super().__init__(**options)

    def add(self, option: Any) -> None:
        """Add an option behind all others."""
        self._params.append(option)

    @property
    def params(self) -> list[Any]:  # type: ignore[override]
        """Arguments and options."""
        if self._make is not None:
            app = typer.Typer(add_completion=False)
            app.command()(self._make())
            self._make, made = None, get_command(app)
            self.callback, self._params = made.callback, [*made.params, *self._params]
        return self._params

    @params.setter
    def params(self, params: list[Any]) -> None:
        self._params = params


class ResumableCommand(SettingsCommand):
    """A command whose `--resume` and `--compile` stand alone or are followed by a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--resume` or `--compile` its value, then parse as usual."""
        spelled = []
        for index, word in enumerate(args):
            alone, values = ALONE.get(word, ("", ()))
            bare = alone and (args[index + 1 : index + 2] or [""])[0] not in values
            spelled.append(f"{word}={alone}" if bare else word)
        return super().parse_args(ctx, spelled)


def add_command(
    app: typer.Typer,
    function: Callable[..., Any],
    settings: Sequence[str],
    *,
    panel: str,
    cls: type[SettingsCommand] = SettingsCommand,
    names: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Add a command with the flags of settings.

    Args:
        app: it is added to.
        function: what it does. Its first parameter gets the settings by name, None for those whose flag is not given.
        settings: those whose flags the command has.
        panel: the part of the program's help that it stands in.
        cls: of the command.
        names: more ways in which flags are typed, by setting.
    """
    make = partial(_with_flags, function, settings, names or {})
    app.command(
        function.__name__,
        help=inspect.getdoc(function),
        cls=partial(cls, make=make),  # type: ignore[arg-type]
        rich_help_panel=panel,
    )(lambda: None)
