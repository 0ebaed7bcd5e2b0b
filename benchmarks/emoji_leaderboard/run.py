"""A leaderboard of the emoji world: the reference, the distilled generator, an alignment, and one made to cheat.

    python benchmarks/emoji_leaderboard/run.py --work runs/emoji-leaderboard

The cheat maximises `emoji-preference` alone with nothing to hold it (reward_scale 100,000, 500 steps); the monitors
have to flag it, and must not flag the alignment with the recommended settings. Everything is resumed where it was
stopped. Writes `results.jsonl` (the rows, for `dipp leaderboard`) and `results.md` beside this file, and the page into
the work folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dipp_toolkit import TrainConfig, train
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.experiments.bench.rows import write_rows
from dipp_toolkit.experiments.bench.run import run_bench
from dipp_toolkit.experiments.bench.settings import METRICS, BenchSettings
from dipp_toolkit.experiments.leaderboard.board import make_board
from dipp_toolkit.experiments.leaderboard.markdown import to_markdown
from dipp_toolkit.experiments.leaderboard.page import write_page
from dipp_toolkit.utils.atomic import write_text

HERE = Path(__file__).parent
EARLIER = {"generator": "emoji-onestep", "guidance": 1.5, "cooldown": 75, "diagnose_every": 25, "monitor_every": 50}
"""What was recommended when the results were recorded."""
RUNS = {
    "aligned": {**EARLIER, "reward_scale": 20.0, "steps": 250},
    "cheat": {
        **EARLIER,
        "rewards": {"emoji-preference": 1.0},
        "reward_scale": 1e5,
        "steps": 500,
        "monitor_rewards": ("emoji-clip",),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/emoji-leaderboard"), help="folder for runs and images")
    parser.add_argument("--seeds", type=int, default=3, help="noises of every prompt")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results.jsonl and results.md")
    arguments = parser.parse_args()

    for name, settings in RUNS.items():
        folder = arguments.work / name
        if not (folder / "summary.json").exists():
            train(TrainConfig(**settings, out=folder, resume=(folder / "config.yaml").exists()))  # type: ignore[arg-type]
    named = ",".join(["emoji-reference", "emoji-onestep", *(f"{name}={arguments.work / name}" for name in RUNS)])
    rows = run_bench(
        BenchSettings(
            entries=tuple(parse_entries(named, {})),
            prompts="emoji-heldout",
            rewards=("emoji-preference", "emoji-clip"),
            judges=("emoji-judge",),
            metrics=(*METRICS, "emoji-frechet"),
            seeds=tuple(range(1, arguments.seeds + 1)),
            out=arguments.work / "bench",
            pictures=6,
            command=f"python benchmarks/emoji_leaderboard/run.py --seeds {arguments.seeds}",
        )
    )
    board = make_board(rows)
    # The name of a machine's kernel says nothing that versions and processor do not.
    for row in rows:
        row.environment.pop("platform", None)
    write_rows(arguments.out / "results.jsonl", rows)
    write_text(arguments.out / "results.md", to_markdown(board))
    print(to_markdown(board))
    print(write_page(board, arguments.work / "leaderboard.html", "The emoji world"))


if __name__ == "__main__":
    main()
