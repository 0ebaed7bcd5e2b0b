"""What `dipp reward check` asks of the toolkit, and how it is shown; rewards that are named on a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dipp_toolkit.errors import DippError, RequestError

from .output import plain_lines, print_line

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def check_by_name(name: str, assignments: list[str], device: str, size: int, seed: int) -> dict[str, Any]:
    """Load a reward and check it.

    Returns:
        `reward`, `device`, `size`, `passed`, and `checks`, a list of `{"name", "status", "found", "advice"}`.

    Raises:
        RequestError: the reward cannot be loaded, or an option or the device cannot be used.
    """
    from dipp_toolkit.known_names import check_rewards

    check_rewards([name])
    from dipp_toolkit.assembly import choose_device
    from dipp_toolkit.rewards.check import SMALLEST, check_reward

    if size < SMALLEST:
        raise RequestError(f"--size is {size}; expected at least {SMALLEST}.")
    place = choose_device(device)
    rewards = load_rewards([name], assignments)
    try:
        rows = check_reward(rewards[name], name, device=place, size=size, seed=seed)
    finally:
        close(rewards)
    return {
        "reward": name,
        "device": str(place),
        "size": size,
        "passed": not any(row.status == "failed" for row in rows),
        "checks": [row.as_dict() for row in rows],
    }


def describe(result: Mapping[str, Any]) -> None:
    """Print the checks as a table, and what they come to as a sentence."""
    from rich.table import Table
    from rich.text import Text

    from .tables import show

    table = Table(title=f"{result['reward']} on {result['device']}")
    for column in ("check", "", "found, and what to do"):
        table.add_column(column, no_wrap=column in ("check", ""))
    for row in result["checks"]:
        status = row["status"]
        findings = Text(plain_lines(row["found"]))
        if row["advice"]:
            findings.append(f"\n{plain_lines(row['advice'])}", style="bold")
        table.add_row(row["name"], Text(status, style=COLOURS[status]), findings)
    show(table)
    counts = {status: sum(row["status"] == status for row in result["checks"]) for status in COLOURS}
    warned = f", {counts['warning']} warning{'s' * (counts['warning'] != 1)}" if counts["warning"] else ""
    if result["passed"]:
        print_line(f"Nothing failed: {counts['ok']} of {len(result['checks'])} checks are ok{warned}.")
    else:
        print_line(f"{counts['failed']} of {len(result['checks'])} checks failed{warned}.")


def reward_names(text: str) -> list[str]:
    """The rewards that `--reward` names.

    Raises:
        RequestError: there are none, one stands twice, one has a weight, or one is unknown.
    """
    from dipp_toolkit.known_names import check_rewards
    from dipp_toolkit.setting_texts import parse_rewards

    names = list(parse_rewards(text))
    weighted = [part.strip() for part in text.split(",") if part.strip() not in names and part.strip()]
    if weighted:
        name = weighted[0].partition("=")[0]
        raise RequestError(
            f"--reward {weighted[0]} gives a weight, but scores are not added up; write --reward {name} alone."
        )
    if not names:
        raise RequestError("--reward names no reward; expected names, as in --reward hps,imagereward.")
    check_rewards(names)
    return names


def load_rewards(names: Sequence[str], assignments: list[str]) -> dict[str, Any]:
    """Rewards by name, with the options that `--set` gives them.

    Raises:
        RequestError: one cannot be loaded, or an assignment is no option of one of them.
    """
    from dipp_toolkit.loading import load_reward
    from dipp_toolkit.raised import raised
    from dipp_toolkit.setting_texts import parse_assignments

    assigned = parse_assignments(assignments)
    options = assigned.pop("reward_options", {})
    for setting in assigned:
        raise RequestError(
            f"--set {setting} means nothing here; expected options of a reward, reward.NAME.OPTION=VALUE."
        )
    for name in options:
        if name not in names:
            raise RequestError(f"Options were set for the reward '{name}', which is not used here.")
    rewards: dict[str, Any] = {}
    try:
        for name in names:
            rewards[name] = load_reward(name, **options.get(name, {}))
    except DippError:
        close(rewards)
        raise
    except Exception as error:  # a reward's own code may raise anything while it loads
        close(rewards)
        raise RequestError(f"The reward '{name}' cannot be loaded: {raised(error)}.") from error
    return rewards


def close(rewards: Mapping[str, Any]) -> None:
    """Let go of processes and connections of rewards that live elsewhere."""
    for reward in rewards.values():
        if callable(getattr(reward, "close", None)):
            reward.close()
