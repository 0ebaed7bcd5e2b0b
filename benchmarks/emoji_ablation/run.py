"""What reward_scale and guidance do on the emoji world: 3 x 3 values, 2 seeds, 18 trainings of 80 steps.

    python benchmarks/emoji_ablation/run.py --work runs/emoji-ablation
    torchrun --nproc_per_node 2 benchmarks/emoji_ablation/run.py --work runs/emoji-ablation

The same as the command that `results.md` names. Finished cells are not trained again. Writes `results.md` beside this
file, and the page with heat maps, fronts and pictures into the work folder.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch

from dipp_toolkit.config import make_config
from dipp_toolkit.experiments.ablation.best_cell import parse_constraint
from dipp_toolkit.experiments.ablation.grid import Cell, grid, parse_vary
from dipp_toolkit.experiments.ablation.run import AblationResult, ablate
from dipp_toolkit.experiments.ablation.settings import AblationSettings
from dipp_toolkit.experiments.ablation.trends import claims
from dipp_toolkit.utils.atomic import write_text

HERE = Path(__file__).parent
VARY = ["reward_scale=0,20,1000", "guidance=1,1.5,3", "seed=0,1"]
BASE = {
    "generator": "emoji-onestep",
    "steps": 80,
    "cooldown": 20,
    "eval_count": 8,
    "sample_every": 1000,
    "device": "cpu",
}
COMMAND = (
    "dipp ablate --vary reward_scale=0,20,1000 --vary guidance=1,1.5,3 --seeds 2 --steps 80 --device cpu "
    "--set cooldown=20 --set eval_count=8 --set sample_every=1000 --metrics emoji-frechet --best emoji-judge "
    "--subject-to 'emoji-frechet<=14'"
)


class Lines:
    """Says what is at work."""

    def cell(self, cell: Cell, number: int, total: int, state: str) -> None:
        print(f"[{number}/{total}] {cell.label}: {state}", flush=True)

    def begin(self, what: str, total: int) -> None:
        print(f"{what}: {total}", flush=True)

    def advance(self, count: int) -> None: ...


def table(result: AblationResult) -> str:
    """The results as Markdown."""
    study = result.study
    figures = [name for name in study.figures("reward", "judge", "metric") if name not in ("contrast", "saturation")]
    lines = [
        f"| {' | '.join([*study.settings, *figures, 'warnings'])} |",
        "|---" * (len(study.settings) + len(figures)) + "|---|",
    ]
    for combination in study.combinations:
        cells = [f"{combination.figures[name].mean:.3g}" for name in figures]
        lines.append(
            f"| {' | '.join([*combination.values.values(), *cells, ', '.join(combination.warnings) or '-'])} |"
        )
    lines += ["", f"Means over two seeds, {study.rows[0].protocol.count} held-out prompts with two noises each.", ""]
    for claim in claims(study):
        verdict = claim.verdict[0].upper() + claim.verdict[1:]
        lines.append(f"- {claim.expectation} **{verdict}.** {claim.numbers} ({claim.source})")
    lines += ["", result.choice.sentence(), "", f"`{COMMAND}`, on {platform.machine()} CPU, torch {torch.__version__}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/emoji-ablation"), help="folder for the cells")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results.md")
    arguments = parser.parse_args()
    settings = AblationSettings(
        cells=grid(parse_vary(VARY)),
        base=make_config(BASE),
        out=arguments.work,
        metrics=("emoji-frechet",),
        best="emoji-judge",
        constraints=(parse_constraint("emoji-frechet<=14"),),
        command=COMMAND,
    )
    result = ablate(settings, Lines())
    if result is not None:
        write_text(arguments.out / "results.md", table(result))
        print(table(result))
        print(result.page)


if __name__ == "__main__":
    main()
