"""Leaderboards: tests between rows, ranks, the page, Markdown, and the check of submissions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import wilcoxon
from typer.testing import CliRunner

from dipp_cli.build import build_app
from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.intervals import bootstrap_interval
from dipp_toolkit.events import Warned
from dipp_toolkit.experiments.bench.paired_tests import compare_all, compare_rows, compare_section, holm
from dipp_toolkit.experiments.bench.rows import BOOTSTRAP, SKEW_CORRECTED, Figure, Row, Subject, read_rows, write_rows
from dipp_toolkit.experiments.bench.statistics import mean_figure
from dipp_toolkit.experiments.leaderboard.board import agreements, by_source, fitting, make_board, reported_rows
from dipp_toolkit.experiments.leaderboard.check import check_files, row_problems
from dipp_toolkit.experiments.leaderboard.markdown import to_markdown
from dipp_toolkit.experiments.leaderboard.page import clear_best, letter, plots, render
from fake_rows import COUNT, PIXEL, fake_row, scores

ROWS = [fake_row("plain", 0.0, seed=1), fake_row("good", 1.0, seed=2), fake_row("like good", 1.0, seed=3, distance=20)]


def changed(row: Row, path: str, value: Any) -> Row:
    """The row with one field, named by dots, replaced; unvalidated where it would not pass."""
    content = row.model_dump(mode="json")
    *parents, last = path.split(".")
    inside = content
    for parent in parents:
        inside = inside[parent]
    inside[last] = value
    return Row.model_validate(content)


def test_the_paired_test_is_scipys_and_the_difference_is_paired() -> None:
    found = compare_rows(ROWS[0], ROWS[1], "liked")
    assert found is not None
    gap = scores(1.0, 2) - scores(0.0, 1)
    assert found.difference == pytest.approx(gap.mean().item(), abs=1e-4)
    assert found.p_value == pytest.approx(wilcoxon(gap.numpy(), zero_method="pratt").pvalue, rel=1e-3)
    assert (found.winner, found.win_rate, found.prompts) == ("good", 1.0, COUNT)
    # The prompts' own difficulty cancels: the interval is far narrower than that of either mean.
    whole = ROWS[0].figures["liked"]
    assert whole.low is not None and whole.high is not None
    assert found.high - found.low < 0.3 * (whole.high - whole.low)
    back = compare_rows(ROWS[1], ROWS[0], "liked")
    assert back is not None and back.winner == "good" and back.win_rate == 0
    assert "good is better" in found.sentence()


def test_lower_is_better_where_the_figure_says_so() -> None:
    rows = [changed(row, "figures.liked.better", "lower") for row in ROWS[:2]]
    found = compare_rows(rows[0], rows[1], "liked")
    assert found is not None and found.winner == "plain" and found.win_rate == 0


def test_equal_rows_are_no_different() -> None:
    found = compare_rows(ROWS[1], changed(ROWS[1], "subject.label", "copy"), "liked")
    assert found is not None
    assert (found.p_value, found.win_rate, found.winner) == (1.0, 0.5, "")


def test_rows_of_other_protocols_and_versions_are_not_compared() -> None:
    for path, value in (
        ("protocol.digest", "3" * 64),
        ("protocol.seeds", [1]),
        ("protocol.size", [32, 32]),
        ("protocol.versions", {"liked": "v2"}),
        ("figures.liked.per_prompt", None),
    ):
        assert compare_rows(ROWS[0], changed(ROWS[1], path, value), "liked") is None
    assert compare_rows(ROWS[0], ROWS[1], "distance") is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    found = compare_all(ROWS, ["liked"])
    assert len(found) == 3 and all(item.p_adjusted >= item.p_value for item in found)


def test_false_alarms_are_as_rare_as_said() -> None:
    """Rows that differ by chance alone are called different in about 5 % of the pairs."""
    base = fake_row("base", 0.0)
    called = 0
    for seed in range(120):
        noise = torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        one, two = (changed(base, "figures.liked.per_prompt", noise[:, k].tolist()) for k in range(2))
        found = compare_rows(one, changed(two, "subject.label", "other"), "liked")
        assert found is not None
        called += bool(found.winner)
    assert called <= 15


@pytest.mark.parametrize(("generators", "figures", "benches"), [(5, 1, 100), (3, 6, 60)])
def test_no_winner_is_called_among_equal_generators(generators: int, figures: int, benches: int) -> None:
    """A single pair's interval would call one in about 30 and 55 % of these; 5 % is what is promised."""
    random = torch.Generator().manual_seed(17)
    base, called = fake_row("base", 0.0), 0
    for _ in range(benches):
        values = torch.randn(generators, figures, 16, generator=random, dtype=torch.float64)
        rows = [
            base.model_copy(
                update={
                    "subject": Subject(label=f"g{number}"),
                    "figures": {
                        f"f{k}": Figure(mean=0.0, per_prompt=tuple(item.tolist())) for k, item in enumerate(own)
                    },
                }
            )
            for number, own in enumerate(values)
        ]
        called += bool(compare_section(rows).beaten)
    assert called <= 0.09 * benches


def test_a_winner_is_called_by_the_test_that_stands_beside_it() -> None:
    """What one comparison would call a difference is none among many, and every word follows the corrected p."""
    base = fake_row("base", 0.0)
    gap = torch.randn(COUNT, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gap = 0.3 * gap / gap.std() + 0.12 - 0.3 * gap.mean() / gap.std()
    near = changed(fake_row("near", 0.0), "figures.liked.per_prompt",
                   (torch.tensor(base.figures["liked"].per_prompt) + gap).tolist())  # fmt: skip
    alone = compare_rows(base, near, "liked")
    assert alone is not None and 0.005 < alone.p_value < 0.05 and alone.winner == "near"
    crowd = [fake_row(f"other {seed}", 0.0, seed=seed) for seed in range(5, 10)]
    among = next(
        pair for pair in compare_all([base, near, *crowd]) if (pair.a, pair.b, pair.figure) == ("base", "near", "liked")
    )
    assert among.p_value == alone.p_value and among.p_adjusted > 0.05
    assert among.winner == "" and "no measurable difference" in among.sentence()
    assert make_board([base, near, *crowd], "liked").sections[0].ranks["liked"]["base"] == 1


def test_a_certain_difference_that_is_tiny_has_no_winner() -> None:
    base = fake_row("base", 0.0)
    values = [value + 0.02 for value in base.figures["liked"].per_prompt or ()]
    pair = compare_rows(base, changed(fake_row("tiny", 0.0), "figures.liked.per_prompt", values), "liked")
    assert pair is not None and pair.p_adjusted < 1e-6 and pair.low > 0
    assert pair.winner == "" and "too small to matter" in pair.sentence()


def test_a_difference_without_a_better_side_is_told_as_one() -> None:
    rows = [changed(row, "figures.liked.better", "") for row in ROWS[:2]]
    pair = next(item for item in compare_all(rows) if item.figure == "liked")
    assert pair.winner == "" and "neither side is better" in pair.sentence()


def test_better_is_not_said_of_a_row_that_a_monitor_warns_of() -> None:
    cheat = fake_row("cheat", 3.0, seed=4, warned=["over-optimisation"])
    pair = compare_rows(ROWS[0], cheat, "liked")
    assert pair is not None and pair.winner == "cheat"
    assert "better" not in pair.sentence() and "carries a warning of over-optimisation" in pair.sentence()
    by_judge = compare_rows(ROWS[0], cheat, "judged")
    assert by_judge is not None and "plain is better" in by_judge.sentence()


def test_bold_of_a_category_is_only_what_is_clear_of_all_others() -> None:
    section = make_board(ROWS).sections[0]
    assert clear_best(section, "judged", "a") == ""
    far = make_board([*ROWS, fake_row("far", 9.0)]).sections[0]
    assert clear_best(far, "liked", "a") == "far"
    assert 'class="best"' not in render(make_board(ROWS[1:]), "t")


def test_rows_of_before_are_checked_by_their_own_interval() -> None:
    recorded = read_rows(Path(__file__).parents[2] / "benchmarks" / "emoji_leaderboard" / "results.jsonl")
    assert [row_problems(row) for row in recorded] == [[]] * len(recorded)
    values = torch.tensor(ROWS[0].figures["liked"].per_prompt, dtype=torch.float64)
    old = bootstrap_interval(values)
    figures = {"liked": mean_figure(values, [""] * COUNT, "reward", "higher").model_dump(mode="json")}
    figures["liked"] |= {"low": old.low, "high": old.high}
    row = changed(changed(ROWS[0], "figures", figures), "intervals", BOOTSTRAP)
    assert row_problems(row) == []
    assert any("computed again" in problem for problem in row_problems(changed(row, "intervals", SKEW_CORRECTED)))


def test_ranks_count_who_is_measurably_better() -> None:
    section = make_board(ROWS).sections[0]
    assert section.ranks["liked"] == {"plain": 3, "good": 1, "like good": 1}
    assert section.sort == "judged" and section.rows[0].label == "plain"
    # Of a number of the whole set: 10 +- 1, 10 +- 1 and 20 +- 1, less is better.
    assert section.ranks["distance"] == {"plain": 1, "good": 1, "like good": 3}
    by_liked = make_board(ROWS, "liked").sections[0]
    assert {row.label for row in by_liked.rows[:2]} == {"good", "like good"}
    assert [row.label for row in make_board(ROWS, "distance").sections[0].rows][-1] == "like good"
    with pytest.raises(RequestError, match="Did you mean 'liked'"):
        make_board(ROWS, "like")


def test_protocols_have_sections_of_their_own_and_doubles_are_taken_once() -> None:
    other = fake_row("elsewhere", 5.0, prompts="other")
    board = make_board([*ROWS, other, ROWS[0], *reported_rows()])
    assert [len(section.rows) for section in board.sections] == [3, 1]
    assert all("elsewhere" not in ranks for ranks in board.sections[0].ranks.values())
    assert len(board.reported) == len(reported_rows()) == 22
    with pytest.raises(RequestError, match="no measured rows"):
        make_board(reported_rows())


def test_what_papers_report() -> None:
    found = {row.label: {name: figure.mean for name, figure in row.figures.items()} for row in reported_rows()}
    assert {"aesthetic": 6.19, "imagereward": 1.24, "hps": 0.2848} in found.values()
    assert {"aesthetic": 6.30, "imagereward": 1.31, "hps": 0.2870} in found.values()
    assert all(row.kind == "reported" and "arXiv" in row.source for row in reported_rows())
    assert fitting(ROWS) == []
    with_hps, with_clip = (
        [ROWS[0].model_copy(update={"figures": {name: ROWS[0].figures["liked"]}})] for name in ("hps", "clip")
    )
    assert len(fitting(with_hps)) == 12 and len(fitting(with_clip)) == 10
    assert all(row_problems(row) == [] for row in reported_rows())


def test_reported_labels_say_no_more_than_their_abstracts() -> None:
    of_abstracts = [row for row in reported_rows() if "abstract" in row.source]
    first, second = (row.protocol for row in of_abstracts)
    assert first.prompts.startswith("COCO validation prompts") and "2017" not in str(of_abstracts)
    assert first.versions == {"hps": "v2.0"} and "v2 (2024)" in of_abstracts[0].source
    assert "not named" in second.prompts and "not said" in second.versions["hps"]
    assert "v1, PixArt-alpha" in of_abstracts[1].label and "v1 (2024)" in of_abstracts[1].source


def test_the_authors_tables_stand_alone_and_in_the_toolkits_units() -> None:
    tables = by_source(reported_rows())
    assert [len(table.rows) for table in tables] == [1, 1, 10, 10]
    assert all(len({row.source for row in table.rows}) == 1 for table in tables)
    parti, hps = tables[2:]
    assert "Table 1" in parti.source and "Parti" in parti.prompts and "2024" in parti.source
    assert list(parti.figures) == ["imagereward", "aesthetic", "pickscore", "clip"]
    assert next(iter(hps.figures.values())) == "hps (v2.1)" and len(hps.figures) == 5
    means = {row.label: {name: figure.mean for name, figure in row.figures.items()} for row in parti.rows}
    assert means["DI++-SDXL (one step)"] == {
        "imagereward": 1.061, "aesthetic": 5.58, "pickscore": 22.6, "clip": 0.3294
    }  # fmt: skip
    assert {row.label: row.figures["hps"].mean for row in hps.rows}["DI*-SDXL, longer training (one step)"] == 0.3119
    for row in hps.rows:  # the average is that of the four styles, up to the digits that are printed
        styles = [figure.mean for name, figure in row.figures.items() if name != "hps"]
        assert row.figures["hps"].mean == pytest.approx(sum(styles) / 4, abs=1.1e-4)
    (note,) = parti.notes
    assert "DMD2" in note and "0.938" in note and means["DMD2-SDXL (one step)"]["imagereward"] == 0.930


def test_the_page_escapes_and_loads_nothing() -> None:
    evil = fake_row("<script>alert(1)</script>", 0.5, seed=5, warned=["over-optimisation"])
    page = render(make_board([*ROWS, evil, *reported_rows()]), "Title & more")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "a &lt;fox&gt;" in page and "Title &amp; more" in page
    assert page.count(PIXEL) == 2 * 4
    assert not re.search(r"(src|href)=\"(?!data:image)", page) and "https://" not in page
    assert "over-optimisation" in page and "It is over-optimisation." in page
    assert page.count(">reported<") == 22
    reported = page[page.index('id="reported"') : page.index("</main>")].replace("<wbr>", "")
    assert reported.count("<table") == 4 and "hps (v2.1)" in reported and "0.938" in reported
    assert "data-ranks" not in reported and "SDXL base" not in page[: page.index('id="reported"')]
    assert 'dipp bench <span class="whole">--generators</span> good' in page


def test_a_picture_that_is_none_is_not_shown() -> None:
    content = ROWS[0].model_dump(mode="json")
    content["pictures"][0]["data"] = "data:image/svg+xml;base64,AAAA"
    content["pictures"][1]["data"] = 'data:image/png;base64,AA" onerror="alert(1)'
    page = render(make_board([Row.model_validate(content)]), "t")
    assert "svg+xml" not in page and "onerror" not in page


def test_the_front_offers_every_pair_of_axes() -> None:
    found = plots(make_board(ROWS).sections[0])
    assert [(item.x, item.y) for item in found] == [
        ("distance", "liked"), ("judged", "liked"), ("distance", "judged"), ("liked", "judged")
    ]  # fmt: skip


def test_agreement_with_the_judge_is_counted_by_prompt() -> None:
    section = make_board(ROWS[:2]).sections[0]
    (pair,) = agreements(section)
    share = pair.shares["liked", "judged"]
    assert {pair.a, pair.b} == {"plain", "good"} and share.decided == COUNT
    first, second = ({name: row.figures[name].per_prompt or () for name in ("liked", "judged")} for row in section.rows)
    same = [
        (x > y) == (u > v)
        for x, y, u, v in zip(first["liked"], second["liked"], first["judged"], second["judged"], strict=True)
    ]
    assert share.share.mean == pytest.approx(sum(same) / COUNT)
    # The judge of these rows falls where the reward rises.
    assert share.share.high < 0.2
    twins = make_board([ROWS[0], changed(ROWS[0], "subject.label", "twin")]).sections[0]
    assert agreements(twins) == []


def test_markdown_marks_warnings_and_reported_rows() -> None:
    warned = fake_row("bad | bold", 0.5, seed=5, warned=["diversity-collapse"])
    text = to_markdown(make_board([*ROWS, warned, *reported_rows()]))
    assert "bad \\| bold[^1]" in text and "[^1]: bad \\| bold, diversity-collapse: It is" in text
    assert "| 3 | plain |" in to_markdown(make_board(ROWS, "liked"))
    assert text.count("*reported*, not ranked") == 4 and "arXiv 2410.18881" in text
    assert "| *DI++-SDXL (one step)* | 1.061 | 5.58 | 22.6 | 0.3294 |" in text
    assert "Table 3 of the same source gives ImageReward 0.938" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| ") and "rank" not in line}
    assert len(widths) >= 1


FAULTS: list[tuple[str, Any, str]] = [
    ("figures.liked.mean", 9.0, "outside its interval"),
    ("figures.liked.per_prompt", [1.0, 2.0], "2 values for 40 prompts"),
    ("figures.liked.per_prompt", None, "no value for each prompt"),
    ("figures.liked.per_prompt", [0.5] * COUNT, "the mean of its prompts' values is 0.5"),
    ("figures.liked.high", 3.0, "computed again"),
    ("figures.liked.low", None, "one end of an interval"),
    ("figures.liked.by_category", {"a": (1.0, 2.0, 3.0)}, "category a"),
    ("protocol.digest", "abc", "no digest of the prompts"),
    ("subject.fingerprint", "", "no fingerprint"),
    ("subject.label", "x" * 61, "longer than 60"),
    ("subject.label", "a\nb", "not plain text"),
    ("command", " ", "no command"),
    ("schema_version", 2, "schema is 2"),
    ("kind", "reported", "names no source"),
    ("figures", {}, "no figure"),
    ("pictures", [{"prompt": "p", "seed": 1, "data": "http://x/y.png"}], "not a PNG, WebP or JPEG"),
    ("pictures", [{"prompt": "p", "seed": 1, "data": PIXEL[:-4] + "A" * 300_000}], "larger than 200 kB"),
]


@pytest.mark.parametrize(("path", "value", "said"), FAULTS)
def test_a_fault_in_a_submission_is_found(path: str, value: Any, said: str) -> None:
    assert row_problems(ROWS[0]) == []
    assert any(said in problem for problem in row_problems(changed(ROWS[0], path, value)))


def test_a_row_that_stands_twice_is_found(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS)
    write_rows(tmp_path / "b.jsonl", ROWS[:1])
    assert check_files([tmp_path / "a.jsonl"]) == (3, [])
    count, problems = check_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert count == 4 and len(problems) == 1 and "are in" in problems[0]
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"subject": 3}')
    _, problems = check_files([tmp_path / "empty.jsonl", tmp_path / "broken.jsonl", tmp_path / "absent.jsonl"])
    assert [("has no rows" in problem, "line 1" in problem, "Cannot read" in problem) for problem in problems] == [
        (True, False, False), (False, True, False), (False, False, True)
    ]  # fmt: skip


def test_the_command_builds_and_checks(tmp_path: Path) -> None:
    write_rows(tmp_path / "bench" / "results.jsonl", ROWS[:2])
    write_rows(tmp_path / "more.jsonl", ROWS[2:])
    app, runner = build_app(), CliRunner()
    files = [str(tmp_path / "bench"), str(tmp_path / "more.jsonl")]
    out, table, rows = (str(tmp_path / name) for name in ("p.html", "t.md", "s.jsonl"))
    done = runner.invoke(
        app, ["leaderboard", *files, "--out", out, "--markdown", table, "--submission", rows, "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sections"][0]["ranks"]["liked"]["plain"] == 3
    assert Path(out).read_text().startswith("<!DOCTYPE html>") and "| 1 |" in Path(table).read_text()
    assert len(read_rows(Path(rows))) == 3
    sound = runner.invoke(app, ["leaderboard", "--check", rows])
    assert sound.exit_code == 0 and "3 rows are sound" in sound.output
    write_rows(Path(rows), [changed(ROWS[0], "figures.liked.mean", 9.0)])
    unsound = runner.invoke(app, ["leaderboard", "--check", rows])
    assert unsound.exit_code == 1 and "outside its interval" in unsound.output


def with_fingerprint(row: Row, start: str) -> Row:
    return changed(row, "subject.fingerprint", start + row.subject.fingerprint[len(start) :])


def test_rows_of_one_label_and_other_weights_are_told_apart() -> None:
    same = [
        with_fingerprint(fake_row("run", 0.0, seed=1), "abcdef01"),
        with_fingerprint(fake_row("run", 1.0), "12345678"),
    ]
    (section,) = make_board([*same, fake_row("other", 0.5, seed=2)], "liked").sections
    assert [row.label for row in section.rows] == ["run (12345678)", "other", "run (abcdef01)"]
    assert section.ranks["liked"] == {"run (12345678)": 1, "other": 2, "run (abcdef01)": 3}


def test_a_row_at_another_image_size_is_no_double() -> None:
    large = changed(fake_row("run", 0.0), "protocol.size", [128, 128])
    board = make_board([fake_row("run", 0.0), large])
    assert [len(section.rows) for section in board.sections] == [1, 1]


def test_set_numbers_of_other_versions_are_not_ranked_against_each_other() -> None:
    far, near = fake_row("far", 0.0, distance=90.0), fake_row("near", 0.0, seed=1)
    assert make_board([far, near], "liked").sections[0].ranks["distance"] == {"far": 2, "near": 1}
    other = changed(near, "protocol.versions", {"liked": "v1", "distance": "another extractor"})
    assert make_board([far, other], "liked").sections[0].ranks["distance"] == {"far": 1, "near": 1}


def test_letters_in_the_front_are_those_of_the_list_where_a_figure_is_missing() -> None:
    rows = [fake_row("a", 3.0), fake_row("b", 2.0, seed=1), fake_row("c", 1.0, seed=2)]
    rows[0] = rows[0].model_copy(update={"figures": {k: v for k, v in rows[0].figures.items() if k != "distance"}})
    (section,) = make_board(rows, "liked").sections
    (plot,) = [item for item in plots(section) if (item.x, item.y) == ("distance", "liked")]
    found = re.findall(r"<text class=\"letter[^>]*>(\w+)</text>", str(plot.chart))
    assert found == ["B", "C"]
    page = render(make_board(rows, "liked"), "t")
    keys = re.findall(r"<li class=\"s\d\"><b>(\w+)</b> <span>(\w+)</span>", page)
    assert keys == [("A", "a"), ("B", "b"), ("C", "c")]


def test_points_have_letters_however_many() -> None:
    assert [letter(index) for index in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


def test_a_board_of_metrics_alone_is_whole() -> None:
    rows = [
        row.model_copy(update={"figures": {"distance": row.figures["distance"], "range": ROWS[0].figures["judged"]}})
        for row in ROWS
    ]
    rows = [changed(row, "figures.range.role", "metric") for row in rows]
    board = make_board(rows)
    (section,) = board.sections
    assert section.sort == "distance" and set(section.ranks) == {"distance", "range"}
    page = render(board, "Metrics")
    assert "distance ↓" in page and "Pair by pair" in page and "Each row again" in page
    assert "Reward against fidelity" not in page and "Do rewards prefer" not in page
    assert "The rank is by distance" in to_markdown(board)


def test_a_board_has_one_spelling_of_a_name_and_one_minus_sign() -> None:
    def of_a_file(row: Row) -> Row:
        figures = {"./mine/blue.py:f": row.figures["liked"], **row.figures}
        warned = (Warned(name="over-optimisation", text="./mine/blue.py:f rose (cosine -0.60)."),)
        subject = row.subject.model_copy(update={"trained_on": ("./mine/blue.py:f",)})
        protocol = row.protocol.model_copy(
            update={"prompts": "data/prompts.csv", "versions": {"./mine/blue.py:f": "v1"}}
        )
        return row.model_copy(
            update={"figures": figures, "warnings": warned, "subject": subject, "protocol": protocol, "command": ""}
        )

    board = make_board([of_a_file(row) for row in ROWS])
    page = render(board, "t")
    # Values of the choices are what the script compares; people read what is around and between them.
    read = re.sub(r'value="[^"]*"|data-(?:choice|figure|ranks)="[^"]*"|<style>.*?</style>', "", page, flags=re.DOTALL)
    read = read.partition("<script>")[0]
    assert "mine/" not in read and read.count("blue.py:f</option>") >= 3 and "blue.py:f rose (cosine −0.60)." in read
    assert "40 prompts of prompts.csv, 2 noises each" in read
    words = re.sub(r"<[^>]*>", " ", read)
    assert "−" in words and not re.search(r"(?<![\w.])-\.?\d", words)
    markdown = to_markdown(board)
    assert "mine/" not in markdown and "40 prompts of prompts.csv" in markdown


def test_more_generators_than_a_phone_shows_are_announced() -> None:
    three = [fake_row(name, float(seed), seed=seed) for seed, name in enumerate("abc")]
    assert "Swipe sideways" not in render(make_board(three), "t")
    page = render(make_board([*three, fake_row("d", 4.0, seed=4)]), "t")
    assert "Swipe sideways for all 4 generators." in page and 'class="scroll strip"' in page


def test_without_scripts_every_table_is_there() -> None:
    page = render(make_board([fake_row("a", 3.0), fake_row("b", 2.0, seed=1)]), "Board")
    hidden = re.findall(r"<[^>]*data-choice=[^>]*\shidden[^>]*>", page)
    assert page.count("data-choice=") > 3 and not hidden


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_a_sentence(tmp_path: Path, value: str) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [fake_row("a", 3.0, distance=12345.0)])
    path.write_text(path.read_text().replace("12345.0", value))
    with pytest.raises(RequestError, match=r"line 1, is not valid JSON: it has .*, which is not a finite number"):
        read_rows(path)


def test_markdown_takes_a_name_as_it_is() -> None:
    label = "[x](http://y) `c` *b* _u_ a|b <i> &amp; ![z]"
    text = to_markdown(make_board([changed(fake_row("a", 1.0), "subject.label", label)]))
    escaped = r"\[x\](http:&#47;&#47;y) \`c\` \*b\* \_u\_ a\|b &lt;i&gt; &amp;amp; !\[z\]"
    assert escaped in text
    name = "x <img src=https://evil.example/t.png> [c](https://evil.example)\n\n# Official\n[^9]: www.evil.example @all"
    row = fake_row("a", 1.0)
    row = row.model_copy(
        update={
            "warnings": (Warned(name=name, text=name),),
            "figures": {name: row.figures["liked"]},
            "protocol": row.protocol.model_copy(update={"prompts": name}),
        }
    )
    text = to_markdown(make_board([row]))
    assert not re.search(r"^#|<img|(?<!\\)\]|://|www\.|@|^\[\^9", text.replace("[^1]", ""), re.MULTILINE)
    assert text.count("evil.example") >= 4 * 3
