"""Writes accepted.md from the rows in docs/results/accepted: `python tools/build_accepted.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dipp_toolkit.experiments.acceptance.row import AcceptedRow
from dipp_toolkit.experiments.acceptance.sound import check_rows

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NONE = "**Nothing has been accepted yet.** No row of anybody's GPU has been sent in."
TEXT = """# Accepted

In the code: [experiments/acceptance/row.py](../../dipp_toolkit/experiments/acceptance/row.py).

What has been run with the published weights on a person's own machine by [`dipp accept`](../guide/accept.md), a row
each. This page is written by `python tools/build_accepted.py` from the files in `docs/results/accepted`.

{rows}

## Sending a row in

<!-- run: words (it takes published weights and a GPU) -->
```console
$ dipp accept pixart-onestep --reward hps,imagereward --out accepted-pixart-onestep.json
$ dipp accept --check accepted-pixart-onestep.json
```

The first command takes the published weights and a GPU; [its page](../guide/accept.md) says what it does. Look at the
row that it wrote: it holds versions, the device's name and memory, revisions and SHA-256 of the weights, and the
numbers. It holds nothing about you, your machine's name or your folders. Put it into `docs/results/accepted/`, run
`python tools/build_accepted.py`, and open a pull request. A row with a failed check is worth sending as well.

## How it is checked

`dipp accept --check FILE...` says what is wrong with rows, and a test does so for every row in
`docs/results/accepted`. A row has no fields but those that are known; numbers are finite and plausible, digests well
formed, the digest of the settings is computed again, every check is there, each verdict follows from its numbers and
bounds, and no bound is wider than the toolkit's own. No text moves a terminal's cursor or names a folder. That the
numbers were measured cannot be known from a row; its SHA-256 can be compared with those that the hub shows of each
file, and with those of other rows of the same name.
"""


def files() -> list[Path]:
    """The rows that were sent in."""
    return sorted((RESULTS / "accepted").glob("*.json"))


def render(paths: Sequence[Path] | None = None) -> str:
    """The page.

    Args:
        paths: of rows; those in docs/results/accepted where None.

    Raises:
        SystemExit: one of them is not sound.
    """
    rows, problems = check_rows(files() if paths is None else paths)
    if problems:
        sys.exit("\n".join(problems))
    return TEXT.format(rows=_table(rows) if rows else NONE)


def _table(rows: Sequence[AcceptedRow]) -> str:
    head = ["| name | reference | rewards | device | found | date | toolkit |", "|---|---|---|---|---|---|---|"]
    return "\n".join([*head, *(_line(row) for row in sorted(rows, key=lambda row: (row.name, row.date)))])


def _line(row: AcceptedRow) -> str:
    failing = ", ".join(dict.fromkeys(check.check for check in row.failing))
    passed = sum(check.verdict == "pass" for check in row.checks)
    outcome = f"{passed} of {len(row.checks)} rows pass" + (f"; **{failing} failed**" if failing else "")
    outcome += "" if row.complete else "; interrupted"
    device = f"{row.machine.device}, torch {row.machine.torch}"
    toolkit = row.toolkit.commit[:8] or row.toolkit.version
    cells = [f"`{row.name}`", f"`{row.reference}`", ", ".join(row.rewards), device, outcome, row.date, toolkit]
    return "| " + " | ".join(cell.replace("|", "/").replace("<", "&lt;") for cell in cells) + " |"


if __name__ == "__main__":
    (RESULTS / "accepted.md").write_text(render(), encoding="utf-8")
