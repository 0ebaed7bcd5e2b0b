"""What `dipp train` and `dipp distill` do: run with settings, show progress, and print the result."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.training.run import train

from ..terminal.output import is_first_process, print_json, print_line, quiet_stdout
from ..terminal.progress import listener


def run(config: TrainConfig, as_json: bool, quiet: bool, dry: bool = False) -> None:
    """Train, then print the table or the JSON object; or, dry, say what would be done.

    Raises:
        DippError: as `dipp_toolkit.train` does.
    """
    if dry:
        from dipp_toolkit.training.setup.preflight import preflight

        from ..terminal.tables import print_preflight

        print_preflight(preflight(config), as_json)
        return
    with quiet_stdout(), listener(quiet) as progress:
        result = train(config, listeners=[progress])
    if not is_first_process():
        return
    if as_json:
        print_json({"folder": str(result.folder), **result.summary})
        return
    from ..terminal.tables import console, show, summary_table

    show(summary_table(result.summary, console().width))
    _point_out(result.folder, result.summary)


def _point_out(folder: Path, summary: Mapping[str, Any]) -> None:
    if summary.get("stopped_early"):
        print_line(summary["stopped_early"]["text"])
    for warning in summary.get("warnings") or []:
        print_line(f"Warning: {warning}")
    from dipp_toolkit.report.shown_prompts import recorded_prompts
    from dipp_toolkit.report.strips import strips_in_short

    picture = summary.get("picture") or {}
    meaning = {
        "report.html": "pictures, curves, settings",
        "before_after.png": strips_in_short(recorded_prompts(picture, picture.get("prompts", 0))),
        "final": summary.get("final") or "the generator, a diffusers pipeline",
    }
    width = max(len(str(folder / name)) for name in meaning)
    for name, what in meaning.items():
        if (folder / name).exists():
            print_line(f"{folder / name!s:<{width}}  {what}")
    sys.stdout.flush()
