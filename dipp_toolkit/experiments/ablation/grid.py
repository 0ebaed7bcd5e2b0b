"""The cells of an ablation: which settings vary, over which values."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import TrainConfig, make_config
from ...errors import RequestError
from ...report.rerun_command import setting_text
from ...training.setup.name_checks import check_names
from ...utils.assignments import parse_assignments
from ...utils.setting_layers import flat_name, over, spread
from ...utils.yaml_loader import load_yaml

OPTIONS = "reward_options"
SEED = "seed"
LONGEST = 72


@dataclass(frozen=True)
class Cell:
    """One combination of values.

    Attributes:
        values: settings by flat name, as they are shown: `{"reward_scale": "10", "seed": "0"}`.
        settings: the same as `TrainConfig` takes them, by the names they were given by.
    """

    values: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """`reward_scale=10 guidance=1.5 seed=0`."""
        return " ".join(f"{name}={value}" for name, value in self.values.items())

    @property
    def slug(self) -> str:
        """A folder's name: the label, or what fits of it with a digest of the whole."""
        plain = "".join(letter if letter.isalnum() or letter in "-_.=" else "_" for letter in self.label)
        if plain == self.label.replace(" ", "_") and len(plain.encode()) <= LONGEST:
            return plain
        start = plain.encode("ascii", "ignore").decode()[:LONGEST]  # file systems count bytes
        return f"{start}-{hashlib.sha256(self.label.encode(errors='surrogatepass')).hexdigest()[:8]}"

    def without_seed(self) -> tuple[tuple[str, str], ...]:
        """The values that tell settings apart, the seed left out."""
        return tuple((name, value) for name, value in self.values.items() if name != SEED)

    def config(self, base: TrainConfig) -> TrainConfig:
        """The settings of this cell: those of the base that were given, and the cell's own over them.

        Raises:
            RequestError: a value is out of range or a name unknown.
        """
        given = {name: getattr(base, name) for name in base.model_fields_set}
        own = dict(self.settings)
        if OPTIONS in own:
            merged = {name: dict(values) for name, values in base.reward_options.items()}
            for name, values in own[OPTIONS].items():
                merged[name] = {**merged.get(name, {}), **values}
            own[OPTIONS] = merged
        return make_config(over(given, own))


def split_values(text: str) -> list[str]:
    """The values of `--vary NAME=VALUES`: `|` between them where there is one, and else commas."""
    return [value.strip() for value in text.split("|" if "|" in text else ",")]


def parse_vary(varied: Sequence[str]) -> dict[str, list[str]]:
    """`["reward_scale=0,10", "rewards=hps|hps=2,clip"]` as values by setting, each by the name it was given by.

    Raises:
        RequestError: an assignment lacks `=` or a value, or a setting is varied twice.
    """
    settings: dict[str, list[str]] = {}
    for assignment in varied:
        name, separator, text = assignment.partition("=")
        name = name.strip()
        values = split_values(text)
        if not separator or not name or not all(values):
            raise RequestError(
                f"--vary {assignment} cannot be used; expected NAME=VALUE,VALUE as in --vary guidance=1,3,4.5."
            )
        if flat_name(name) in map(flat_name, settings):
            raise RequestError(f"The setting {name} is varied twice; name all its values in one --vary.")
        if len(set(values)) != len(values):
            raise RequestError(f"--vary {assignment} names a value twice.")
        settings[name] = values
    return settings


def make_cell(values: Mapping[str, str]) -> Cell:
    """A cell from texts, read as `--set` reads them; its label and folder do not depend on how settings are spelled."""
    shown = {flat_name(name): value for name, value in values.items()}
    return Cell(shown, parse_assignments([f"{name}={value}" for name, value in values.items()]))


def grid(varied: Mapping[str, Sequence[str]]) -> list[Cell]:
    """Every combination, the last setting running fastest."""
    return [make_cell(dict(zip(varied, values, strict=True))) for values in itertools.product(*varied.values())]


def read_cells(path: Path) -> list[Cell]:
    """Cells from a YAML file: a list of mappings from settings to values.

    Raises:
        RequestError: the file is missing or holds something else.
    """
    content = load_yaml(path, "file of cells")
    if not isinstance(content, list) or not content or not all(isinstance(cell, dict) and cell for cell in content):
        raise RequestError(
            f"{path} is not a list of cells; expected a YAML list of mappings, as in '- {{guidance: 3, seed: 0}}'."
        )
    return [make_cell({str(name): setting_text(value) for name, value in spread(cell).items()}) for cell in content]


def check_cells(cells: Sequence[Cell], base: TrainConfig) -> None:
    """Refuse a cell that cannot be trained, or two that are one, before the first is.

    Raises:
        RequestError: as a sentence.
    """
    seen: set[str] = set()
    for cell in cells:
        if cell.slug in seen:
            raise RequestError(f"The cell '{cell.label}' is listed twice.")
        seen.add(cell.slug)
        for name in ("out", "resume"):
            if name in cell.settings:
                raise RequestError(f"The setting {name} cannot vary: every cell has a folder of its own.")
        check_names(cell.config(base))
