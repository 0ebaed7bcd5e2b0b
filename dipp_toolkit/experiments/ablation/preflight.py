"""What `dipp ablate --dry-run` looks at; see `dipp_toolkit.training.setup.preflight`."""

from __future__ import annotations

from ...training.setup.preflight import Preflight, check_run, dry_run_parts
from ..bench.preflight import look_at_bench
from .cells import cell_config, folders_of
from .settings import AblationSettings, bench_settings, check_ablation


def preflight_ablation(settings: AblationSettings) -> Preflight:
    """Look at everything an ablation needs: every cell's training, and the bench of all.

    Returns:
        What would be done.

    Raises:
        RequestError: what the ablation would be refused with.
    """
    check_ablation(settings)
    with dry_run_parts() as parts:
        folders = folders_of(settings.cells, settings.out)
        waiting = [folder for folder in folders if not folder.done]
        runs = [check_run(cell_config(folder, settings.base), parts) for folder in waiting]
        bench = look_at_bench(bench_settings(settings, folders), parts)
        shared = {
            name: text
            for name, text in (runs[0] if runs else {}).items()
            if name != "folder" and all(run.get(name) == text for run in runs)
        }
        rows = {
            "cells": f"{len(folders)}, {len(folders) - len(waiting)} done already",
            "varied": "; ".join(_varied(settings)),
            **shared,
            "measured on": f"{bench['prompts']}, {len(settings.seeds)} noises each",
            **{f"measured {name}": bench[name] for name in ("rewards", "judges", "metrics") if name in bench},
            "folder": str(settings.out),
        }
        return Preflight(rows, tuple(parts.fetched))


def _varied(settings: AblationSettings) -> list[str]:
    values: dict[str, dict[str, None]] = {}
    for cell in settings.cells:
        for name, value in cell.values.items():
            values.setdefault(name, {})[value] = None
    return [f"{name}: {', '.join(names)}" for name, names in values.items()]
