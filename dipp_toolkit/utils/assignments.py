"""Settings as people write them: rewards with weights, `NAME=VALUE`, YAML files."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import RequestError
from .messages import quoted, shown
from .setting_layers import flat_name, replace_in
from .yaml_loader import YamlTextError, load_yaml, parse_yaml

PROMPT_FILES = (".txt", ".tsv", ".csv", ".json", ".jsonl", ".parquet")

ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ADDRESS = re.compile(r"(?:(?P<client>[a-z][a-z0-9_-]*):)?(?P<address>https?://.*)", re.DOTALL)
"""An address, with the name of the reward that speaks the server's language before it where that is not ours."""
OF_ADDRESS = re.compile(r"(?P<path>\s*\w+\.\S*https?://[^\s?]*\?\S*\.[A-Za-z_]\w*)=(?P<value>.*)", re.DOTALL)
"""An option of a reward whose name is an address with a query."""

OWN_SYNTAX = (
    "rewards", "reward_for", "floors", "time_range", "assistant_time_range", "trackers", "scale_schedule",
    "guidance_schedule",
)  # fmt: skip
"""Settings whose values have a syntax of their own and are not read as YAML."""


def parse_names(text: str) -> tuple[str, ...]:
    """`"a,b"` as names, each once."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def parse_rewards(text: str, what: str = "weight", kind: str = "reward") -> dict[str, float]:
    """`"hps=2,imagereward"` as `{"hps": 2.0, "imagereward": 1.0}`; an empty text means no rewards.

    Args:
        text: as typed.
        what: the numbers are, for messages.
        kind: what the names are, for messages.

    Raises:
        RequestError: a weight is not a finite number, or a name appears twice.
    """
    rewards: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, separator, weight_text = split_weight(part)
        name = name.strip()
        try:
            weight = float(weight_text) if separator else 1.0
        except ValueError:
            weight = math.nan
        ours = is_remote_name(part) and not split_client(part)[0]
        if not math.isfinite(weight) and ours and {*"?#"} & {*name}:
            name, weight = part, 1.0  # the address has a query, which is refused elsewhere without being shown
        if not math.isfinite(weight):
            raise RequestError(
                f"The {what} of the {kind} '{shown(name)}' is '{shown(weight_text.strip())}'; expected a number, as in "
                f"{shown(name)}=0.5."
            )
        if name in rewards:
            raise RequestError(f"The {kind} '{shown(name)}' is named twice; give it one {what}.")
        rewards[name] = weight
    return rewards


def split_weight(part: str) -> tuple[str, str, str]:
    """A reward and its number, as `str.partition` has them. The query of a client's address has equality signs of its
    own, one a pair: `judge:http://host/v1?model=NAME=0.5`."""
    client, _ = split_client(part)
    start, mark, query = part.partition("?")
    if not client or not mark:
        return part.partition("=")
    *pairs, last = query.split("&")
    name, sign, rest = last.partition("=")
    value, separator, number = rest.partition("=")
    return f"{start}?{'&'.join([*pairs, name + sign + value])}", separator, number


def parse_floors(text: str) -> dict[str, float]:
    """`"clip=0.26,hps=0.3"` as `{"clip": 0.26, "hps": 0.3}`.

    Raises:
        RequestError: a level is missing or not a finite number, or a name appears twice.
    """
    for part in filter(None, map(str.strip, text.split(","))):
        if not split_weight(part)[1]:
            raise RequestError(
                f"The floor of the reward '{shown(part)}' has no level; expected a number, as in {shown(part)}=0.3."
            )
    return parse_rewards(text, "floor")


def parse_rewards_for(text: str) -> dict[str, dict[str, float]]:
    """`"category=text: ocr=1; category=people: hps=2"` as `{"category=text": {"ocr": 1.0}, "category=people": ...}`.

    Raises:
        RequestError: a part has no colon, names its prompts twice, or a weight is missing or not a finite number.
    """
    found: dict[str, dict[str, float]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        prompts, colon, rewards = (side.strip() for side in part.partition(":"))
        if not colon or not rewards:
            raise RequestError(
                f"'{shown(part)}' gives prompts no rewards; expected something like category=text: ocr=1."
            )
        if prompts in found:
            raise RequestError(f"'{shown(prompts)}' is named twice; give all its rewards at once, with commas.")
        found[prompts] = parse_rewards(rewards)
    return found


def parse_fraction(text: str) -> float | str:
    """`"399/999"` as a number; any other text, or a fraction of zero, as it is."""
    above, line, below = text.partition("/")
    try:
        return float(Fraction(int(above), int(below))) if line else text
    except (ValueError, ArithmeticError):
        return text


def parse_number(text: str) -> float | str:
    """`"0.5"` as a number; any other text as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings from a YAML file.

    Raises:
        RequestError: the file is missing, is not YAML of plain values, or is not a mapping.
    """
    content = load_yaml(path, "settings file")
    if content is None:
        raise RequestError(f"The settings file {path} is empty; expected names with values, as in 'steps: 300'.")
    if not isinstance(content, dict):
        raise RequestError(
            f"The settings file {path} contains {type(content).__name__}; expected names with values, as in "
            "'steps: 300'."
        )
    for name in content:
        if not isinstance(name, str):
            raise RequestError(f"The settings file {path} has a setting named {quoted(name)}; expected a text.")
    return content


def _value(text: str) -> Any:
    """The value a text has as YAML; the text itself where it is not YAML."""
    try:
        return parse_yaml(text)
    except YamlTextError:
        return text


def _split_assignment(assignment: str) -> tuple[str, str, str]:
    """A setting and its value, as `str.partition` has them; an address with a query has equality signs of its own."""
    found = OF_ADDRESS.fullmatch(assignment)
    return (found["path"], "=", found["value"]) if found else assignment.partition("=")


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`["steps=100", "reward.hps.version=v2.1"]` as settings by the names given; values are read as YAML.

    Raises:
        RequestError: an assignment has no `=`, or options are given to something that has a value already.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = _split_assignment(assignment)
        if not separator or not name.strip():
            raise RequestError(
                f"--set {shown(assignment)} is not an assignment; expected NAME=VALUE, as in --set steps=100."
            )
        value = text if flat_name(name.strip()) in OWN_SYNTAX else _value(text)
        kind, dot, rest = name.partition(".")
        if dot and kind in ("reward", "term"):
            owner, _, option = rest.rpartition(".")
            if not owner:
                raise RequestError(
                    f"--set {shown(assignment)} does not name an option; expected {kind}.NAME.OPTION=VALUE."
                )
            owners = values.setdefault(f"{kind}_options", {})
            options = owners.setdefault(owner, {}) if isinstance(owners, dict) else owners
            if not isinstance(options, dict):
                raise RequestError(f"--set {shown(assignment)} gives an option to {quoted(options)}, which takes none.")
            options[option] = value
        else:
            values = replace_in(values, {name.strip(): value})
    return values


def parse_options(assignments: list[str], kinds: tuple[str, ...]) -> dict[str, dict[str, dict[str, Any]]]:
    """`["metric.fid.images=real"]` as `{"metric": {"fid": {"images": "real"}}}`; values are read as YAML.

    Args:
        assignments: as typed.
        kinds: what may have options, such as `("reward", "metric")`.

    Raises:
        RequestError: an assignment lacks `=`, or is of another kind.
    """
    options: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in kinds}
    for assignment in assignments:
        path, separator, text = _split_assignment(assignment)
        kind, _, rest = path.strip().partition(".")
        name, _, option = rest.rpartition(".")
        if not separator or kind not in kinds or not name or not option:
            forms = " or ".join(f"{kind}.NAME.OPTION=VALUE" for kind in kinds)
            raise RequestError(f"--set {shown(assignment)} cannot be used here; expected {forms}.")
        options[kind].setdefault(name, {})[option] = _value(text)
    return options


def is_remote_name(name: str) -> bool:
    """Whether a name is the address of a reward behind HTTP, or of a server that a reward asks: `judge:http://...`."""
    return ADDRESS.fullmatch(name) is not None


def split_client(name: str) -> tuple[str, str]:
    """The registered reward that asks a server, and the server's address: `("judge", "http://host/v1")`.

    The first is empty where the server is one of ours, or where a name is no address.
    """
    found = ADDRESS.fullmatch(name)
    return ("", name) if found is None else (found["client"] or "", found["address"])


def is_isolated_name(name: str) -> bool:
    """Whether a name is `<reward>@<environment>`, the reward being named as it would be without an environment."""
    reward, separator, environment = name.rpartition("@")
    return bool(separator and reward and ENVIRONMENT.fullmatch(environment)) and not is_remote_name(name)
