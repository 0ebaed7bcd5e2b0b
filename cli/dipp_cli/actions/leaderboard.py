"""What `dipp leaderboard` does: build the page from files of rows and from votes, or check the files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.intervals import Interval
from dipp_toolkit.experiments.bench.rows import Row, read_rows, write_rows
from dipp_toolkit.experiments.leaderboard.board import Board, fitting, make_board, reported_rows
from dipp_toolkit.experiments.leaderboard.check import check_files
from dipp_toolkit.experiments.leaderboard.markdown import to_markdown
from dipp_toolkit.experiments.leaderboard.page import write_page
from dipp_toolkit.experiments.leaderboard.votes import VoteBoard, make_vote_board, percent, percents
from dipp_toolkit.preferences.loading import read_preferences
from dipp_toolkit.preferences.reward_scores import images_of, score_candidates
from dipp_toolkit.prompts.subsets import counted_prompts
from dipp_toolkit.protocols import moved
from dipp_toolkit.rewards.groups import refuse_alone
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.device import choose_device
from dipp_toolkit.utils.messages import number_text, short_name
from dipp_toolkit.utils.paths import user_path

from ..terminal.output import print_json, print_line, quiet_stdout
from ..terminal.work_progress import score_progress
from .reward.loading import close, load_rewards, reward_names


@dataclass(frozen=True, kw_only=True)
class LeaderboardRequest:
    """The words of the command line; None for what was not given."""

    results: list[Path]
    votes: str | None
    reward: str | None
    batch_size: int
    assignments: list[str]
    device: str
    quiet: bool
    out: Path
    markdown: Path | None
    submission: Path | None
    sort: str | None
    title: str
    reported: bool | None

    def check(self) -> None:
        """Refuse what cannot be done, before anything is read.

        Raises:
            RequestError: as a sentence.
        """
        if not self.results and self.votes is None:
            raise RequestError(
                "Name files of rows, as dipp bench writes them, or votes with --votes FOLDER, as dipp vote takes them."
            )
        if self.batch_size < 1:
            raise RequestError(f"--batch-size is {self.batch_size}; expected at least 1.")
        if self.votes is None and (self.reward is not None or self.assignments):
            raise RequestError("Rewards are held against votes: give them with --votes FOLDER.")
        if self.reward is None and self.assignments:
            raise RequestError("Options are given for rewards, and none is named: name them with --reward NAME.")
        for flag, value in (("--sort", self.sort), ("--submission", self.submission), ("--reported", self.reported)):
            if value is not None and not self.results:
                raise RequestError(f"{flag} is for rows of dipp bench: name their files before --votes.")

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
    request.check()
    rows, refused = request.rows() if request.results else ([], [])
    for sentence in refused:
        print_line(f"Left out: {sentence}", file=sys.stderr)
    board = make_board(rows, request.sort) if request.results else Board([], [])
    with quiet_stdout():
        votes = read_votes(request) if request.votes is not None else None
    written = {}
    try:
        written[str(write_page(board, user_path(request.out), request.title, votes))] = "the page"
        if request.markdown is not None:
            path = user_path(request.markdown)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, to_markdown(board, votes))
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
                **({"votes": votes.as_dict()} if votes else {}),
                "sections": [
                    {"sort": section.sort, "rows": [row.label for row in section.rows], "ranks": section.ranks}
                    for section in board.sections
                ],
            }
        )
    else:
        if votes:
            describe_votes(votes)
        _describe(board, written)
    return 1 if refused else 0


def read_votes(request: LeaderboardRequest) -> VoteBoard:
    """What the votes say, and how far rewards agree with them.

    Raises:
        RequestError: there are no votes, or an image or a reward cannot be used.
        RunError: a reward failed.
    """
    assert request.votes is not None
    names = reward_names(request.reward) if request.reward is not None else []
    preferences = read_preferences(request.votes)
    comparisons = preferences.comparisons
    if not names:
        return make_vote_board(comparisons, notices=preferences.notices)
    device = choose_device(request.device)
    images = images_of(comparisons)
    rewards = load_rewards(names, request.assignments)
    try:
        for name, reward in rewards.items():
            refuse_alone(name, reward, "dipp leaderboard --votes")
        rewards = {name: moved(reward, device) for name, reward in rewards.items()}
        with score_progress(len(images), request.quiet) as progress:
            scores, notices = score_candidates(
                rewards, images, batch=request.batch_size, device=device, progress=progress
            )
    finally:
        close(rewards)
    for notice in notices:
        print_line(notice, file=sys.stderr)
    return make_vote_board(comparisons, scores, preferences.notices)


def describe_votes(votes: VoteBoard) -> None:
    """Print makers, agreement and warnings."""
    from rich.table import Table

    from ..terminal.tables import show

    def share(interval: Interval) -> str:
        return f"{percent(interval.mean)} ({percents(interval)})"

    print_line(votes.summary)
    if votes.makers:
        table = Table(title="Makers, with 95 % intervals over prompts")
        for column in ("rank", "maker", "rating (Elo)", "wins", "votes"):
            table.add_column(column, justify="right" if column in ("rank", "votes") else "left")
        for maker in votes.makers:
            ends = (number_text(end, ".0f") for end in (maker.rating.low, maker.rating.high))
            rating = f"{number_text(maker.rating.mean, '+.0f')} ({' to '.join(ends)})"
            table.add_row(str(maker.rank), maker.label, rating, share(maker.win_rate), str(maker.votes))
        show(table)
    if votes.agreements:
        table = Table(title="Agreement with a person; chance is 50 %")
        for column in ("", "share", "cases"):
            table.add_column(column, justify="right" if column == "cases" else "left")
        for name, found in votes.agreements.items():
            table.add_row(name, share(found.share), str(found.count))
        show(table)
    for sentence in votes.warnings:
        print_line(sentence)


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

    Raises:
        RequestError: no file is named.
    """
    if not request.results:
        raise RequestError("Name the files to check: those of dipp bench, or one that --submission wrote.")
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
