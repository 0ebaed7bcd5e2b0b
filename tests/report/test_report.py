"""The report, from a synthetic run folder that the tests write themselves."""

from __future__ import annotations

import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.errors import CheckpointError
from dipp_toolkit.evaluation.comparison import Comparison
from dipp_toolkit.report import write_report
from dipp_toolkit.report.before_after import choose_layout, tile_size
from dipp_toolkit.report.charts.lines import Axis, Series, line_chart, nice_ticks, smooth, tick_texts
from dipp_toolkit.report.curves import curves_of
from dipp_toolkit.report.rerun_command import again_from_flags
from dipp_toolkit.report.run_files import read_metrics, read_run
from dipp_toolkit.report.thumbnails import evenly
from dipp_toolkit.report.verdict import verdict
from dipp_toolkit.training.run_result import RunResult
from dipp_toolkit.utils.assignments import parse_assignments, parse_rewards
from fake_run import interval, write_run

VOID = {"meta", "img", "br", "line", "circle", "polyline", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what the tests look at, and checks that tags close in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(
        write_run(tmp_path_factory.mktemp("run") / "emoji-1", summary={"warnings": ["Something <odd> happened."]})
    )


def test_page_loads_nothing(page: Page) -> None:
    assert not page.named("script") and not page.named("link") and not page.named("iframe")
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            if attributes.get(name):
                assert str(attributes[name]).startswith("data:image/"), attributes
    text = write_text_of(page)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text


def write_text_of(page: Page) -> str:
    return page.rawdata + " ".join(page.words) + " ".join(str(attributes) for _, attributes in page.tags)


def test_page_is_accessible(page: Page) -> None:
    images = page.named("img")
    assert images and all(image["alt"] and image["width"] and image["height"] for image in images)
    assert all(item.get("role") == "img" and item.get("aria-label") for item in page.named("svg"))
    assert all(item.get("scope") in ("col", "row") for item in page.named("th"))
    assert page.named("html")[0]["lang"] == "en"
    assert len(page.named("h1")) == 1
    assert any(item.get("name") == "viewport" for item in page.named("meta"))
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_page_has_every_part_in_order(page: Page) -> None:
    parts = [
        "Aligning emoji-onestep to emoji-preference and emoji-clip", "rose from", "Something <odd> happened.",
        "The same prompts, the same noise", "prompt <0> & more", "The numbers", "The training", "Settings",
        "Run it again", "dipp train --config", "Versions", "2.8.0", "What the numbers mean",
    ]  # fmt: skip
    positions = [page.text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", page.text)


def test_numbers_and_intervals_are_in_the_table(page: Page) -> None:
    for text in ("−1.20", "[−1.30, −1.10]", "0.45", "+1.650", "[+1.600, +1.700]", "0.97 ×", "reward, weight 0.5"):
        assert text in page.text.replace("\N{NO-BREAK SPACE}", " "), text


def test_every_logged_curve_is_drawn(page: Page) -> None:
    for title in (
        "Reward: emoji-preference", "Reward: emoji-clip", "Divergence", "Divergence in nats",
        "Gradient size of each term", "Agreement between terms", "Assistant's loss",
    ):  # fmt: skip
        assert title in page.text
    assert "integral_kl and emoji-clip" in page.text and "emoji-preference and emoji-clip" in page.text
    assert page.text.count("Healthy:") == 7


def test_picture_is_wide_and_keeps_pixels(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_report(folder)
    with Image.open(folder / "before_after.png") as picture:
        assert 1.5 < picture.width / picture.height < 2.2
        colours = {colour for _, colour in picture.convert("RGB").getcolors(10**7)}
    pixels = Comparison.load(folder / "samples" / "comparison").images["after"][0, 0].mul(255).round().byte()
    middle = tuple(int(value) for value in pixels[:, 8, 8])
    assert middle in colours


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@pytest.mark.parametrize("prompts", [1, 3, 6, 12])
@pytest.mark.parametrize("strips", [1, 2])
def test_layout_holds_all_prompts(columns: int, prompts: int, strips: int) -> None:
    layout = choose_layout(prompts, columns, (192, 192), strips)
    assert prompts <= layout.blocks * layout.rows < prompts + layout.rows
    if prompts >= 6:
        assert 1.2 < layout.size[0] / layout.size[1] < 3.2


def test_tiles_scale_by_whole_factors_or_shrink() -> None:
    assert tile_size(64, 64) == (192, 192) and tile_size(1024, 512) == (192, 96) and tile_size(150, 150) == (150, 150)


def test_a_page_has_one_spelling_of_a_name_and_one_minus_sign(tmp_path: Path) -> None:
    rewards = {"./mine/blue.py:blueness": 1.0, "a/other.py:f": -0.5, "b/other.py:f": 1.0}
    warned = "./mine/blue.py:blueness rose by 0.09 (cosine -0.60 at least): the reward is being exploited."
    folder = write_run(tmp_path / "run", rewards=rewards, summary={"warnings": [warned]})
    moved = {name: {"deviations": 0.1} for name in ("./mine/blue.py:blueness", "emoji-judge")}
    looks = [{"step": step, "rewards": moved, "warnings": [{"name": "w", "text": warned}]} for step in (0, 40)]
    (folder / "monitors.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    text = page_of(folder).text
    said, _, typed = text.partition(" Settings All ")
    assert "mine/" not in said and said.count("blue.py:blueness") >= 8
    assert "./mine/blue.py:blueness=1,a/other.py:f=-0.5" in typed  # settings and commands are as they were typed
    assert "a/other.py:f" in said and "b/other.py:f" in said  # two of one last part stay apart
    assert "cosine −0.60" in said and not re.search(r"(?<![\w.])-\.?\d", said)
    assert "emoji-judge (judge)" in said


def test_prompts_are_named_where_numbers_are_of_them(tmp_path: Path) -> None:
    settings = {"eval_prompts": "data/prompts.csv"}
    text = page_of(write_run(tmp_path / "run", settings=settings)).text
    assert "measured on 14 prompts of prompts.csv" in text
    assert "Means over 14 prompts of prompts.csv with 2 noises each" in text
    assert "on 14 prompts of prompts.csv, 2 noises each" in text
    # The verdict's scope stands under the verdict alone.
    assert text.count("Said of this training alone") == 1


def test_a_single_prompt_has_no_interval(tmp_path: Path) -> None:
    summary = {
        "rewards": {"r": {"before": interval(0.0, 0.0), "after": interval(1.0, 0.0)}},
        "gain": {"r": interval(1.0, 0.0)},
        "judge": None,
    }
    images = {"before": torch.rand(1, 1, 3, 16, 16), "after": torch.rand(1, 1, 3, 16, 16)}
    folder = write_run(tmp_path / "run", rewards={"r": 1.0}, summary=summary, images=images)
    text = verdict(read_run(folder)).text
    assert "no interval" in text and "rose" not in text
    page = page_of(folder)
    assert "1 prompt of emoji-heldout only" in page.text and "with 1 noise each" in page.text


def test_distillation_without_rewards_or_judge(tmp_path: Path) -> None:
    summary = {
        "rewards": {}, "judge": None, "gain": {}, "diversity": {"reference": 0.1, "after": 0.08},
        "divergence": {"before": 0.31, "after": 0.05},
    }  # fmt: skip
    images = {name: torch.rand(14, 2, 3, 16, 16) for name in ("reference", "after")}
    settings = {"generator": None, "judge": None}
    page = page_of(write_run(tmp_path / "run", rewards={}, summary=summary, images=images, settings=settings))
    assert "Distilling emoji-reference into one step" in page.text
    assert "Distilled without rewards in 40 steps; the divergence estimate fell from 0.310 to 0.050" in page.text
    assert "diversity is 0.80 of the reference's" in page.text
    assert "dipp distill" in page.text and "Reward:" not in page.text


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", summary={"divergence": {"before": math.nan, "after": 0.1}})
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {"divergence": math.nan, "assistant_loss": math.inf})
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    page = page_of(folder)
    assert not re.search(r"\bnan\b|\binf\b", write_text_of(page), re.IGNORECASE)


def test_missing_metrics_and_pictures_still_make_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    (folder / "samples" / "comparison" / "comparison.json").unlink()
    page = page_of(folder)
    assert "There are no images" in page.text and "The training" not in page.text
    assert not (folder / "before_after.png").exists()


def test_unfinished_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "summary.json").unlink()
    with pytest.raises(CheckpointError, match=r"not finished.*summary\.json"):
        write_report(folder)
    with pytest.raises(CheckpointError, match="not a run folder"):
        write_report(tmp_path)
    (folder / "summary.json").write_text("{")
    with pytest.raises(CheckpointError, match="Cannot read"):
        write_report(folder)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"rewards": 7}, "rewards: input should be an object"),
        ({"rewards": {"emoji-clip": []}}, r"rewards\.emoji-clip: input should be an object"),
        ({"judge": {}}, r"judge\.name: field required"),
        ({"judge": "emoji-judge"}, "judge: input should be an object"),
        ({"diversity": [1]}, "diversity: input should be an object"),
        ({"gain": 7}, "gain: input should be an object"),
        ({"warnings": [{}]}, r"warnings\.0: input should be a valid string"),
        ({"reference_steps": "many"}, "reference_steps: input should be a valid integer"),
    ],
)
def test_a_damaged_summary_is_a_sentence(tmp_path: Path, part: dict[str, Any], said: str) -> None:
    folder = write_run(tmp_path / "run", summary=part)
    for read in (write_report, RunResult.load):
        with pytest.raises(CheckpointError, match=f"summary.json is damaged: {said}.*--resume, which writes it again"):
            read(folder)


@pytest.mark.parametrize("score", [7, {}, {"mean": "high", "low": 0, "high": 1}, None])
def test_a_score_that_is_none_is_left_out(tmp_path: Path, score: Any) -> None:
    result = RunResult.load(write_run(tmp_path / "run", summary={"rewards": {"blue": {"before": score, "after": 1}}}))
    assert "blue" not in repr(result) and "emoji-judge" in repr(result)
    write_report(result.folder)


@pytest.mark.parametrize("name", ["monitors.jsonl", "diagnostics.jsonl"])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"rewards": 7}, "rewards: input should be an object"),
        ({"warnings": 7}, "warnings: input should be a valid array"),
        ({"warnings": [{"name": "collapse"}]}, r"warnings\.0\.text: field required"),
    ],
)
def test_a_damaged_look_is_a_sentence(tmp_path: Path, name: str, row: dict[str, Any], said: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_text(json.dumps({"step": 5} | row) + "\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"step 5 of .*{name} is damaged: {said}. Remove that line"):
        write_report(folder)


def test_times_that_are_no_list_have_no_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "diagnostics.jsonl").write_text('{"step": 5, "divergence": {"times": 7, "by_time": 7}}\n')
    write_report(folder)


def test_metrics_survive_a_resume_and_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 2, "a": 3, "b": NaN}\n{"step": 3, "a"')
    assert read_metrics(path) == [{"step": 1, "a": 1}, {"step": 2, "a": 3}]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(CheckpointError, match="Line 2"):
        read_metrics(path)


def test_long_command_means_the_same_settings() -> None:
    config = TrainConfig(
        generator="a generator", reference="r", rewards={"x": 2.0, "./blue.py:blue": 0.1},
        reward_options={"x": {"version": "v2.1"}},
        prompts="p", steps=7, learning_rate=3e-5, time_range=(0.1, 0.9), judge="j",
    )  # fmt: skip
    words = shlex.split(" ".join(again_from_flags(config)))
    assert words[:2] == ["dipp", "train"]
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    values = parse_assignments([value for name, value in zip(words[2::2], words[3::2], strict=True) if name == "--set"])
    values |= {name[2:].replace("-", "_"): value for name, value in flags.items() if name not in ("--set", "--reward")}
    values["rewards"] = parse_rewards(flags["--reward"])
    assert make_config(values) == config


def test_large_images_are_shrunk(tmp_path: Path) -> None:
    images = {name: torch.rand(3, 1, 3, 400, 600) for name in ("before", "after")}
    page = page_of(write_run(tmp_path / "run", images=images))
    first = page.named("img")[0]
    assert str(first["src"]).startswith("data:image/jpeg") and first["width"] == "320" and first["class"] == ""


def test_chosen_prompts_are_spread_and_not_in_step() -> None:
    assert evenly(5, 12) == [0, 1, 2, 3, 4] and evenly(13, 12) == sorted(set(evenly(13, 12)))
    chosen = evenly(352, 16)
    assert len(chosen) == 16 and all(index * 22 <= row < (index + 1) * 22 for index, row in enumerate(chosen))
    assert len({row % 8 for row in evenly(512, 16)}) >= 5


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(0.0, 300.0) == [0, 100, 200, 300]
    assert tick_texts(nice_ticks(0.08, 0.92, 4)) == ["0.2", "0.4", "0.6", "0.8"]
    assert nice_ticks(1, 2, 4, least=1.0) == [1, 2]  # there is no step 1.5
    assert all(2 <= len(nice_ticks(0, high / 10, 4)) <= 5 for high in range(1, 2000))
    assert tick_texts(nice_ticks(-0.31, 0.12)) == ["−0.3", "−0.2", "−0.1", "0.0", "0.1"]
    axis = Axis(0.001, 10.0, 0.0, 100.0, log=True)
    assert [text for _, text in axis.ticks()] == ["0.001", "0.01", "0.1", "1", "10"]
    assert axis(0.1) == pytest.approx(50)


def test_smoothing_keeps_a_line_and_a_level() -> None:
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)
    line = [float(index) for index in range(200)]
    assert smooth(line)[20:180] == pytest.approx(line[20:180])
    assert len(smooth([1.0])) == 1


def test_charts_stay_small_and_inside() -> None:
    values = [math.sin(index / 50) + (5000 if index == 700 else 0) for index in range(20_000)]
    chart = line_chart([Series("a", [float(step) for step in range(1, 20_001)], values)], "a <chart>")
    assert len(chart) < 12_000 and "a &lt;chart&gt;" in chart
    points = [tuple(map(float, match.split(","))) for match in re.findall(r"[\d.]+,[\d.]+", chart)]
    assert all(0 <= x <= 380 and 0 <= y <= 216 for x, y in points)
    spread = max(y for _, y in points) - min(y for _, y in points)
    assert spread > 100


def test_run_of_one_step_has_dots(tmp_path: Path) -> None:
    curves = curves_of(read_run(write_run(tmp_path / "run", steps=1)))
    assert curves and all("<circle" in curve.chart for curve in curves)
