"""What `dipp reward check` does: load a reward, check it, and show what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dipp_toolkit.errors import RequestError

from ...terminal.output import plain_lines, print_line
from .loading import close, load_rewards

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def check_by_name(name: str, assignments: list[str], device: str, size: int, seed: int) -> dict[str, Any]:
    """Load a reward and check it.

    Returns:
        `reward`, `device`, `size`, `passed`, and `checks`, a list of `{"name", "status", "found", "advice"}`.

    Raises:
        RequestError: the reward cannot be loaded, or an option or the device cannot be used.
    """
    from dipp_toolkit.training.setup.name_checks import check_rewards

    check_rewards([name])
    from dipp_toolkit.rewards.checks.run import SMALLEST, check_reward
    from dipp_toolkit.utils.device import choose_device

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

    from ...terminal.tables import show

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
