"""The record: a line of `records.jsonl` for every recorded entry, and the table that is made of them."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.speedrun.circumstances import machine
from benchmarks.speedrun.race import Outcome
from benchmarks.speedrun.rules import SEEDS, Entry, World
from benchmarks.speedrun.targets import Targets
from dipp_toolkit import RequestError
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.content_digests import file_digest
from dipp_toolkit.utils.jsonl import whole_rows

HERE = Path(__file__).parent
RECORDS = "records.jsonl"
HEAD = (
    "| date | world | entry | processor seconds | updates | of the default's seconds | every seed: seconds, updates "
    "| judge at the end | machine |",
    "|---|---|---|---|---|---|---|---|---|",
)
EMPTY = "No entry has been recorded yet."


def worst(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """What an entry is recorded with: the slowest seed's seconds and the most updates; None unless all reached."""
    if not outcomes or not all(outcome.reached for outcome in outcomes):
        return None
    return {"seconds": max(one.seconds for one in outcomes), "updates": max(one.updates for one in outcomes)}


def ratio(entry: Sequence[Outcome], default: Sequence[Outcome]) -> float | None:
    """The entry's seconds over the default's; None where one of them did not reach the targets."""
    own, other = worst(entry), worst(default)
    return None if own is None or other is None else own["seconds"] / other["seconds"]


def record_of(
    entry: Entry, world: World, outcomes: Sequence[Outcome], default: Sequence[Outcome], targets: Targets
) -> dict[str, Any]:
    """The line of an entry.

    Raises:
        RequestError: it did not reach the targets with every seed, or ran with other seeds than the rules say.
    """
    own = worst(outcomes)
    if own is None:
        raise RequestError(f"The entry {entry.name} did not reach the targets with every seed, so it is not recorded.")
    if [outcome.seed for outcome in outcomes] != list(range(SEEDS)):
        raise RequestError(f"A record needs the seeds 0 to {SEEDS - 1}; run with --seeds {SEEDS}.")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "world": world.name,
        "entry": entry.name,
        "settings": json.loads(json.dumps(entry.settings, default=str)),
        "resolved": entry.resolved(world),
        "threads": entry.threads,
        "machine": machine(),
        **own,
        "ratio": ratio(outcomes, default),
        "runs": [asdict(outcome) for outcome in outcomes],
        "default": [asdict(outcome) for outcome in default],
        "targets": targets.as_dict(),
    }


def keep(record: Mapping[str, Any], source: Path, folder: Path = HERE) -> None:
    """Append a record, put its settings beside it, and write the table anew.

    Args:
        record: of `record_of`.
        source: the entry's file.
        folder: of the benchmark.

    Raises:
        RequestError: another entry has its name.
    """
    place = folder / "entries" / f"{record['entry']}.yaml"
    if place.exists() and file_digest(place) != file_digest(source):
        raise RequestError(f"Another entry is called {record['entry']} ({place}). Give the file another name.")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    rows = [*whole_rows(folder / RECORDS), {**record, "sha256": file_digest(place)}]
    write_text(folder / RECORDS, "".join(json.dumps(row) + "\n" for row in rows))
    write_table(folder)


def write_table(folder: Path = HERE) -> None:
    """`results.md` from `records.jsonl`."""
    write_text(folder / "results.md", table(whole_rows(folder / RECORDS)))


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as Markdown, in the order in which they were made."""
    if not records:
        return f"{EMPTY}\n"
    return "\n".join([*HEAD, *map(_row, records)]) + "\n"


def _row(record: Mapping[str, Any]) -> str:
    place, goals = record["machine"], record["targets"]
    threads = f"{record['threads']} thread{'s' * (record['threads'] != 1)}"
    each = "; ".join(f"{run['seconds']:.1f} s, {run['updates']}" for run in record["runs"])
    least = min(run["look"]["judge"] for run in record["runs"])
    share = "the default did not reach it" if record["ratio"] is None else f"{record['ratio']:.2f}"
    return (
        f"| {record['date']} | {record['world']} | {record['entry']} | {record['seconds']:.1f} | {record['updates']} "
        f"| {share} | {each} | {least:.2f} or more, above {goals['judge']:.2f} "
        f"| {place['cpu']}, {threads}, torch {place['torch']} |"
    )
