"""`dipp ablate`: cells, trends, the choice and the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_toolkit.config import make_config
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import RequestError
from dipp_toolkit.events import Warned
from dipp_toolkit.experiments.ablation.best_cell import choose, parse_constraint
from dipp_toolkit.experiments.ablation.cells import (
    CellFolder,
    cell_config,
    check_trained_cells,
    folders_of,
    train_cells,
)
from dipp_toolkit.experiments.ablation.differences import difference
from dipp_toolkit.experiments.ablation.grid import Cell, check_cells, grid, make_cell, parse_vary, read_cells
from dipp_toolkit.experiments.ablation.page import heat_maps, render
from dipp_toolkit.experiments.ablation.results import Study, make_study
from dipp_toolkit.experiments.ablation.settings import AblationSettings, check_ablation
from dipp_toolkit.experiments.ablation.trained_with import note_contents
from dipp_toolkit.experiments.ablation.trends import change, claims
from dipp_toolkit.experiments.ablation.trends import changes as listed_changes
from dipp_toolkit.experiments.bench.rows import EvaluationProtocol, Figure, Picture, Row, Subject
from dipp_toolkit.experiments.bench.statistics import mean_figure
from dipp_toolkit.experiments.named_contents import contents_of
from dipp_toolkit.report.charts.scatter import Point, pareto_front
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.resolve import resolve
from launching import together

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)
PROTOCOL = EvaluationProtocol(prompts="set", digest="0" * 64, count=4, seeds=(1, 2), size=(64, 64))
Values = dict[str, float]


def row(label: str, values: Values, warned: str = "", trained: tuple[str, ...] = ("liked",)) -> Row:
    roles = {"liked": "reward", "judged": "judge", "distance": "metric"}
    figures = {
        name: Figure(
            mean=value,
            low=value - 0.1,
            high=value + 0.1,
            role=roles[name],  # type: ignore[arg-type]
            better="lower" if name == "distance" else "higher",
        )
        for name, value in values.items()
    }
    return Row(
        subject=Subject(label=label, trained_on=trained),
        protocol=PROTOCOL,
        figures=figures,
        warnings=(Warned(name=warned, text="It is."),) if warned else (),
        pictures=(Picture(prompt="a <b>face</b>", seed=1, data=PIXEL),),
        environment={"torch": "2"},
    )


def study_of(function: Callable[[float, float], Values], noise: float = 0.05) -> Study:
    """Cells over reward_scale and guidance with two seeds, from a function of both and a little of the seed."""
    cells = grid(parse_vary(["reward_scale=0,10,100", "guidance=1,3", "seed=0,1"]))
    rows = []
    for number, cell in enumerate(cells):
        scale, guidance = float(cell.values["reward_scale"]), float(cell.values["guidance"])
        wobble = noise * (-1) ** number
        values = {name: value + wobble for name, value in function(scale, guidance).items()}
        rows.append(row(cell.label, values, "over-optimisation" if scale == 100 else ""))
    return make_study(cells, [row("start", {"liked": 0, "judged": 0, "distance": 5}), *rows])


def as_the_papers_say(scale: float, guidance: float) -> Values:
    # Reward rises throughout, judge and distance are best at 10, guidance adds to everything liked.
    level = {0: 0.0, 10: 2.0, 100: 5.0}[scale]
    good = {0: 0.0, 10: 1.0, 100: -1.0}[scale]
    return {"liked": level + 0.5 * guidance, "judged": good + 0.5 * guidance, "distance": 5 - good}


def test_the_grid_is_every_combination_with_values_as_set_reads_them() -> None:
    cells = grid(parse_vary(["reward_scale=0,10", "rewards=hps|hps=2,clip", "time_range=0.1,0.9|0.2,0.8"]))
    assert len(cells) == 8
    assert cells[-1].settings == {"reward_scale": 10, "rewards": "hps=2,clip", "time_range": "0.2,0.8"}
    config = cells[-1].config(make_config({"generator": "emoji-onestep", "steps": 7}))
    assert config.rewards == {"hps": 2, "clip": 1} and config.time_range == (0.2, 0.8) and config.steps == 7
    assert len({cell.slug for cell in cells}) == 8
    assert all("/" not in cell.slug and len(cell.slug) < 90 for cell in cells)


def test_options_of_rewards_vary_beside_those_of_the_base() -> None:
    base = make_config({"rewards": "hps", "reward_options": {"hps": {"preprocess": "tensor"}}})
    cell = make_cell({"reward.hps.version": "v2.1"})
    assert cell.config(base).reward_options == {"hps": {"preprocess": "tensor", "version": "v2.1"}}


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (["guidance"], "expected NAME=VALUE"),
        (["guidance=1,,2"], "expected NAME=VALUE"),
        (["guidance=1,1"], "names a value twice"),
        (["guidance=1", "guidance=2"], "varied twice"),
        (["guidence=1,2"], "Did you mean 'guidance'"),
        (["guidance=1,-2"], "guidance cannot be"),
        (["out=a,b"], "folder of its own"),
    ],
)
def test_what_cannot_vary_is_refused(vary: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_cells(grid(parse_vary(vary)), make_config({}))


def test_a_list_of_cells(tmp_path: Path) -> None:
    path = tmp_path / "cells.yaml"
    path.write_text("- {guidance: 3, rewards: 'hps=2,clip'}\n- {guidance: 1.5, recompute_generator: true}\n")
    first, second = read_cells(path)
    assert first.settings == {"guidance": 3, "rewards": "hps=2,clip"}
    assert second.config(make_config({})).recompute_generator
    path.write_text("guidance: 3")
    with pytest.raises(RequestError, match="not a list of cells"):
        read_cells(path)


def test_changes_are_over_matched_cells() -> None:
    study = study_of(as_the_papers_say)
    found = change(study, "liked", "reward_scale", "0", "100")
    assert found is not None
    assert (found.mean, found.pairs, found.direction) == (pytest.approx(5), 4, "rises")
    inside = change(study, "liked", "guidance", "1", "3", {"reward_scale": "0"})
    assert inside is not None and inside.pairs == 2 and inside.mean == pytest.approx(1)
    none = change(study_of(lambda scale, _: {"liked": 0.0}, noise=0), "liked", "reward_scale", "0", "100")
    assert none is not None and none.direction == ""


def test_the_interval_of_a_change_is_students() -> None:
    from scipy.stats import ttest_1samp

    offsets = {("0", "1"): 0.1, ("10", "1"): 0.5, ("0", "3"): -0.2, ("10", "3"): 0.4}
    cells = grid(parse_vary(["reward_scale=0,10", "guidance=1,3"]))
    rows = [row(cell.label, {"liked": offsets[cell.values["reward_scale"], cell.values["guidance"]]}) for cell in cells]
    found = change(make_study(cells, rows), "liked", "reward_scale", "0", "10")
    expected = ttest_1samp([0.4, 0.6], 0).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_the_papers_trends_are_seen_where_they_are_and_not_where_they_are_not() -> None:
    assert [claim.verdict for claim in claims(study_of(as_the_papers_say))] == ["seen", "seen", "seen"]
    against = claims(study_of(lambda scale, guidance: {"liked": -scale - guidance, "distance": -scale, "judged": 0.0}))
    assert [item.verdict for item in against] == ["not seen", "not seen", "not seen"]
    flat = claims(study_of(lambda scale, guidance: {"liked": 0.0, "judged": 0.0}, noise=0.0))
    assert [item.verdict for item in flat] == ["cannot be said"] * 3
    assert all(item.numbers for item in flat)


def test_the_best_keeps_to_the_constraints() -> None:
    study = study_of(as_the_papers_say)
    free = choose(study, "liked").best
    assert free is not None and free.values == {"reward_scale": "100", "guidance": "3"}
    bound = choose(study, "liked", [parse_constraint("distance<=4.5")])
    assert bound.best is not None and bound.best.values["reward_scale"] == "10"
    assert "distance at most 4.5" in bound.sentence()
    nearest = choose(study, "distance")
    assert nearest.leading is not None and nearest.leading.values["reward_scale"] == "10"
    # Both values of guidance reach the same distance: neither is the best.
    assert nearest.best is None and [item.values["reward_scale"] for item in nearest.level_with] == ["10"]
    assert "No combination is measurably the best" in nearest.sentence()
    assert "highest liked" in choose(study, "liked").sentence()
    assert "with a warning of over-optimisation" in choose(study, "liked").sentence()
    nothing = choose(study, "liked", [parse_constraint("judged >= 99")])
    assert nothing.best is None and "No combination" in nothing.sentence()
    with pytest.raises(RequestError, match="Did you mean 'judged'"):
        choose(study, "judge")
    for text in ("liked", "liked<3", "liked<=three", "<=3"):
        with pytest.raises(RequestError, match="is not a constraint"):
            parse_constraint(text)


def test_the_front_is_what_nothing_betters() -> None:
    points = [Point("a", 1, 1), Point("b", 2, 3), Point("c", 3, 2), Point("d", 2, 3), Point("e", 4, 4)]
    assert {item.name for item in pareto_front(points, -1, 1)} == {"a", "b", "d", "e"}
    assert {item.name for item in pareto_front(points, 1, 1)} == {"e"}


def test_the_page_is_whole_and_escaped(tmp_path: Path) -> None:
    study = study_of(as_the_papers_say)
    settings = AblationSettings([], make_config({"steps": 3}), tmp_path, command="dipp ablate --vary 'guidance=1,3'")
    page = render(settings, study, choose(study, "judged"), {"guidance=9": "The run <stopped>."})
    assert "a &lt;b&gt;face&lt;/b&gt;" in page and "<b>face" not in page
    assert "The run &lt;stopped&gt;." in page
    assert page.count(PIXEL) == 6 + 1
    assert "http://" not in page and "https://" not in page
    assert "over-optimisation" in page and "theorem 3.2" in page
    liked = next(item for item in heat_maps(study) if item.figure == "liked")
    assert [value for value, _ in liked.rows] == ["0", "10", "100"] and liked.columns == ["1", "3"]
    best = liked.rows[2][1][1]
    assert best is not None and best.share == 1 and best.warned == "over-optimisation"
    distance = next(item for item in heat_maps(study) if item.figure == "distance")
    assert [cells[0].share for _, cells in distance.rows if cells[0] is not None] == [0.5, 1.0, 0.0]


def test_a_study_of_one_setting_has_a_page(tmp_path: Path) -> None:
    cells = grid(parse_vary(["rewards=liked|liked=2,other"]))
    study = make_study(cells, [row(cell.label, {"liked": number}) for number, cell in enumerate(cells)])
    settings = AblationSettings(cells, make_config({}), tmp_path)
    page = render(settings, study, choose(study, "liked"), {})
    assert "liked=2,other" in page and claims(study) == []


def noisy_study(cells: int, effect: float = 0.0, seeds: int = 2) -> Study:
    """Trainings that differ by their noise alone, but for an effect of the last value of the setting."""
    random = torch.Generator().manual_seed(11)
    values_of = {"guidance": range(1, cells + 1), "seed": range(seeds)}
    grown = grid({name: [str(value) for value in values] for name, values in values_of.items()})
    hard = torch.randn(40, generator=random, dtype=torch.float64)
    rows = []
    for cell in grown:
        values = hard + 0.3 * torch.randn(40, generator=random, dtype=torch.float64)
        values += 0.03 * torch.randn((), generator=random, dtype=torch.float64)
        values += effect * (cell.values["guidance"] == str(cells))
        figures = {
            "liked": mean_figure(values, [""] * 40, "reward", "higher"),
            "distance": Figure(mean=10 - float(values.mean()), low=9.0, high=11.0, role="metric", better="lower"),
        }
        rows.append(row(cell.label, {}).model_copy(update={"figures": figures}))
    return make_study(grown, rows)


def study_of_levels(levels: Callable[[dict[str, str]], float], cells: list[Cell]) -> Study:
    """Every prompt has its own level, which the cell's settings move by the same."""
    base = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = []
    for cell in cells:
        figure = mean_figure(base + levels(dict(cell.values)), [""] * 60, "reward", "higher")
        rows.append(row(cell.label, {}).model_copy(update={"figures": {"liked": figure}}))
    return make_study(cells, rows)


@pytest.mark.parametrize("seeds", [1, 2])
def test_nothing_is_best_and_no_colour_differs_where_nothing_does(tmp_path: Path, seeds: int) -> None:
    study = noisy_study(4, seeds=seeds)
    choice = choose(study, "liked")
    assert choice.best is None and choice.leading is not None and len(choice.level_with) >= 1
    for item in heat_maps(study):
        assert item.level and {cell.share for _, cells in item.rows for cell in cells if cell is not None} == {0.5}
    assert {item.direction for known in listed_changes(study, "guidance").values() for item in known} == {""}
    page = render(AblationSettings([], make_config({}), tmp_path), study, choice, {})
    assert page.count("no measurable differences") == 2 and "The best liked" not in page
    assert "No combination is measurably the best by liked" in page


def test_what_is_better_is_best_and_says_what_it_covers() -> None:
    study = noisy_study(4, effect=1.0)
    choice = choose(study, "liked")
    assert choice.best is not None and choice.best.values == {"guidance": "4"}
    assert "over these prompts and 2 seeds of training" in choice.sentence()
    liked = next(item for item in heat_maps(study) if item.figure == "liked")
    assert not liked.level and liked.rows[0][1][3] is not None and liked.rows[0][1][3].share == 1
    single = choose(noisy_study(4, effect=1.0, seeds=1), "liked")
    assert single.best is not None and "so other seeds may differ" in single.sentence()


def test_seeds_that_disagree_leave_nothing_best() -> None:
    """Certain over prompts, but two trainings of one setting differ as much as two settings."""
    level = {("1", "0"): 0.0, ("1", "1"): 1.0, ("3", "0"): 0.5, ("3", "1"): 1.6}
    study = study_of_levels(
        lambda values: level[values["guidance"], values["seed"]], grid(parse_vary(["guidance=1,3", "seed=0,1"]))
    )
    one, two = study.combinations
    found = difference(study, [one], [two], "liked")
    assert (found.over_prompts, found.over_seeds, found.measurable) == (True, False, False)
    assert choose(study, "liked").best is None


def test_a_certain_change_that_is_tiny_is_no_trend() -> None:
    cells = grid(parse_vary(["guidance=1,3", "seed=0,1,2"]))
    study = study_of_levels(lambda values: 0.01 * float(values["guidance"]), cells)
    found = change(study, "liked", "guidance", "1", "3")
    assert found is not None and found.certain and found.direction == ""
    assert found.verdict() == "less than 0.1 standard deviations over prompts"
    assert choose(study, "liked").best is None


def test_two_values_show_no_turn() -> None:
    cells = grid(parse_vary(["reward_scale=0,10", "guidance=1,3"]))
    rows = [
        row(cell.label, {"liked": float(cell.values["reward_scale"]), "distance": 5.0 + number})
        for number, cell in enumerate(cells)
    ]
    fidelity = next(claim for claim in claims(make_study(cells, rows)) if "fidelity" in claim.expectation)
    assert fidelity.verdict == "cannot be said" and "three or more" in fidelity.numbers


class Listener:
    def __init__(self) -> None:
        self.states: list[str] = []

    def cell(self, cell: Cell, number: int, total: int, state: str) -> None:
        self.states.append(state.partition(":")[0])


@pytest.fixture
def finished(tmp_path: Path) -> tuple[list[Cell], dict[str, Any], Path]:
    """Two cells that count as trained, the settings they share, and the ablation's folder."""
    (tmp_path / "helper_of_blue.py").write_text("SCALE = 1\n")
    (tmp_path / "blue.py").write_text(
        "import helper_of_blue\ndef f(images, prompts):\n    return images.mean((1, 2, 3))\n"
    )
    (tmp_path / "p.txt").write_text("a fox\n")
    shared = {"generator": "emoji-onestep", "steps": 3, "judge": None, "prompts": str(tmp_path / "p.txt")}
    shared |= {"rewards": {f"{tmp_path}/blue.py:f": 1.0}}
    cells, out = grid(parse_vary(["reward_scale=0,1"])), tmp_path / "ab"
    for folder in folders_of(cells, out):
        config = resolve(cell_config(folder, make_config(shared))).model_copy(update={"precision": "bf16"})
        RunFolder(folder.path).create(config)
        note_contents(folder.contents, config)
        (folder.path / "summary.json").write_text("{}")
        (folder.path / "report.html").write_text("")
    return cells, shared, out


def test_a_cell_that_was_killed_before_its_report_goes_on(finished: tuple[list[Cell], dict[str, Any], Path]) -> None:
    cells, _, out = finished
    whole, cut = folders_of(cells, out)
    (cut.path / "report.html").unlink()
    assert (whole.done, cut.done) == (True, False)


def check_again(finished: tuple[list[Cell], dict[str, Any], Path], **changes: Any) -> None:
    cells, shared, out = finished
    check_trained_cells(folders_of(cells, out), make_config(shared | changes))


def test_finished_cells_are_of_the_same_settings(finished: tuple[list[Cell], dict[str, Any], Path]) -> None:
    check_again(finished)
    check_again(finished, device="cpu", keep_checkpoints=9, resume=True)
    for changes, said in (
        ({"steps": 4}, r"reward_scale=0 was trained with other inputs: steps was 3 and is 4\. Name .* --out, or rem"),
        ({"learning_rate": 0.5}, "learning_rate was .* and is 0.5"),
        ({"precision": "fp32"}, "precision was 'bf16' and is 'fp32'"),
        ({"rewards": {"emoji-clip": 1.0}}, "rewards was .* and is {'emoji-clip': 1.0}"),
    ):
        with pytest.raises(RequestError, match=said):
            check_again(finished, **changes)
    cells, shared, out = finished
    listener = Listener()
    other = make_config(shared | {"steps": 4})
    with pytest.raises(RequestError, match="was trained with other inputs"):
        check_ablation(AblationSettings(cells, other, out))
    with pytest.raises(RequestError, match="was trained with other inputs"):
        train_cells(cells, other, out, Processes(), listener)
    assert listener.states == []


@pytest.mark.parametrize("edited", ["p.txt", "blue.py", "helper_of_blue.py"])
def test_finished_cells_are_of_the_same_files(
    finished: tuple[list[Cell], dict[str, Any], Path], tmp_path: Path, edited: str
) -> None:
    (tmp_path / edited).write_text((tmp_path / edited).read_text() + "#x\n")
    with pytest.raises(RequestError, match=r"the content of .*(p\.txt|blue\.py:f) has changed since"):
        check_again(finished)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": "{}/w.safetensors"}, "w.safetensors"),
        ({"lora": ["{}/w.safetensors=0.5"]}, "w.safetensors=0.5"),
        ({"generator": "diffusers:{}/final"}, "diffusers:"),
        ({"generator": "code.py:Mine@{}/final"}, "code.py:Mine@"),
        ({"floors": {"{}/w.py:f": 1.0}}, "w.py:f"),
        ({"assistant_model": "{}/w.py:f"}, "w.py:f"),
        ({"rewards": {"ensemble": 1.0}, "reward_options": {"ensemble": {"members": "clip+{}/w.py:f"}}}, "clip+"),
        ({"rewards": {"ensemble": 1.0}, "reward_options": {"ensemble": {"members": ["clip", "{}/w.py:f"]}}}, "w.py:f"),
    ],
)
def test_weights_and_code_are_noticed_wherever_settings_name_them(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    config = make_config(json.loads(json.dumps(settings).replace("{}", str(tmp_path))))
    files = [tmp_path / name for name in ("w.safetensors", "w.py", "final/model.safetensors")]
    (tmp_path / "final").mkdir()
    for file in files:
        file.write_text("a = 1\n")
    before = contents_of(config)
    for file in files:
        file.write_text("a = 2\n")
    now = contents_of(config)
    assert [name for name in now if said in name and before[name] != now[name]]


def test_a_registered_name_is_no_folder_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "emoji-onestep").mkdir()
    monkeypatch.chdir(tmp_path)
    assert contents_of(make_config({"generator": "emoji-onestep"})) == {}


def test_cells_of_an_older_version_are_known_by_their_settings(
    finished: tuple[list[Cell], dict[str, Any], Path],
) -> None:
    cells, _, out = finished
    for folder in folders_of(cells, out):
        folder.contents.unlink()
        path = folder.path / "config.yaml"
        path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("spike:")))
    check_again(finished)


@pytest.mark.slow
def test_cells_go_on_and_a_failing_one_stops_no_other(tmp_path: Path) -> None:
    flaw = tmp_path / "flaw.py"
    # It says that it has a gradient, so that nobody tries before the first step and finds it out then.
    flaw.write_text(
        "def bad(images, prompts):\n    return images.mean((1, 2, 3)) * float('nan')\n\nbad.differentiable = True\n"
    )
    small = {"generator": "emoji-onestep", "steps": 1, "batch_size": 2, "eval_count": 2, "reference_steps": 2}
    base = make_config(small | {"judge": None})
    cells = grid(parse_vary([f"rewards={flaw}:bad|emoji-clip=0.02"]))
    listener = Listener()
    folders = train_cells(cells, base, tmp_path / "a", Processes(), listener)
    assert listener.states == ["starts", "failed", "starts"]
    assert [folder.done for folder in folders] == [False, True] and "finite" in folders[0].failure
    flaw.write_text("def bad(images, prompts):\n    return images.mean((1, 2, 3))\n")
    again = Listener()
    folders = train_cells(cells, base, tmp_path / "a", Processes(), again)
    assert again.states == ["resumes", "done already"]
    assert all(folder.done and not folder.failure for folder in folders)
    assert isinstance(folders[0], CellFolder)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_command_shares_cells_among_processes(tmp_path: Path) -> None:
    words = [
        "ablate", "--vary", "reward_scale=0,20", "--seeds", "1", "--steps", "1",
        "--batch-size", "2", "--set", "eval_count=2", "--set", "reference_steps=2", "--count", "4", "--out",
        str(tmp_path), "--best", "emoji-judge", "--subject-to", "emoji-clip>=1", "--json",
    ]  # fmt: skip
    done = together(2, words)  # a cell each
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found["combinations"]) == 2 and found["leading"]["settings"]["reward_scale"] in ("0", "20")
    assert "[1/2] reward_scale=0 seed=0: starts" in done.stderr
    assert Path(found["page"]).is_file() and len(found["claims"]) == 2
    again = together(1, words)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "[2/2] reward_scale=20 seed=0: done already" in again.stderr
    assert json.loads(again.stdout)["combinations"] == found["combinations"]
