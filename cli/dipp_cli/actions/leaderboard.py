"""What `dipp leaderboard` does: build the page from files of rows, or check the files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.bench.rows import Row, read_rows, write_rows
from dipp_toolkit.experiments.leaderboard.board import Board, fitting, make_board, reported_rows
from dipp_toolkit.experiments.leaderboard.check import check_files
from dipp_toolkit.experiments.leaderboard.markdown import to_markdown
from dipp_toolkit.experiments.leaderboard.page import write_page
from dipp_toolkit.prompts.subsets import counted_prompts
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.messages import short_name
from dipp_toolkit.utils.paths import user_path

from ..terminal.output import print_json, print_line


@dataclass(frozen=True, kw_only=True)
class LeaderboardRequest:
    """The words of the command line."""

    results: list[Path]
    out: Path
    markdown: Path | None
    submission: Path | None
    sort: str | None
    title: str
    reported: bool | None

    def rows(self) -> tuple[list[Row], list[str]]:
        """All rows of all files, with those of papers that are wanted, and why files were left out.

        Raises:
            RequestError: a file is missing, or none can be used.
        """
        rows: list[Row] = []
        refused: list[str] = []
        for path in map(results_file, self.results):
            try:
                rows += read_rows(path)
            except RequestError as error:
                refused.append(str(error))
                if not path.exists() or len(refused) == len(self.results):
                    raise
        if self.reported is False:
            return [row for row in rows if row.kind == "measured"], refused
        measured = {(row.label, row.source) for row in rows}
        papers = reported_rows() if self.reported else fitting(rows)
        return rows + [row for row in papers if (row.label, row.source) not in measured], refused


def results_file(path: Path) -> Path:
    """The file itself, or that of a bench's or an ablation's folder."""
    path = user_path(path)
    return path / "results.jsonl" if path.is_dir() else path


def build(request: LeaderboardRequest, as_json: bool) -> int:
    """Write the page and what else was asked for, and say where.

    Returns:
        The exit code: 1 where a file was left out, which is reported; 0 otherwise.

    Raises:
        RequestError: a file is missing or cannot be written, or none can be used.
    """
    rows, refused = request.rows()
    for sentence in refused:
        print_line(f"Left out: {sentence}", file=sys.stderr)
    board = make_board(rows, request.sort)
    written = {}
    try:
        written[str(write_page(board, user_path(request.out), request.title))] = "the page"
        if request.markdown is not None:
            path = user_path(request.markdown)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, to_markdown(board))
            written[str(path)] = "the table"
        if request.submission is not None:
            path = user_path(request.submission)
            write_rows(path, [row for row in rows if row.kind == "measured"])
            written[str(path)] = "the rows, for a pull request"
    except OSError as error:
        raise RequestError(f"Cannot write {error.filename or request.out}: {error.strerror or error}.") from error
    if as_json:
        print_json(
            {
                "files": list(written),
                "left_out": refused,
                "sections": [
                    {"sort": section.sort, "rows": [row.label for row in section.rows], "ranks": section.ranks}
                    for section in board.sections
                ],
            }
        )
    else:
        _describe(board, written)
    return 1 if refused else 0


def _describe(board: Board, written: dict[str, str]) -> None:
    for section in board.sections:
        protocol = section.rows[0].protocol
        print_line(f"{counted_prompts(protocol.count, protocol.prompts)}, by {short_name(section.sort)}:")
        for row in section.rows:
            rank = section.ranks[section.sort].get(row.label, "-")
            warned = f"  ({', '.join(warning.name for warning in row.warnings)})" if row.warnings else ""
            print_line(f"  {rank:>3}  {row.label}{warned}")
    for path, what in written.items():
        print_line(f"{path}  {what}")


def print_check(request: LeaderboardRequest, as_json: bool) -> int:
    """Print what is wrong with the files, or that they are sound.

    Returns:
        The exit code: 0 where all rows are sound, 1 where one is not.
    """
    count, problems = check_files([results_file(path) for path in request.results])
    if as_json:
        print_json({"rows": count, "problems": problems})
    else:
        for problem in problems:
            print_line(problem)
        rows = f"{count} row{'s' * (count != 1)}"
        counted = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        print_line(f"{rows}, {counted}." if problems else f"{rows} {'is' if count == 1 else 'are'} sound.")
    return 1 if problems else 0
