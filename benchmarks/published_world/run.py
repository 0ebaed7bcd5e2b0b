"""Every published name in every format: does it load, draw as stock diffusers does, train and export?

    python benchmarks/published_world/run.py [--only WORD] [--record]

For each row a hub cache is written with the repositories in their published layout (file names, key names, scheduler
class and configuration) and tiny random networks of the published classes. The name is then loaded by its normal path,
offline. Its one-step image is compared with the call of stock diffusers that its authors publish, it is trained for
five steps, whole and by adapters, and each export is drawn from in plain diffusers and by `dipp generate`. References
are sampled in four guided steps, and distilled for five.

Differences are the largest of a pixel in [0, 1], in float32; a row with one above 1e-4, or that raises, fails, and the
exit code is 1. `--record` writes results.md, which `python tools/build_tables.py` puts into docs/guide/real-models.md;
with `--only` the other rows stay as they were recorded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from benchmarks.published_world.layouts import LAYOUTS
from benchmarks.published_world.row import TOLERANCE, Row, look_at

RESULTS = Path(__file__).with_name("results.md")
TRAINED = {True: "yes", False: "**no**", None: "-"}
HEAD = (
    "| name | format | loads | image, from stock | full | LoRA | exports, from `dipp generate` | licence |",
    "|---|---|---|---|---|---|---|---|",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at every layout; 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="rows with this word in their name or format")
    parser.add_argument("--record", action="store_true", help="write results.md")
    options = parser.parse_args(arguments)
    print("\n".join(HEAD), flush=True)
    rows = []
    for layout in LAYOUTS:
        if options.only in f"{layout.name} {layout.format}":
            with tempfile.TemporaryDirectory(prefix="published-world-") as folder:
                rows.append(look_at(layout, Path(folder)))
            print(line_of(rows[-1]), flush=True)
    failing = [row for row in rows if not row.holds]
    print(f"\n{len(rows)} rows, {len(failing)} failing.")
    if options.record:
        recorded = RESULTS.read_text(encoding="utf-8").splitlines() if options.only and RESULTS.is_file() else []
        RESULTS.write_text(table(rows, recorded), encoding="utf-8")
    return 1 if failing or not rows else 0


def table(rows: Sequence[Row], recorded: Sequence[str] = ()) -> str:
    """The recorded table and what has to be known to read it.

    Args:
        rows: those that were looked at now.
        recorded: lines of an earlier table, whose other rows stay, in the order of `LAYOUTS`.
    """
    now = {_key(line): line for line in map(line_of, rows)}
    before = {_key(line): line for line in recorded if line.startswith("| `")}
    keys = [(layout.name, layout.format) for layout in LAYOUTS]
    chosen = [(before | now)[key] for key in keys if key in before | now]
    notes = dict.fromkeys(
        f"`{layout.name}`: {layout.differs}"
        for layout in LAYOUTS
        if layout.differs and (layout.name, layout.format) in before | now
    )
    lines = [*HEAD, *chosen, "", *notes, *([""] if notes else [])]
    failing = sum("**fails**" in line for line in chosen)
    lines.append(
        f"{len(chosen)} rows, {failing} failing. Differences are the largest of a pixel in [0, 1], in float32; a row "
        f"holds up to {TOLERANCE:g}. torch {torch.__version__}."
    )
    return "\n".join(lines) + "\n"


def _key(line: str) -> tuple[str, str]:
    """The name and the format that a line of the table is about."""
    name, form, *_ = line.removeprefix("| ").split(" | ")
    return name.split("`")[1], form


def line_of(row: Row) -> str:
    """A line of the table; one that fails says so behind its name."""
    modes = [TRAINED[row.trained.get(mode)] for mode in ("full", "lora")]
    exported = f"{max(row.exported.values()):.1g}" if row.exported else "-"
    name = f"`{row.layout.name}`" + ("" if row.holds else f" **fails** {_cell(row.problem)}".rstrip())
    cells = [name, row.layout.format, "yes" if row.loads else "**no**", f"{row.stock:.1g}", *modes, exported]
    return f"| {' | '.join([*cells, row.licence])} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


if __name__ == "__main__":
    sys.exit(main())
