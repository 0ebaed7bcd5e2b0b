"""`dipp bench`: generators against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", rich_help_panel="Compare")(bench)


def bench(
    *,
    generators: Annotated[
        str,
        typer.Option(
            metavar="[LABEL=]NAME,...", help="Generators and references: names, pipeline or run folders, hub ids."
        ),
    ],
    prompts: Annotated[str, typer.Option(metavar="SET|FILE", help="Prompt set, or a file of prompts.")],
    rewards: Annotated[
        str, typer.Option("--rewards", "--reward", metavar="NAME,...", help="Rewards: hps,imagereward or ./mine.py:f.")
    ] = "",
    judge: Annotated[
        str, typer.Option(metavar="NAME,...", help="Rewards that only judge: no generator was trained on them.")
    ] = "",
    metrics: Annotated[
        str, typer.Option(metavar="NAME,...", help="Metrics beside diversity, colours and parameters: fid,latency.")
    ] = "",
    seeds: Annotated[int, typer.Option(metavar="N", help="Noises of every prompt; diversity needs two.")] = 2,
    count: Annotated[int | None, typer.Option(metavar="N", help="Use a seeded subset of N prompts.")] = None,
    category: Annotated[str | None, typer.Option(metavar="NAME,...", help="Use prompts of these categories.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed of the subset.")] = 0,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Images, scores and results; finished work is not repeated.")
    ] = Path("bench"),
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Image store to share with other benches; OUT/images by default."),
    ] = None,
    pictures: Annotated[int, typer.Option(metavar="N", help="Prompts whose pictures go into the results.")] = 8,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", help="Images at a time.")] = 32,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Options: reward.hps.version=v2.1, metric.fid.images=FOLDER, generator.LABEL.steps=25. Repeatable.",
        ),
    ] = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Compare generators and references on the same prompts and seeds.

    Images are made once and kept; a bench that was stopped resumes where it was. Make the page with `dipp leaderboard`.

    For instance: dipp bench --generators emoji-reference,emoji-onestep --prompts emoji-heldout --judge emoji-judge
    """
    from dipp_toolkit.training.setup.name_checks import check_parts, check_pipeline, check_prompts, check_rewards
    from dipp_toolkit.utils.assignments import parse_names

    for name in parse_names(generators):
        check_pipeline(name.rpartition("=")[2].strip(), "generator", "reference")
    check_prompts(prompts)
    check_rewards((*parse_names(rewards), *parse_names(judge)))
    check_parts("metric", parse_names(metrics))
    from ..actions.bench import (  # imports torch, which a misspelt name does not wait for
        BenchRequest,
        describe,
        measure,
    )
    from ..terminal.output import print_json, quiet_stdout

    request = BenchRequest(
        generators=generators,
        prompts=prompts,
        rewards=rewards,
        judge=judge,
        metrics=metrics,
        seeds=seeds,
        count=count,
        category=category,
        seed=seed,
        out=out,
        images=images,
        pictures=pictures,
        batch_size=batch_size,
        assignments=assignments or [],
        device=device or "auto",
        quiet=quiet,
    )
    if dry_run:
        from dipp_toolkit.experiments.bench.preflight import preflight_bench

        from ..terminal.tables import print_preflight

        print_preflight(preflight_bench(request.settings()), as_json)
        return
    with quiet_stdout():
        result = measure(request)
    if result is None:
        return
    if as_json:
        print_json(result.as_dict())
    else:
        describe(result)
