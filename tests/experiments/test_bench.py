"""`dipp bench`: images once, answers once, rows that hold all they need."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dipp_cli.app import main
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.experiments.bench.rows import Row, read_rows, write_rows
from dipp_toolkit.experiments.bench.run import _known_costs, run_bench
from dipp_toolkit.experiments.bench.score_cache import ScoreCache, version_of
from dipp_toolkit.experiments.bench.settings import BenchSettings
from dipp_toolkit.experiments.bench.sources import noise_of
from dipp_toolkit.experiments.bench.statistics import mean_figure, metric_figures
from dipp_toolkit.experiments.bench.store import LOG, ImageStore, image_key
from dipp_toolkit.experiments.bench.summary import reference_of
from dipp_toolkit.utils.fingerprint import circumstances, digest_of
from fake_rows import fake_row
from forked import dipp
from launching import together

PROMPTS = "emoji-heldout?count=6"


def settings(out: Path, **changes: object) -> BenchSettings:
    made = BenchSettings(
        entries=tuple(parse_entries("emoji-onestep,few=emoji-reference", {"few": {"steps": 2, "guidance": 1}})),
        prompts=PROMPTS,
        rewards=("emoji-clip",),
        judges=("emoji-judge",),
        out=out,
        pictures=2,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class Counting:
    """Counts what is asked for."""

    def __init__(self) -> None:
        self.work: Counter[str] = Counter()

    def begin(self, what: str, total: int) -> None:
        self.work[what] += total

    def advance(self, count: int) -> None: ...


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row], Counting]:
    out, counting = tmp_path_factory.mktemp("bench"), Counting()
    return out, run_bench(settings(out), counting), counting


def test_rows_hold_figures_with_intervals(bench: tuple[Path, list[Row], Counting]) -> None:
    out, rows, _ = bench
    assert [row.label for row in rows] == ["emoji-onestep", "few"]
    assert rows == read_rows(out / "results.jsonl")
    one_step, few = rows
    assert (one_step.subject.evaluations, few.subject.evaluations) == (1, 2)
    assert few.subject.is_reference and not one_step.subject.is_reference
    assert one_step.protocol.comparable(few.protocol) and one_step.protocol.count == 6
    for row in rows:
        assert {"emoji-clip", "emoji-judge", "diversity", "saturation", "contrast"} <= row.figures.keys()
        for figure in row.figures.values():
            if figure.low is not None and figure.high is not None:
                assert figure.low <= figure.mean <= figure.high
        assert row.figures["emoji-judge"].role == "judge"
        assert len(row.figures["emoji-clip"].per_prompt or ()) == 6
        assert len(row.pictures) == 2 and row.pictures[0].data.startswith("data:image/png;base64,")
    assert one_step.subject.fingerprint != few.subject.fingerprint
    assert [picture.prompt for picture in one_step.pictures] == [picture.prompt for picture in few.pictures]


def test_metrics_alone_make_a_bench(
    bench: tuple[Path, list[Row], Counting], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _, _ = bench
    words = ["bench", "--generators", "emoji-onestep,few=emoji-reference", "--prompts", PROMPTS, "-q"]
    words += ["--set", "generator.few.steps=2", "--set", "generator.few.guidance=1", "--metrics", "vendi"]
    assert main([*words, "--images", str(out / "images"), "--out", str(tmp_path / "alone")]) == 0
    said = capsys.readouterr().out
    assert "6 prompts of emoji-heldout, means with 95 % intervals" in said and "vendi" in said
    assert "diversity: few against emoji-onestep" in said
    rows = read_rows(tmp_path / "alone" / "results.jsonl")
    assert [row.label for row in rows] == ["emoji-onestep", "few"]
    assert {figure.role for row in rows for figure in row.figures.values()} == {"metric", "cost"}
    board = tmp_path / "board.html"
    assert main(["leaderboard", str(tmp_path / "alone"), "--out", str(board)]) == 0
    assert "by diversity:" in capsys.readouterr().out and "Pair by pair" in board.read_text()


def test_a_second_time_nothing_is_made(bench: tuple[Path, list[Row], Counting]) -> None:
    out, rows, _ = bench
    again = Counting()
    assert run_bench(settings(out), again) == rows
    assert sum(again.work.values()) == 0
    made = ImageStore(out / "images").made()
    assert len(made) == len(set(made)) == 2 * 6 * 2


def test_more_seeds_and_other_prompts_reuse_what_is_there(bench: tuple[Path, list[Row], Counting]) -> None:
    out, _, _ = bench
    more = Counting()
    rows = run_bench(
        settings(out, seeds=(1, 2, 3), prompts="emoji-heldout?count=4", entries=settings(out).entries[:1]), more
    )
    assert more.work["images of emoji-onestep"] == 4
    assert more.work["emoji-clip"] == 4
    assert rows[0].protocol.count == 4


def test_an_image_is_the_same_whatever_is_made_beside_it(bench: tuple[Path, list[Row], Counting]) -> None:
    out, _, _ = bench
    entry = settings(out).entries[0]
    source = entry.source(torch.device("cpu"))
    store = ImageStore(out / "images")
    made_by = digest_of([source.fingerprint(), circumstances(torch.device("cpu"), settings(out).batch)])
    prompt = read_rows(out / "results.jsonl")[0].pictures[1].prompt
    alone = source.images([prompt], [2])
    stored = store.read([image_key(made_by, prompt, 2)])
    assert (alone - stored).abs().max() <= 1 / 255


def test_colours_are_held_against_the_reference_of_the_run_s_own_world() -> None:
    def reference(label: str, name: str) -> Row:
        row = fake_row(label, 1.0)
        return row.model_copy(update={"subject": row.subject.model_copy(update={"name": name, "is_reference": True})})

    rows = [
        fake_row("start", 0.0),
        reference("emoji-reference", "emoji-reference"),
        reference("slow", "other-reference"),
    ]
    assert reference_of({"reference": "emoji-reference"}, rows) is rows[1]
    assert reference_of({"reference": "other-reference"}, rows) is rows[2]
    assert reference_of({"reference": "a/folder"}, rows) is reference_of({}, rows) is rows[1]
    # Registered, and not in this bench: another world's would be the wrong one.
    assert reference_of({"reference": "emoji-reference"}, [rows[0], rows[2]]) is None
    assert reference_of({"reference": "emoji-reference"}, rows[:1]) is None


def test_noise_depends_on_prompt_and_seed_alone() -> None:
    both = noise_of(["a", "b"], [1, 1], (4, 8, 8))
    assert torch.equal(both[1], noise_of(["b"], [1], (4, 8, 8))[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both[0], noise_of(["a"], [2], (4, 8, 8))[0])
    many = noise_of(["a"] * 200, list(range(200)), (4, 8, 8))
    assert abs(many.mean().item()) < 0.02 and abs(many.std().item() - 1) < 0.02


def test_processes_share_everything_once() -> None:
    items = list(range(11))
    parts = [Processes(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("emoji-onestp", {}, "Did you mean 'emoji-onestep'"),
        ("", {}, "No generator is named"),
        ("a=emoji-onestep,a=emoji-reference", {}, "called 'a'"),
        ("emoji-onestep", {"other": {"steps": 2}}, "generator named 'other'"),
        ("emoji-onestep", {"emoji-onestep": {"stepz": 2}}, "Did you mean 'steps'"),
        ("=emoji-onestep", {}, "expected NAME or LABEL=NAME"),
    ],
)
def test_generators_that_cannot_be_meant(text: str, options: dict[str, dict[str, int]], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse_entries(text, options)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"latency": 7}', '{"latency": {"costs": {"a": "x"}, "better": {}}}', "[" * 100_000]
)
def test_damaged_costs_are_measured_again(tmp_path: Path, content: str) -> None:
    (tmp_path / "costs.json").write_text(content, encoding="utf-8")
    assert _known_costs(tmp_path / "costs.json") == {}


def test_costs_beside_damaged_ones_are_kept(tmp_path: Path) -> None:
    whole = {"costs": {"seconds": [1.0]}, "better": {"seconds": "lower"}}
    (tmp_path / "costs.json").write_text(json.dumps({"latency": whole, "other": {"costs": 7}}), encoding="utf-8")
    assert _known_costs(tmp_path / "costs.json") == {"latency": whole}


def test_lines_that_were_cut_off_count_for_no_image(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    (tmp_path / f"{LOG}-0.jsonl").write_text('[]\n7\n{"ke\n{"key": "a"}\n', encoding="utf-8")
    assert store.made() == ["a"]


def test_bad_requests_are_refused_before_images_are_made(tmp_path: Path) -> None:
    for changes, said in (
        ({"rewards": ("emoji-klip",)}, "Did you mean 'emoji-clip'"),
        ({"rewards": ("emoji-judge",)}, "as a reward and as a judge"),
        ({"rewards": (), "judges": (), "metrics": ()}, "Nothing is measured"),
        ({"metrics": ("fidd",)}, "fid"),
        ({"seeds": (1, 1)}, "different numbers"),
        ({"options": {"hps": {"version": "v2"}}}, "does not use"),
    ):
        with pytest.raises(RequestError, match=said):
            run_bench(settings(tmp_path / "bench", **changes))
    assert not (tmp_path / "bench").exists()


def test_a_failing_reward_keeps_what_was_done(tmp_path: Path) -> None:
    flaw = tmp_path / "flaw.py"
    flaw.write_text(
        "def bad(images, prompts):\n    if len(images) < 8:\n        raise ValueError('no more')\n"
        "    return images.mean((1, 2, 3))\n"
    )
    one = settings(tmp_path / "b", rewards=(f"{flaw}:bad",), judges=(), batch=8)
    one = replace(one, entries=one.entries[:1])
    with pytest.raises(RunError, match="no more"):
        run_bench(one)
    flaw.write_text("def bad(images, prompts):\n    return images.mean((1, 2, 3))\n")
    counting = Counting()
    run_bench(one, counting)
    # The file changed, so its answers are asked for anew; the images are there.
    assert counting.work[f"{flaw}:bad"] == 12
    assert counting.work["images of emoji-onestep"] == 0


def test_answers_are_by_content(tmp_path: Path) -> None:
    answers = ScoreCache(tmp_path / "a")
    answers.add(["x", "y"], torch.tensor([[1.0], [2.0]]))
    other = ScoreCache(tmp_path / "a", process=1)
    other.refresh()
    assert other.missing(["y", "z", "z", "x"]) == ["z"]
    other.add(["z"], torch.tensor([[3.0]]))
    answers.refresh()
    assert answers.table(["x", "z"], 2).flatten().tolist() == [1, 3]
    (tmp_path / "a" / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match=r"broken.safetensors is damaged"):
        ScoreCache(tmp_path / "a").refresh()
    assert version_of("clip", {"a": 1}, None) != version_of("clip", {"a": 2}, None)
    linear = torch.nn.Linear(2, 2)
    before = version_of("clip", {}, linear)
    with torch.no_grad():
        linear.bias += 1
    assert version_of("clip", {}, linear) != before


class Spread:
    """A set-level number with a known standard error: the mean of the features."""

    better = {"mean-of-set": "higher"}  # noqa: RUF012

    def features(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return images.flatten(1)

    def values(self, features: torch.Tensor) -> dict[str, float]:
        return {"mean-of-set": features.mean().item()}


def test_a_set_number_has_the_interval_of_its_sampling() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(400, 1, 1, generator=random)
    figure = metric_figures("spread", Spread(), features, [""] * 400)["mean-of-set"]
    assert figure.low is not None and figure.high is not None
    expected = 1.96 * features.std().item() / 20
    assert (figure.high - figure.low) / 2 == pytest.approx(expected, rel=0.15)
    assert (figure.high + figure.low) / 2 == pytest.approx(figure.mean, abs=1e-9)
    assert figure.per_prompt is None and figure.better == "higher"


def test_categories_are_means_of_their_own_prompts() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, 5.0], [7.0, 9.0], [0.0, 0.0]])
    figure = mean_figure(values, ["a", "b", "a", ""], "reward", "higher")
    assert figure.mean == pytest.approx(3.75)
    assert figure.per_prompt == (2, 5, 8, 0)
    assert figure.by_category["a"][0] == 5 and figure.by_category["b"] == (5, 5, 5)


def test_rows_read_back_and_faults_are_named(tmp_path: Path, bench: tuple[Path, list[Row], Counting]) -> None:
    _, rows, _ = bench
    path = tmp_path / "deep" / "r.jsonl"
    write_rows(path, rows)
    assert read_rows(path) == rows
    lines = path.read_text().splitlines()
    broken = json.loads(lines[1])
    broken["subject"].pop("label")
    path.write_text("\n".join([lines[0], json.dumps(broken)]))
    with pytest.raises(RequestError, match=r"line 2.*subject.label"):
        read_rows(path)
    path.write_text("{")
    with pytest.raises(RequestError, match="line 1, is not valid JSON"):
        read_rows(path)


COMMAND = [
    "bench", "--generators", "emoji-onestep,slow=emoji-reference", "--prompts",
    "emoji-heldout", "--count", "12", "--rewards", "emoji-clip", "--seeds", "2", "--batch-size", "4", "--set",
    "generator.slow.steps=6",
]  # fmt: skip


@pytest.mark.slow
def test_killed_and_started_again_it_makes_no_image_twice(tmp_path: Path) -> None:
    command = [*COMMAND, "--out", str(tmp_path)]
    program = dipp(command)
    store = ImageStore(tmp_path / "images")
    deadline = time.monotonic() + 120
    while len(store.made()) < 28 and program.returncode is None and time.monotonic() < deadline:
        time.sleep(0.05)
    program.kill()
    before = len(store.made())
    assert 0 < before < 48
    again = dipp([*command, "--json"])
    assert again.wait() == 0, again.stderr[-3000:]
    made = Counter(store.made())
    assert len(made) == 48 and set(made.values()) <= {1, 2}
    # Only images of the batch that was cut off, which never reached the disk, may be there twice.
    assert sum(item - 1 for item in made.values()) <= 4
    assert len(json.loads(again.stdout)["rows"]) == 2


def test_a_run_of_few_steps_is_a_generator_whatever_the_steps_say(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("generator_steps: 4\n")
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "model_index.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "final"):
        (plain,) = parse_entries(f"few={folder}", {})
        (said,) = parse_entries(f"few={folder}", {"few": {"steps": 4}})
        assert not plain.is_reference and not said.is_reference
        with pytest.raises(RequestError, match=r"'few' was trained to take 4 steps; got steps=8\. Leave steps out"):
            parse_entries(f"few={folder}", {"few": {"steps": 8}})
    (many,) = parse_entries("many=emoji-onestep", {"many": {"steps": 8}})
    assert many.is_reference


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    done = together(2, [*COMMAND, "--out", str(tmp_path)])
    assert done.returncode == 0, done.stderr[-3000:]
    logs = sorted(path.name for path in (tmp_path / "images").glob("made-*.jsonl"))
    assert logs == ["made-0.jsonl", "made-1.jsonl"]
    made = ImageStore(tmp_path / "images").made()
    assert len(made) == len(set(made)) == 48
    assert len(read_rows(tmp_path / "results.jsonl")) == 2
