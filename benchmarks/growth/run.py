"""How costs grow: n, 2 n and 4 n of a subject, this checkout beside an older one.

    OMP_NUM_THREADS=1 python benchmarks/growth/run.py
    OMP_NUM_THREADS=1 python benchmarks/growth/run.py prompts scoring --before ../old-checkout

A subject is a file of this folder. Its docstring's first line says what it is, `SIZES` are the three sizes, and
`measure(n)` returns numbers by name: seconds of the processor's time, counts, MiB. Each size of each checkout is
measured in a process of its own. With `--before` the older checkout's toolkit is measured by the same file, which must
therefore use only what both have. Writes results.json, where subjects that were not measured stay as they are, and
results.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
SUBJECTS = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "__init__"))
ROOMS = ("", "plugins", "cli")
"""Folders of a checkout that packages are imported from."""


def load(subject: str) -> ModuleType:
    """The module of a subject, from its file: `benchmarks` may be another checkout's."""
    spec = importlib.util.spec_from_file_location(f"growth_{subject}", HERE / f"{subject}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(subject: str, size: int, checkout: Path) -> dict[str, float]:
    """What `measure` gives for one size with a checkout's toolkit, in a process of its own."""
    paths = os.pathsep.join(str(checkout / room) for room in ROOMS)
    words = [sys.executable, __file__, "--only", subject, str(size)]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"PYTHONPATH": paths}, cwd=checkout
    )
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def grown(subject: str, checkout: Path) -> dict[str, dict[str, float]]:
    """All sizes of a subject, by size."""
    return {str(size): measured(subject, size, checkout) for size in load(subject).SIZES}


def shown(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) or abs(number) >= 1000 else f"{number:.3g}"


def table(rows: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """The table of one subject: a line a number and checkout, a column a size, and how often 4 n is n."""
    sizes = sorted(rows["now"], key=int)
    lines = [
        f"| | {' | '.join(f'{int(size):,}' for size in sizes)} | last / first |",
        f"|---|{'---|' * len(sizes)}---|",
    ]
    for name in rows["now"][sizes[0]]:
        for label in ("before", "now"):
            if label not in rows:
                continue
            values = [rows[label][size].get(name) for size in sizes]
            if any(value is None for value in values):
                continue
            ratio = f"{values[-1] / values[0]:.2f}" if values[0] else ""  # type: ignore[operator]
            title = f"{name}, {label}" if "before" in rows else name
            lines.append(f"| {title} | {' | '.join(shown(value) for value in values)} | {ratio} |")  # type: ignore[arg-type]
    return lines


def page(results: dict[str, Any]) -> str:
    lines = ["# How costs grow", "", "Seconds are the processor's. Written by `benchmarks/growth/run.py`."]
    for subject, rows in sorted(results.items()):
        about = (load(subject).__doc__ or subject).strip().splitlines()[0]
        lines += ["", f"## {subject}", "", about, "", *table(rows["numbers"]), "", f"{rows['machine']}."]
    return "\n".join(lines) + "\n"


def machine() -> str:
    import torch

    from dipp_toolkit.utils.device import environment

    here = environment(torch.device("cpu"))
    return f"{here['device']}, torch {here['torch']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("subjects", nargs="*", choices=[[], *SUBJECTS], help="all where none is named")
    parser.add_argument("--before", type=Path, help="another checkout, measured beside this one")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(load(given.only[0]).measure(int(given.only[1]))))
        return
    path = HERE / "results.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for subject in given.subjects or SUBJECTS:
        checkouts = {"before": given.before.resolve()} if given.before else {}
        numbers = {label: grown(subject, checkout) for label, checkout in {**checkouts, "now": CHECKOUT}.items()}
        results[subject] = {"machine": machine(), "numbers": numbers}
        print("\n".join([subject, *table(numbers)]), flush=True)
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (HERE / "results.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
