"""The numbers of the emoji worlds: which aims they meet, the page that says so, and images that are made once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks._shared import teacher
from benchmarks._shared.kept_images import kept_images
from benchmarks.emoji_quality import run
from benchmarks.emoji_quality.aims import aims_of
from benchmarks.emoji_quality.columns import Column
from benchmarks.emoji_quality.page import page, read_sections, results_file, table
from dipp_emoji.captions import caption, pairs
from dipp_emoji.compose import compose
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import load_prompts
from dipp_toolkit.evaluation.diversity import seed_diversity
from dipp_toolkit.evaluation.frechet import ReferenceFrechet
from dipp_toolkit.protocols import texts
from dipp_toolkit.utils.images import Images

RECORDED = Path(__file__).parents[2] / "benchmarks" / "emoji_quality"


def around(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def column(
    preference: float, frechet: float, diversity: float, against: dict[str, Any] | None = None
) -> dict[str, Any]:
    row = {"naming": 0.98, "preference": around(preference, 0.1), "frechet": frechet, "diversity": diversity}
    return row if against is None else row | {"against_reference": against}


def section(*aligned: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
    columns = {
        "real compositions": column(2.7, 1.0, 0.15),
        "reference, 50 steps, guidance 1.5": column(1.0, 10.0, 0.1),
        "distilled, one step": start,
        **{f"aligned, one step, seed {seed}": row for seed, row in enumerate(aligned)},
    }
    searched = {"preference_by_guidance": {"1.0": 0.9, "1.5": 1.0}, "guidance": 1.5}
    about = {"machine": "a CPU", "prompts": 352, "images": 704, "reference_guidance": searched}
    return {"columns": columns, **about}


def verdicts(numbers: dict[str, Any]) -> list[str]:
    return [aim.verdict for aim in aims_of(numbers)]


def test_aims_that_every_seed_meets_are_met() -> None:
    good = section(column(1.3, 9.0, 0.09), column(1.21, 10.0, 0.0851), start=column(0.3, 13.0, 0.0901))
    assert verdicts(good) == ["met"] * 5
    assert "Of 5 aims 5 are met." in page({"emoji": good})


@pytest.mark.parametrize(
    ("worse", "aim"),
    [
        (column(1.19, 9.0, 0.09), 0),  # its interval touches the reference's
        (column(1.3, 10.1, 0.09), 1),
        (column(1.3, 9.0, 0.0849), 2),
    ],
)
def test_one_seed_that_falls_short_is_enough(worse: dict[str, Any], aim: int) -> None:
    numbers = section(column(1.3, 9.0, 0.09), worse, start=column(0.3, 13.0, 0.0901))
    assert [k for k, verdict in enumerate(verdicts(numbers)) if verdict == "not met"] == [aim]


def test_the_start_has_aims_of_its_own() -> None:
    fine = column(1.3, 9.0, 0.09)
    assert verdicts(section(fine, start=column(0.3, 13.1, 0.0899)))[3:] == ["not met", "not met"]
    # Nothing was aligned, so nothing about alignments is met.
    nothing = section(start=column(0.3, 13.0, 0.0901))
    assert verdicts(nothing) == ["not met"] * 3 + ["met"] * 2
    assert page({"emoji": nothing}).count("nothing was aligned") == 3


def test_a_ratio_whose_interval_reaches_beyond_is_said_to() -> None:
    against = {
        "preference": {**around(0.3, 0.05), "effect": 0.4},
        "frechet_ratio": around(0.98, 0.05),
        "diversity_ratio": around(0.9, 0.01),
    }
    numbers = section(column(1.3, 9.8, 0.09, against), start=column(0.3, 13.0, 0.0901))
    assert verdicts(numbers)[:3] == ["met", "met, within the interval", "met"]
    text = page({"emoji": numbers})
    assert "0.98 (0.93 to 1.03)" in text and "prompt by prompt +0.30 (+0.25 to +0.35)" in text
    assert "*Met, within the interval*: in each seed the aligned generator's Frechet distance" in text


def test_recorded_tables_are_those_of_the_recorded_numbers(tmp_path: Path) -> None:
    sections = read_sections(RECORDED)
    written = (RECORDED / "results.md").read_text(encoding="utf-8")
    assert "emoji" in sections
    for name, numbers in sections.items():
        assert table(numbers).strip() in written, name
    text = page(sections | {"emoji-unet": sections["emoji"]})
    assert text.index("`emoji-reference`, `emoji-onestep`") < text.index("`emoji-unet-reference`, `emoji-unet-onestep`")
    assert text.count("Of 5 aims") == len(sections | {"emoji-unet": None})


def test_each_world_has_a_file_and_a_page_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measured(world: run.World, seeds: int, steps: int) -> dict[str, Any]:
        asked.append(f"{world.reference} {world.generator} {world.work.name}")
        return section(column(1.3, 9.0, 0.09), start=column(0.3, 13.0, 0.0901))

    monkeypatch.setattr(run, "measure_world", measured)
    words = ["run.py", "--out", str(tmp_path), "--work", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*words, "--world", "emoji-unet"])
    run.main()
    assert asked == ["emoji-unet-reference emoji-unet-onestep emoji-unet"]
    assert list(read_sections(tmp_path)) == ["emoji-unet"] and not results_file(tmp_path, "emoji").exists()
    monkeypatch.setattr("sys.argv", words)
    run.main()
    assert asked[1:] == ["emoji-reference emoji-onestep emoji"] and list(read_sections(tmp_path)) == [
        "emoji",
        "emoji-unet",
    ]
    both = (tmp_path / "results.md").read_text(encoding="utf-8")
    (tmp_path / "results.md").unlink()
    monkeypatch.setattr("sys.argv", [*words, "--only-table"])
    run.main()
    assert len(asked) == 2 and (tmp_path / "results.md").read_text(encoding="utf-8") == both


def test_kept_images_are_made_once_and_again_where_anything_else_decides(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Images:
        made.append(1)
        return torch.linspace(0, 1, 2 * 2 * 3 * 4 * 4).reshape(2, 2, 3, 4, 4)

    first, again = (kept_images(tmp_path / "images", "reference", {"steps": 5}, make) for _ in range(2))
    assert len(made) == 1 and torch.equal(first.images, again.images) and first.seconds == again.seconds > 0
    assert torch.equal(first.images, make().mul(255).round().div(255)) and first.milliseconds == 250 * first.seconds
    kept_images(tmp_path / "images", "reference", {"steps": 6}, make)
    assert len(made) == 3


def test_guidance_is_searched_on_prompts_that_nothing_is_reported_on() -> None:
    searched = set(texts(load_prompts(teacher.SEARCHED_ON)))
    assert len(searched) == 88 and not searched & set(texts(load_prompts("emoji-heldout")))


def test_a_column_is_what_its_images_are() -> None:
    table_of = torch.tensor(pairs(held_out=True)[:24])
    prompts = [caption(i, j) for i, j in table_of.tolist()]

    def images(seed: int) -> Images:
        random = torch.Generator().manual_seed(seed)
        return torch.stack([compose(table_of[:, 0], table_of[:, 1], random) for _ in range(2)], dim=1)

    judge = EmojiJudge()
    good, noisy = images(0), (images(1) + 0.15 * torch.randn(24, 2, 3, 64, 64)).clamp(0, 1)
    real = ReferenceFrechet(Column.of(judge, images(2), prompts).features.flatten(0, 1))
    fine, worse = (Column.of(judge, one, prompts) for one in (good, noisy))
    numbers, against = fine.numbers(real), worse.against(fine, real)
    assert numbers["diversity"] == pytest.approx(seed_diversity(good.mul(255).round().div(255)))
    assert numbers["naming"] > 0.9 and numbers["frechet_interval"]["low"] < numbers["frechet"]
    assert against["preference"]["high"] < 0 and against["frechet_ratio"]["low"] > 1
    assert against["preference"]["mean"] == pytest.approx((worse.scores - fine.scores).mean().item())
    same = copy.deepcopy(fine).against(fine, real)
    assert same["frechet_ratio"] == same["diversity_ratio"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
