"""What `dipp score` does: score images with rewards, compare folders, and show the numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.messages import number_text
from dipp_toolkit.utils.paths import user_path

from ..terminal.output import print_line
from ..terminal.work_progress import score_progress
from .reward.loading import close, load_rewards, reward_names

if TYPE_CHECKING:
    from dipp_toolkit.evaluation.scoring import PromptedFile, ScoredFile


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """The words of the command line; None for what was not given."""

    images: Sequence[Path]
    reward: str
    prompts: str | None
    prompt: str | None
    out: Path | None
    batch_size: int
    assignments: list[str]
    seed: int
    device: str
    quiet: bool

    def check(self) -> None:
        """Refuse what cannot be done, before anything is loaded.

        Raises:
            RequestError: as a sentence.
        """
        if self.batch_size < 1:
            raise RequestError(f"--batch-size is {self.batch_size}; expected at least 1.")
        if not 0 <= self.seed < 2**31:
            raise RequestError(f"--seed is {self.seed}; expected a number from 0 to {2**31 - 1}.")
        if self.prompts is not None and self.prompt is not None:
            raise RequestError("Give the prompts by --prompts FILE or by --prompt TEXT, not by both.")
        if self.out is not None:
            out = user_path(self.out)
            if out.is_dir():
                raise RequestError(f"Cannot write the scores to {out}: it is a folder.")
            if not out.parent.is_dir():
                raise RequestError(f"Cannot write the scores to {out}: there is no folder {out.parent}.")


def score_images(request: ScoreRequest) -> dict[str, Any]:
    """Score everything that was named, and write `--out`.

    Returns:
        `rewards`, `{name: {"mean", "low", "high", "drawn", "lowest", "highest"}}` over all images; `folders`, for each
        `{"folder", "images", "rewards"}`, the same over its images; `pairs`, two folders by a reward prompt by prompt,
        as `dipp_toolkit.experiments.bench.paired_tests.Comparison`, with `text`, the sentence; `images`, for each
        `{"file", "folder", "prompt", "scores": {name: score}}`; `notices`, sentences.

    Raises:
        RequestError: a reward, an image or the prompts cannot be used.
        RunError: a reward failed, or the scores cannot be written.
    """
    request.check()
    names = reward_names(request.reward)
    from dipp_toolkit.evaluation.scoring import score_files
    from dipp_toolkit.experiments.bench.paired_scores import compare_groups
    from dipp_toolkit.protocols import moved
    from dipp_toolkit.rewards.groups import refuse_alone
    from dipp_toolkit.utils.device import choose_device

    files, notices = gather(request)
    device = choose_device(request.device)
    rewards = load_rewards(names, request.assignments)
    try:
        for name, reward in rewards.items():
            refuse_alone(name, reward, "dipp score")
        rewards = {name: moved(reward, device) for name, reward in rewards.items()}
        with score_progress(len(files), request.quiet) as progress:
            scored, remarks = score_files(rewards, files, batch=request.batch_size, device=device, progress=progress)
    finally:
        close(rewards)
    notices += remarks
    for notice in notices:
        print_line(notice, file=sys.stderr)
    pairs, unpaired = compare_groups(scored, names)
    for notice in unpaired:
        print_line(notice, file=sys.stderr)
    notices += unpaired
    result = {
        **summaries(scored, names),
        "pairs": [pair.as_dict() | {"text": pair.sentence()} for pair in pairs],
        "images": [file.as_dict() for file in scored],
        "notices": notices,
    }
    if request.out is not None:
        write_lines(user_path(request.out), result["images"])
    return result


def gather(request: ScoreRequest) -> tuple[list[PromptedFile], list[str]]:
    """Every image with its prompt, and notices about where prompts came from.

    Raises:
        RequestError: an image or a prompt is missing.
    """
    from dipp_toolkit.evaluation.image_files import list_images, natural_key
    from dipp_toolkit.evaluation.image_prompts import FILES, match_prompts, without_grid
    from dipp_toolkit.evaluation.scoring import PromptedFile

    groups: dict[str, list[Path]] = {}
    named = list(dict.fromkeys(user_path(path) for path in request.images))
    for path in named:
        if path.is_dir():
            groups[str(path)] = without_grid(list_images(path))
        elif path.exists():
            groups.setdefault(FILES, []).append(path)
        else:
            raise RequestError(f"There is no image or folder {path}.")
    files, notices = [], []
    for group, paths in groups.items():
        paths.sort(key=natural_key)
        prompts, notice = match_prompts(paths, group, request.prompts, request.prompt)
        notices += [notice] if notice else []
        files += [PromptedFile(path, prompt, group) for path, prompt in zip(paths, prompts, strict=True)]
    return files, notices


def summaries(scored: Sequence[ScoredFile], names: Sequence[str]) -> dict[str, Any]:
    """The numbers of every folder, and of all images together."""

    def rewards(files: Sequence[ScoredFile]) -> dict[str, Any]:
        from dipp_toolkit.evaluation.scoring import summarise

        numbers = {}
        for name in names:
            summary = summarise(files, name)
            extremes = {
                key: {"file": str(extreme.file.path), "score": extreme.scores[name]}
                for key, extreme in (("lowest", summary.lowest), ("highest", summary.highest))
            }
            numbers[name] = {**summary.interval.as_dict(), "drawn": summary.drawn, **extremes}
        return numbers

    groups = dict.fromkeys(scored_file.file.group for scored_file in scored)
    folders = [(group, [scored_file for scored_file in scored if scored_file.file.group == group]) for group in groups]
    return {
        "rewards": rewards(scored),
        "folders": [{"folder": group, "images": len(files), "rewards": rewards(files)} for group, files in folders],
    }


def write_lines(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all.

    Raises:
        RunError: the disk does not take it.
    """
    try:
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise RunError(f"Cannot write the scores to {out}: {error.strerror or error}.") from error


def describe(result: Mapping[str, Any]) -> None:
    """Print a row for each folder and reward."""
    from rich.table import Table

    from ..terminal.tables import interval, show

    several = len(result["folders"]) > 1
    table = Table(title="Scores, means with 95 % intervals")
    for column in (*(["folder"] if several else []), "reward", "images", "mean", "lowest", "highest"):
        table.add_column(column, justify="right" if column == "images" else "left")
    for folder in result["folders"]:
        for name, summary in folder["rewards"].items():
            extremes = (
                f"{number_text(summary[key]['score'], '.4g')}  {Path(summary[key]['file']).name}"
                for key in ("lowest", "highest")
            )
            cells = [name, str(folder["images"]), interval(summary), *extremes]
            table.add_row(*([folder["folder"]] if several else []), *cells)
    show(table)
    for pair in result["pairs"]:
        print_line(pair["text"])
    if any(folder["images"] == 1 for folder in result["folders"]):
        print_line("The interval of a single image says nothing.")
