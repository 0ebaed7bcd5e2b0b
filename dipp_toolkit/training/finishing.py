"""What happens around the steps: images before, export and images after, the summary and the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from ..config import TrainConfig
from ..errors import CheckpointError
from ..evaluation.comparison import ColumnScores, Comparison, numbers_of, score_columns
from ..events import Warned
from ..models import compilation
from ..models.files.saved_generators import Final, note_generator
from ..models.generator_options import generator_options
from ..models.sampling import generate_images, sample_reference
from ..monitoring.diagnostic import warnings_of
from ..monitoring.diagnostics.pull import UNEVEN
from ..monitoring.first_pull import first_warning, pull_in_words
from ..monitoring.monitors import find_warnings, trained_on
from ..monitoring.snapshot import take_snapshot
from ..objective.base import WarningTerm
from ..protocols import Generator
from ..report.run_files import read_metrics as read_rows
from ..report.shown_prompts import choose_prompts, find_ranking
from ..utils.atomic import whole_folder, write_text
from ..utils.device import environment
from ..utils.precision import PrecisionChoice
from .assistant import LearnedAssistant
from .early_stop import Stop
from .guard import skip_warning
from .loop import divergence_of
from .publish import write_model_card
from .run_state.checkpoint_writer import nothing
from .run_state.run_folder import RunFolder
from .setup.assembly import Assembled
from .setup.given_parts import described, given_in


def one_step_images(parts: Assembled, generator: Generator, config: TrainConfig) -> torch.Tensor:
    """Images of the comparison's prompts, one for each seed, `(prompts, seeds, 3, height, width)`."""
    sets = [
        generate_images(generator, parts.reference, parts.eval_conditions, config.seed + 1 + k, config.batch_size)
        for k in range(config.eval_seeds)
    ]
    return torch.stack(sets, dim=1)


def reference_images(parts: Assembled, config: TrainConfig) -> torch.Tensor:
    """The reference's images of the comparison's prompts from the same noise, `(prompts, seeds, 3, height, width)`."""
    sets = [
        sample_reference(
            parts.reference,
            parts.eval_conditions,
            config.seed + 1 + k,
            config.reference_steps,
            config.comparison_guidance,
            config.batch_size,
        )
        for k in range(config.eval_seeds)
    ]
    return torch.stack(sets, dim=1)


def start_comparison(parts: Assembled, config: TrainConfig, folder: RunFolder) -> None:
    """Make and keep the generator's images before the first step."""
    before = one_step_images(parts, parts.generator, config)
    seeds = [config.seed + 1 + k for k in range(config.eval_seeds)]
    Comparison(list(parts.eval_conditions.prompts), seeds, {"before": before}).save(folder.comparison)


def start_comparison_again(parts: Assembled, config: TrainConfig, folder: RunFolder) -> list[str]:
    """Where a resumed run's images from before its first step were lost, make them again: its end needs them.

    Called while the generator is still what the training began with, so that they are the same images.

    Returns:
        A sentence where they were made again.

    Raises:
        OSError: they cannot be written.
    """
    try:
        earlier = Comparison.load(folder.comparison)
        if "before" in earlier.images and list(earlier.prompts) == list(parts.eval_conditions.prompts):
            return []
        reason = f"The comparison in {folder.comparison} is of other prompts, or has no images from before."
    except CheckpointError as error:
        reason = str(error)
    start_comparison(parts, config, folder)
    return [f"{reason} The images from before the first step were made again, by the generator the run began with."]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl`, those of steps whose generator update was skipped left out."""
    return [
        row for row in read_rows(path) if "skipped" not in row or any(name.startswith("grad_norm/") for name in row)
    ]


def _mean_of(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def save_generator(parts: Assembled, target: Path) -> None:
    """Export the generator; of several processes the first writes, and gathers the weights where they are sharded.

    Whatever the generator writes, and in whichever order, appears whole or not at all.
    """
    generator = parts.generator
    assistant = parts.assistant.denoiser.network if isinstance(parts.assistant, LearnedAssistant) else None
    if parts.sharding is None:
        if parts.engine.processes.main:
            with whole_folder(target) as beside:
                generator.save_pretrained(beside, assistant)
        return
    network = parts.sharding.whole(generator.network)
    whole = None if assistant is None else parts.sharding.whole(assistant)
    if network is not None:
        with whole_folder(target) as beside:
            cast(Any, generator).with_network(network).save_pretrained(beside, whole)


def finish(
    parts: Assembled,
    config: TrainConfig,
    folder: RunFolder,
    seconds: float,
    problems: Sequence[str] = (),
    ended: Stop | None = None,
    precision: PrecisionChoice | None = None,
    check: Callable[[], None] = nothing,
) -> dict[str, Any]:
    """Export the averaged generator, measure before and after, and write summary and report.

    Args:
        parts: the run's parts, trained.
        config: its settings.
        folder: where everything goes.
        seconds: what its steps took.
        problems: sentences that become warnings.
        ended: why it ended before its last step, where it did.
        precision: of its passes, and why it is that one.
        check: called between the parts of the work; may raise what ends it.

    Returns:
        What `summary.json` holds.
    """
    from ..report import write_report

    final, comparison = _export_and_compare(parts, config, folder, check)
    rows = read_metrics(folder.metrics)
    window = max(1, len(rows) // 20)
    judge = parts.judge[0] if parts.judge else None
    watched = {**parts.rewards, **parts.watchers, **({parts.judge[0]: parts.judge[1]} if parts.judge else {})}
    scores = score_columns(comparison, watched, device=parts.device)
    measured = {"before": rows[:window], "after": rows[-window:]} if rows and "divergence" in rows[-1] else {}
    summary: dict[str, Any] = numbers_of(comparison, scores, judge) | {
        "divergence": {column: _mean_of(part, "divergence") for column, part in measured.items()},
        "seconds": seconds,
        "steps": config.steps if ended is None else ended.step,
        "seed": config.seed,
        "generator": config.generator,
        "reference": config.reference,
        "reference_steps": config.reference_steps,
        "environment": environment(parts.device),
    }
    weights = {**dict.fromkeys(config.floors, 1.0), **config.rewards}
    summary["picture"] = choose_prompts(comparison.prompts, find_ranking(scores, judge, weights)).as_dict()
    summary["pull"] = pull_in_words(rows, config)
    monitored = [*final_warnings(comparison, scores, config), *warnings_of(folder.diagnostics, config)]
    summary["warnings"], summary["warned"] = _summary_warnings(parts, config, folder, rows, monitored, problems)
    summary["final"] = final.text
    given = described(given_in(config))
    if given:
        summary["given"] = given
    summary["warnings"] += [final.problem] if final.problem else []
    if precision is not None:
        summary["environment"]["precision"] = f"{precision.name}: {precision.reason}"
    if config.compile in ("on", "graphs"):
        summary["compiled"] = compilation.report().summary()
    start = unready_note(config, parts) or assistant_start(config, parts)
    if start:
        summary["environment"]["assistant"] = start
    if ended is not None:
        summary["stopped_early"] = ended.as_dict()
    if (folder.final / "model_index.json").is_file():
        write_model_card(folder.final, config.model_copy(update={"steps": summary["steps"]}), summary)
    write_text(folder.summary, json.dumps(summary, indent=2) + "\n")
    write_report(folder.path)
    return summary


def _export_and_compare(
    parts: Assembled, config: TrainConfig, folder: RunFolder, check: Callable[[], None]
) -> tuple[Final, Comparison]:
    """Save the averaged generator, and the images of it and of the reference beside those from before.

    Returns:
        What the folder of the generator is, and the images as saved, in 8 bits: anyone can measure them again.
    """
    with parts.average.applied():
        save_generator(parts, folder.final)
        final = note_generator(folder.final, config.generator, config.reference, generator_options(config))
        check()
        after = one_step_images(parts, parts.generator, config)
    check()
    earlier = Comparison.load(folder.comparison)
    images = {"reference": reference_images(parts, config), "before": earlier.images["before"], "after": after}
    Comparison(earlier.prompts, earlier.seeds, images).save(folder.comparison)
    check()
    return final, Comparison.load(folder.comparison)


def _summary_warnings(
    parts: Assembled,
    config: TrainConfig,
    folder: RunFolder,
    rows: Sequence[dict[str, float]],
    monitored: Sequence[Warned],
    problems: Sequence[str],
) -> tuple[list[str], list[str]]:
    """All sentences of warning for a summary, and the names of those that have one.

    Args:
        parts: the run's parts, whose terms may warn.
        config: its settings.
        folder: its folder, with the record of skipped updates.
        rows: its metrics.
        monitored: warnings of monitors and diagnostics.
        problems: sentences from before the end, which come first.
    """
    terms = [weighted.term for weighted in parts.engine.terms]
    from_terms = [text for term in terms if isinstance(term, WarningTerm) for text in term.warnings()]
    uneven = first_warning(rows, config)
    sentences = [*problems, *skip_warning(folder.skips), *filter(None, [uneven]), *from_terms]
    names = [*([UNEVEN] if uneven else []), *(warning.name for warning in monitored)]
    return [*sentences, *(warning.text for warning in monitored)], list(dict.fromkeys(names))


def final_warnings(comparison: Comparison, scores: ColumnScores, config: TrainConfig) -> list[Warned]:
    """What the monitors say of the column `after`, against `before` and `reference`."""
    shots = {
        column: take_snapshot(images, {name: columns[column] for name, columns in scores.items()})
        for column, images in comparison.images.items()
    }
    return find_warnings(shots["after"], shots["before"], trained_on(config), shots["reference"])


WAY_OUT = "--set assistant_warmup=500, for example, trains it before the first step"


def assistant_start(config: TrainConfig, parts: Assembled) -> str:
    """What the assistant knows of the generator before its first update; empty where no term uses it."""
    if divergence_of(parts.engine.terms) is None:
        return ""
    if config.assistant_model is not None:
        return config.assistant_model
    if parts.assistant_is_trained:
        return "saved with the generator"
    if config.assistant_warmup:
        return f"starts as the reference; {config.assistant_warmup} updates before the first step"
    return "starts as the reference"


def unready_note(config: TrainConfig, parts: Assembled) -> str:
    """A sentence where the assistant is the reference at the first step, with the way out; empty elsewhere."""
    if divergence_of(parts.engine.terms) is None or parts.assistant_is_trained or config.assistant_warmup:
        return ""
    if config.assistant_model is not None:
        return ""
    if not config.assistant_rounds:
        return (
            "The assistant is the reference and learns nothing (assistant_rounds=0), so nothing holds the generator "
            f"near the reference: --set assistant_rounds=1, and {WAY_OUT}."
        )
    return (
        "The assistant starts as the reference, so the divergence sees no difference at first, and then a wrong one "
        f"until the assistant knows what the generator makes: {WAY_OUT}."
    )
