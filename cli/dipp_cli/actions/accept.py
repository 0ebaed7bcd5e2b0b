"""What `dipp accept` does: run the checks, show them and write the row; or check rows that were sent in."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.acceptance.check import names as check_names
from dipp_toolkit.training.setup.name_checks import check_prompts, check_rewards
from dipp_toolkit.utils.assignments import parse_assignments, parse_rewards
from dipp_toolkit.utils.messages import unknown_name
from dipp_toolkit.utils.paths import user_path

from ..app import INTERRUPTED
from ..terminal.output import plain_lines, print_json, print_line, quiet_stdout

if TYPE_CHECKING:
    from dipp_toolkit.experiments.acceptance.check import Outcome
    from dipp_toolkit.experiments.acceptance.run import AcceptanceResult
    from dipp_toolkit.experiments.acceptance.subject import Subject

COLOURS = {"pass": "green", "fail": "red", "skipped": "dim", "not seen": "yellow"}
MOST_MINUTES = 24 * 60.0


@dataclass(frozen=True, kw_only=True)
class AcceptRequest:
    """The words of the command line."""

    names: list[str]
    reference: str | None
    reward: str | None
    prompts: str | None
    skip: list[str]
    minutes: float | None
    out: Path | None
    record_golden: Path | None
    assignments: list[str]
    device: str

    def check(self) -> str:
        """The name, once the rest is known to be valid.

        Raises:
            RequestError: there are several names, or a word is unknown or out of range.
        """
        if len(self.names) != 1:
            raise RequestError(
                f"dipp accept takes one name, and got {len(self.names)}; files of rows are checked with --check."
            )
        for name in self.skip:
            if name not in check_names():
                raise RequestError(f"--skip {name} is not a check. {unknown_name('check', name, check_names())}")
        if self.minutes is not None and not 0 < self.minutes <= MOST_MINUTES:
            raise RequestError(f"--minutes is {self.minutes:g}; expected a number above 0, {MOST_MINUTES:g} at most.")
        if self.reward is not None:
            check_rewards(parse_rewards(self.reward))
        if self.prompts is not None:
            check_prompts(self.prompts)
        for path in (self.out, self.record_golden):
            if path is not None and user_path(path).is_dir():
                raise RequestError(f"Cannot write {path}: it is a folder.")
        return self.names[0]


def run_acceptance(request: AcceptRequest, as_json: bool) -> int:
    """Run the checks, print what they found, and write the row.

    Returns:
        The exit code: 0 where no check failed, 1 where one did, 130 where it was interrupted.

    Raises:
        RequestError: the request cannot be used; nothing is run or written then.
    """
    name = request.check()
    settings = parse_assignments(request.assignments)
    with tempfile.TemporaryDirectory(prefix="dipp-accept-", ignore_cleanup_errors=True) as scratch, quiet_stdout():
        from dipp_toolkit.experiments.acceptance.row import file_name, make_row, write_row
        from dipp_toolkit.experiments.acceptance.run import MINUTES, accept
        from dipp_toolkit.experiments.acceptance.settings import Candidate, settings_of
        from dipp_toolkit.experiments.acceptance.subject import Subject
        from dipp_toolkit.utils.device import choose_device

        candidate = Candidate(name, request.reference, request.reward, request.prompts, request.device, settings)
        config = settings_of(candidate, Path(scratch))
        subject = Subject(candidate, config, choose_device(config.device), Path(scratch))
        subject.deadline = subject.clock() + 60 * (request.minutes or MINUTES)
        result = accept(subject, request.skip, lambda text: print_line(text, file=sys.stderr))
        row = make_row(subject, result.outcomes, result.complete)
        path = user_path(request.out or Path(file_name(candidate.public_name)))
        write_row(path, row)
        if request.record_golden is not None:
            _record(subject, user_path(request.record_golden))
    if as_json:
        print_json({**row.model_dump(mode="json"), "file": str(path), "passed": result.passed})
    else:
        _describe(name, result, str(subject.device), path)
    return (0 if result.passed else 1) if result.complete else INTERRUPTED


def _record(subject: Subject, path: Path) -> None:
    """Write what the rewards gave as golden numbers."""
    from dipp_toolkit.experiments.acceptance.golden import measured_golden, write_golden

    write_golden(path, measured_golden(subject))


def _describe(name: str, result: AcceptanceResult, device: str, path: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..terminal.tables import show

    table = Table(title=f"{name} on {device}", show_lines=True)
    for column in ("check", "compared", "expected", "measured", "", "why"):
        table.add_column(column, no_wrap=column in ("check", ""))
    for row in result.outcomes:
        verdict = Text(row.verdict, style=COLOURS[row.verdict])
        cells = (row.compared, row.expected, row.measured)
        table.add_row(row.check, *map(plain_lines, cells), verdict, plain_lines(row.why))
    show(table)
    print_line(_counted(result.outcomes))
    print_line(f"{path}  the row, to be sent in with a pull request: docs/results/accepted.md says how.")


def _counted(outcomes: tuple[Outcome, ...]) -> str:
    counts = {verdict: sum(row.verdict == verdict for row in outcomes) for verdict in COLOURS}
    counted = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    failing = dict.fromkeys(row.check for row in outcomes if row.verdict == "fail")
    return f"Of {len(outcomes)} rows: {counted}." + (f" Failed: {', '.join(failing)}." if failing else "")


def check_submissions(files: list[str], as_json: bool) -> int:
    """Print what is wrong with rows that were sent in, or that they are sound.

    Returns:
        The exit code: 0 where all are sound, 1 where one is not.
    """
    from dipp_toolkit.experiments.acceptance.sound import check_rows

    rows, problems = check_rows([user_path(file) for file in files])
    if as_json:
        print_json(
            {
                "rows": len(rows),
                "problems": problems,
                "failing": {row.name: [outcome.check for outcome in row.failing] for row in rows if row.failing},
            }
        )
        return 1 if problems else 0
    for problem in problems:
        print_line(problem)
    for row in rows:
        failing = ", ".join(dict.fromkeys(outcome.check for outcome in row.failing))
        print_line(f"{row.name} on {row.machine.device}: {f'{failing} failed' if failing else 'no check failed'}.")
    counted = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
    sound = "is sound" if len(rows) == 1 else "are sound"
    count = f"{len(files)} file{'s' * (len(files) != 1)}"
    print_line(f"{count}, {counted}." if problems else f"{count} {sound}.")
    return 1 if problems else 0
