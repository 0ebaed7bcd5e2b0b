"""Puts the plan of PixArt-alpha on one GPU into `docs/guide/align-on-one-gpu.md`: python tools/build_plans.py"""

from __future__ import annotations

from pathlib import Path

from dipp_cli.actions.plan import plan_run

TARGET = Path(__file__).parents[1] / "docs" / "guide" / "align-on-one-gpu.md"
MARK = "<!-- plan -->\n", "<!-- /plan -->"
FLAGS = {"generator": "pixart-onestep", "rewards": "hps,imagereward", "batch_size": 4}
MEMORY = "24GB"


def table() -> str:
    """What `dipp plan` prints there, as Markdown."""
    made = plan_run(FLAGS, [], MEMORY)
    plan, gib = made["recommended"], 2**30
    added = " ".join(f"--set {name}={str(value).lower()}" for name, value in made["changes"].items())
    worst = max(plan["transient"], key=plan["transient"].__getitem__)
    parts = [
        *(f"| {name} | {count / gib:.2f} | resident |" for name, count in plan["resident"].items()),
        *(
            f"| {name} | {count / gib:.2f} | {'the peak' if name == worst else 'temporary'} |"
            for name, count in plan["transient"].items()
        ),
        f"| **peak** | **{plan['peak'] / gib:.2f}** | all that is resident, and the largest temporary part |",
    ]
    seconds = [
        f"| {name} | does not fit | |" if value is None else f"| {name} | {value:.2f} | {plan['warm_up'][name]:.0f} |"
        for name, value in plan["seconds"].items()
    ]
    return "\n".join(
        [
            f"As requested it peaks at {made['peak'] / gib:.2f} GiB; what makes it fit: `{added}`. Then:",
            "",
            "| part | GiB | |",
            "|---|---:|---|",
            *parts,
            "",
            "| GPU | seconds a step, estimated | seconds of the assistant's warm-up |",
            "|---|---:|---:|",
            *seconds,
            "",
        ]
    )


def render() -> str:
    """The page with its table as it is now."""
    before, _, rest = TARGET.read_text(encoding="utf-8").partition(MARK[0])
    return before + MARK[0] + table() + MARK[1] + rest.partition(MARK[1])[2]


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
