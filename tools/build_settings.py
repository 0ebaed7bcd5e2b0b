"""Writes `docs/reference/settings.md` from `TrainConfig`: python tools/build_settings.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.training.run_state.run_folder import MAY_CHANGE

TARGET = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
HEAD = """# Settings

<!-- Written by tools/build_settings.py from dipp_toolkit.TrainConfig; change it there. -->

Every setting of a run, by the one name it has in YAML (`--config`), in `--set NAME=VALUE` and in `TrainConfig`. A
generator or reference recommends values of its own for some of them; they are taken where you say nothing, and
`config.yaml` in the run folder shows what was used.

A run that `--resume` goes on with keeps the settings it was begun with: another value of one is refused, with the
command that begins a new run with it. The fourth column says which may have another.

| setting | values | default | on resume | what it is |
|---|---|---|---|---|
"""


def type_name(annotation: Any) -> str:
    """A type as a reader would say it."""
    plain = getattr(annotation, "__name__", str(annotation))
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if "Literal" in str(annotation) and all(isinstance(argument, str) for argument in arguments):
        return ", ".join(f"`{argument}`" for argument in arguments)
    names = {"int": "whole number", "float": "number", "str": "text", "Path": "path", "bool": "true or false"}
    if plain in names:
        return names[plain]
    if plain == "dict":
        return "names with values"
    if plain == "tuple":
        inner = [argument for argument in arguments if argument is not ...]
        return f"{len(inner)} of: {type_name(inner[0])}" if ... not in arguments else f"any of: {type_name(inner[0])}"
    return " or ".join(type_name(argument) for argument in arguments if not isinstance(argument, FieldInfo))


def bounds(metadata: list[Any]) -> list[str]:
    """The bounds that a field's metadata sets, such as `> 0`."""
    texts = []
    for item in metadata:
        for name, sign in SIGNS.items():
            value = getattr(item, name, None)
            if value is not None:
                texts.append(f"{sign} {value}")
        if isinstance(item, FieldInfo):
            texts += bounds(item.metadata)
    return texts


def nested_bounds(field: FieldInfo) -> list[str]:
    """Bounds of the field itself, or of the annotated type inside `... | None`."""
    inner = [item for argument in get_args(field.annotation) for item in getattr(argument, "__metadata__", ())]
    return bounds(list(field.metadata)) or bounds(inner)


def row(name: str, field: FieldInfo) -> str:
    """The table's row of one setting."""
    annotation = field.annotation
    values = " ".join([type_name(annotation), *filter(None, [" and ".join(nested_bounds(field))])])
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, {}, ()) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    resumed = "may change" if name in MAY_CHANGE else ""
    return f"| `{name}` | {values} | {shown} | {resumed} | {field.description} |\n"


def render() -> str:
    """The page."""
    return HEAD + "".join(row(name, field) for name, field in TrainConfig.model_fields.items())


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
