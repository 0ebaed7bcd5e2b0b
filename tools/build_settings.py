"""Writes `docs/reference/settings.md` from `TrainConfig`: python tools/build_settings.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.training.run_state.run_folder import MAY_CHANGE
from dipp_toolkit.utils.setting_layers import GROUPED, GROUPS

TARGET = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
HEAD = """# Settings

In the code: [config.py](../../dipp_toolkit/config.py),
[training/setup/resolve.py](../../dipp_toolkit/training/setup/resolve.py).

<!-- Written by tools/build_settings.py from dipp_toolkit.TrainConfig; change it there. -->

Every setting of a run, by the name it has in YAML (`--config`), in `--set NAME=VALUE`, in `dipp ablate --vary` and in
`TrainConfig`. A generator or reference recommends values of its own for some of them; they are used unless you give
another, and `config.yaml` in the run folder shows what was used.

Settings that belong together form a group. Each of them has two names that mean the same everywhere, the grouped
`monitor.every` and the flat `monitor_every`. On a command line that is `--set monitor.every=50`; in YAML a group may be
nested:

```yaml
monitor:
  every: 50
```

In Python, `TrainConfig(monitor_every=50)` and `make_config({"monitor": {"every": 50}})` are equal, and
`config.monitor_every` and `config["monitor.every"]` read the same value. `config.yaml` in a run folder has the flat
names. (`reward.NAME.OPTION` and `term.NAME.OPTION` are not groups but options of a reward and of a term.)

A run that `--resume` goes on with keeps the settings it was begun with: another value of one is refused, with the
command that begins a new run with it. The column "on resume" says which may have another.

"""
TABLE = """| setting | values | default | on resume | what it is |
|---|---|---|---|---|
"""
GROUP_TABLE = """| setting | flat name | values | default | on resume | what it is |
|---|---|---|---|---|---|
"""
TITLES = {
    "assistant": "The assistant: the score network of the generator's samples",
    "time": "Times that the divergence is evaluated at",
    "black_box": "Gradients for rewards that have none",
    "latent": "Rewards that are learned on latents, `reward.NAME.latent=true`",
    "lora": "LoRA: adapters that are trained, and files that are added at the start",
    "decode": "Decoding for rewards",
    "checkpoint": "Checkpoints",
    "eval": "The comparison before and after",
    "monitor": "Monitors on held-out prompts",
}


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
    for constraint in metadata:
        for name, sign in SIGNS.items():
            value = getattr(constraint, name, None)
            if value is not None:
                texts.append(f"{sign} {value}")
        if isinstance(constraint, FieldInfo):
            texts += bounds(constraint.metadata)
    return texts


def nested_bounds(field: FieldInfo) -> list[str]:
    """Bounds of the field itself, or of the annotated type inside `... | None`."""
    inner = [part for argument in get_args(field.annotation) for part in getattr(argument, "__metadata__", ())]
    return bounds(list(field.metadata)) or bounds(inner)


def row(name: str) -> str:
    """The table's row of a setting."""
    field = TrainConfig.model_fields[name]
    annotation = field.annotation
    values = " ".join([type_name(annotation), *filter(None, [" and ".join(nested_bounds(field))])])
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, {}, ()) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    resumed = "may change" if name in MAY_CHANGE else ""
    names = f"`{GROUPED[name]}` | `{name}`" if name in GROUPED else f"`{name}`"
    return f"| {names} | {values} | {shown} | {resumed} | {field.description} |\n"


def render() -> str:
    """The page."""
    page = HEAD + TABLE + "".join(row(name) for name in TrainConfig.model_fields if name not in GROUPED)
    for group, members in GROUPS.items():
        page += f"\n## `{group}`\n\n{TITLES[group]}.\n\n{GROUP_TABLE}" + "".join(map(row, members.values()))
    return page


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
