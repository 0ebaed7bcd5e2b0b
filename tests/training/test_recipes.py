"""Recipes: every one resolves and dry-runs without weights, says where its values come from, and is but a layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from dipp_cli.actions.settings import gather
from dipp_cli.app import main
from dipp_toolkit import TrainConfig, hookimpl
from dipp_toolkit.config import make_config
from dipp_toolkit.errors import CheckpointError, PluginError, RequestError
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.planning.recipes.files import RecipeFile, register_recipes
from dipp_toolkit.planning.recipes.recipe import OURS, find_recipe, parse_recipe, recipe_settings, recipe_text
from dipp_toolkit.registry import Registry, get_registry
from dipp_toolkit.report.contents import facts_of
from dipp_toolkit.report.run_files import read_run
from dipp_toolkit.training.publish import card_text
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.preflight import preflight
from dipp_toolkit.training.setup.resolve import resolve, with_recommended
from fake_run import write_run

NAMES = sorted(get_registry().entries["recipe"])
REWARDED = ("dipp-pixart", "dipp-sd15", "dipp-sdxl", "distar-sdxl")
SMALL = """title: Small
reproduces: nothing
source: [arXiv 0000.00000]
settings:
  - from: Table 1
    values: {generator: emoji-onestep, guidance: 3.0, reward_options: {hps: {version: v2.0}}}
  - from: ours
    because: a test
    values: {steps: 7, reward_scale: auto, pull: 0.5}
"""


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Registers a recipe `small` with a content."""

    def write(content: str = SMALL) -> Path:
        folder = tmp_path / "recipes"
        folder.mkdir(exist_ok=True)
        path = folder / "small.yaml"
        path.write_text(content, encoding="utf-8")
        own = Registry()
        own.add_plugin("own", lambda: plugin(folder))
        assert not own.broken, own.broken
        monkeypatch.setitem(get_registry().entries, "recipe", own.entries["recipe"])
        return path

    return write


def plugin(folder: Path) -> ModuleType:
    module = ModuleType("own_recipes")

    def dipp_register_recipes(register: Any) -> None:
        register_recipes(register, folder)

    vars(module)["dipp_register_recipes"] = hookimpl(dipp_register_recipes)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_resolves_and_dry_runs_without_weights(name: str, prompts: str) -> None:
    recipe = find_recipe(name)
    assert recipe.title == get_registry().entries["recipe"][name].summary
    resolved = resolve(TrainConfig(recipe=name, prompts=prompts))
    for setting, value in recipe.values.items():
        kept = getattr(make_config(recipe.values), setting)
        assert getattr(resolved, setting) == kept, (setting, value)
    found = preflight(TrainConfig(recipe=name, prompts=prompts))
    assert found.rows["recipe"].startswith(f"{name}: {recipe.title} (")
    assert any("huggingface.co" in item for item in found.fetched)
    assert resolved.batch_size * resolved.accumulation >= 16


@pytest.mark.parametrize("name", NAMES)
def test_every_value_says_where_it_comes_from(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.values.keys() == recipe.origins.keys()
    assert all("arXiv" in item or "github.com" in item for item in recipe.source)
    assert all(group.because for group in recipe.settings if group.origin == OURS)
    assert OURS in recipe.origins.values() and set(recipe.origins.values()) - {OURS}
    assert "prompts" not in recipe.values  # no source publishes a set that is registered here
    text = get_registry().entries["recipe"][name].factory.text
    assert text.count("prompts") + text.count("Prompts") > 0
    assert max(map(len, text.splitlines())) <= 120


def test_the_authors_numbers_are_theirs_and_what_they_do_not_say_is_ours() -> None:
    for name in ("dipp-sdxl", "distar-sdxl", "sim-sdxl", "diff-instruct-sdxl"):
        recipe = find_recipe(name)
        assert recipe.values["guidance"] == 7.5 and "Table 3" in recipe.origins["guidance"]
        assert recipe.values["generator"] == "sdxl-dmd2" and "DMD2" in recipe.origins["generator"]
    for name in REWARDED:
        recipe = find_recipe(name)
        assert (recipe.values["reward_scale"], recipe.values["pull"]) == ("auto", 0.7)
        assert {recipe.origins[text] for text in ("reward_scale", "pull", "rewards", "learning_rate")} <= {
            OURS, recipe.origins["learning_rate"]
        }  # fmt: skip
        assert recipe.origins["pull"] == recipe.origins["rewards"] == OURS
        assert any("alpha_rew" in item for item in recipe.reported_with)
    assert find_recipe("dipp-sdxl").reported_with["alpha_rew"].startswith("100")
    assert find_recipe("distar-sdxl").values["term"] == "score_divergence"
    dmd2, baseline = find_recipe("dmd2-sdxl"), find_recipe("dmd2-sd15")
    assert (dmd2.values["guidance"], dmd2.values["assistant_rounds"]) == (8.0, 5) and dmd2.values["rewards"] == {}
    assert "5e-7" in dmd2.reported_with["learning rates"]
    assert (baseline.values["guidance"], baseline.values["learning_rate"], baseline.values["steps"]) == (
        1.75,
        1e-5,
        3900,
    )
    for name in NAMES:
        assert name in REWARDED or find_recipe(name).values["rewards"] == {}


@pytest.mark.parametrize("name", ["dipp-sdxl", "dmd2-sd15"])
def test_a_printed_recipe_is_a_settings_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", name]) == 0
    printed = capsys.readouterr().out
    assert "# " in printed and printed.rstrip() == get_registry().entries["recipe"][name].factory.text.rstrip()
    mine = tmp_path / "mine.yaml"
    mine.write_text(printed.replace("warmup: 20", "warmup: 33"), encoding="utf-8")
    of_file, of_recipe = gather({}, [], mine), make_config({"recipe": name})
    assert of_file.recipe is None
    expected = recipe_settings(of_recipe) | ({"warmup": 33} if "warmup: 20" in printed else {})
    assert {item: getattr(of_file, item) for item in expected} == {
        item: getattr(make_config(expected), item) for item in expected
    }
    mine.write_text(printed.replace("guidance:", "guidence:", 1), encoding="utf-8")
    with pytest.raises(RequestError, match=r"mine\.yaml cannot be used\. .*'guidence'\. Did you mean 'guidance'\?$"):
        gather({}, [], mine)


def test_the_listing_names_all_and_prints_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in NAMES) and "dipp plan --recipe NAME" in table
    assert main(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert {row["name"]: row["generator"] for row in rows}["dipp-sdxl"] == "sdxl-dmd2"
    assert main(["recipes", "dipp-sdxl", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["settings"]["guidance"]["value"] == 7.5 and "Table 3" in content["settings"]["guidance"]["from"]
    assert (
        content["settings"]["pull"]["from"] == "ours" and yaml.safe_load(content["file"])["title"] == content["title"]
    )
    for words in (["recipes", "dip-sdxl"], ["train", "--recipe", "dip-sdxl"], ["plan", "--recipe", "dip-sdxl"]):
        assert main(words) == 2
        assert "There is no recipe named 'dip-sdxl'. Did you mean 'dipp-sdxl'?" in capsys.readouterr().err


def test_a_recipe_is_the_layer_beneath_file_set_and_flags(small: Callable[..., Path], tmp_path: Path) -> None:
    small()
    file = tmp_path / "settings.yaml"
    file.write_text("steps: 9\nreward_options: {hps: {checkpoint: a.pt}}\n", encoding="utf-8")
    config = with_recommended(gather({"recipe": "small"}, ["learning_rate=3e-5"], file))
    assert (config.steps, config.guidance, config.learning_rate) == (9, 3.0, 3e-5)
    assert config.reward_options == {"hps": {"version": "v2.0", "checkpoint": "a.pt"}}
    assert config.eval_prompts == "emoji-heldout"  # what the generator's plugin recommends lies beneath
    assert (config.reward_scale, config.pull) == ("auto", 0.5)
    by_hand = with_recommended(gather({"recipe": "small", "reward_scale": 3.0}, []))
    assert by_hand.reward_scale == 3.0 and by_hand.alpha_rew == 3.0
    assert with_recommended(gather({"recipe": "small"}, ["pull=0.2"])).pull == 0.2
    assert with_recommended(make_config({"recipe": "small", "guidance": 1.5})).guidance == 1.5
    file.write_text("recipe: small\nsteps: 4\n", encoding="utf-8")
    assert with_recommended(gather({}, [], file)).guidance == 3.0


def test_a_recipe_says_what_is_trained(prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    fallback = {"generator": "emoji-onestep"}
    config = gather({"recipe": "diff-instruct-sd15"}, [], None, None, fallback)
    assert with_recommended(config).generator is None and with_recommended(config).reference == "sd15"
    assert main(["distill", "--recipe", "dipp-sdxl", "--prompts", prompts, "--dry-run"]) == 2
    assert "takes no rewards, and was given imagereward. Use dipp train." in capsys.readouterr().err
    words = ["distill", "--recipe", "dipp-sdxl", "--set", "rewards=", "--prompts", prompts, "--dry-run", "--json"]
    assert main(words) == 0, "no rewards were asked for, whatever the recipe has"
    assert json.loads(capsys.readouterr().out)["rewards"] == "none: distillation alone"
    for command in ("distill", "train"):
        assert main([command, "--recipe", "dmd2-sd15", "--prompts", prompts, "--dry-run", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert rows["reference"] == "sd15" and rows["rewards"] == "none: distillation alone"
        assert rows["recipe"].startswith("dmd2-sd15: DMD2's baseline")


def test_a_run_knows_its_recipe_and_goes_on_without_it(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_options = SMALL.replace(", reward_options: {hps: {version: v2.0}}", "")
    small(without_options)
    out = tmp_path / "run"
    begun = resolve(gather({"recipe": "small", "out": out}, []))
    RunFolder(out).create(begun)
    assert "recipe: small" in RunFolder(out).config.read_text(encoding="utf-8")
    small(without_options.replace("steps: 7", "steps: 70").replace("guidance: 3.0", "guidance: 4.0"))
    for flags in ({"out": out}, {"out": out, "recipe": "small"}):
        again = resolve(gather(flags, [], None, "auto"))
        assert (again.steps, again.guidance, again.recipe) == (7, 3.0, "small")
        RunFolder(out).check_resumable(again)
    with pytest.raises(RequestError, match="was not started with the recipe other"):
        gather({"out": out, "recipe": "other"}, [], None, "auto")
    with pytest.raises(CheckpointError, match="recipe was small and is other"):
        RunFolder(out).check_resumable(again.model_copy(update={"recipe": "other"}))
    with pytest.raises(RequestError, match="the recipe would change nothing"):
        gather({"recipe": "small"}, ["recipe=small"], RunFolder(_without_recipe(out, tmp_path)).config)
    monkeypatch.setitem(get_registry().entries, "recipe", {})  # the plugin that brought it is gone
    assert resolve(gather({"out": out}, [], None, "always")).guidance == 3.0
    assert recipe_text(again) == "small"


def _without_recipe(run: Path, folder: Path) -> Path:
    """A copy of a run's settings that were not begun with a recipe."""
    text = (run / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(text.replace("recipe: small\n", "recipe: null\n"), encoding="utf-8")
    return folder


def test_the_report_and_the_model_card_name_it_with_its_source(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", settings={"recipe": "dipp-sdxl"}))
    told = dict(facts_of(run))["recipe"]
    assert told.startswith("dipp-sdxl: Diff-Instruct++") and "Table 3" in told and "arXiv 2410.18881" in told
    final = tmp_path / "final"
    DiffusersGenerator.load(str(write_twin("StableDiffusionPipeline", tmp_path / "twin"))).save_pretrained(final)
    settings = make_config({"recipe": "dipp-sdxl", "generator": "sdxl-dmd2", "reference": "sdxl"})
    assert f"\n\nStarted from the recipe {told}; what differs" in card_text(final, settings, {})
    plain = read_run(write_run(tmp_path / "plain"))
    assert "recipe" not in dict(facts_of(plain))
    assert "recipe" not in card_text(final, settings.model_copy(update={"recipe": None}), {})
    unbegun = replace(plain, summary={**plain.summary, "steps": 0})
    assert dict(facts_of(unbegun))["training"].startswith("0 steps of ")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps: 7", "stepps: 7", "there is no setting 'stepps'. Did you mean 'steps'?"),
        ("steps: 7", "guidance: 2", "the setting guidance appears twice"),
        ("steps: 7", "out: runs/a", "out belongs to one run or one machine"),
        ("steps: 7", "steps: -7", "steps"),
        ("    because: a test\n", "", "values that are 'ours' need a reason"),
        ("source: [arXiv 0000.00000]", "source: []", "source: "),
        ("pull: 0.5", "pull: 0", "pull"),
        ("reproduces: nothing", "reproduce: nothing", "reproduces: "),
    ],
)
def test_a_mistake_in_a_recipe_is_a_sentence(old: str, new: str, said: str) -> None:
    assert old in SMALL
    with pytest.raises(RequestError) as error:
        parse_recipe(yaml.safe_load(SMALL.replace(old, new)))
    assert said in str(error.value)


def test_a_plugin_brings_recipes_and_a_broken_one_hurts_nobody(
    small: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small()
    (path.parent / "broken.yaml").write_text("title: Broken\nsettings: 3\n", encoding="utf-8")
    small()
    assert find_recipe("small").values["steps"] == 7
    with pytest.raises(PluginError, match=r"broken\.yaml cannot be used\. .*source"):
        find_recipe("broken")
    assert main(["recipes"]) == 0
    said = capsys.readouterr()
    assert "Small" in said.out and "broken.yaml cannot be used" in said.err
    with pytest.raises(PluginError, match="expected its title"):
        untitled = tmp_path / "untitled.yaml"
        untitled.write_text("source: [a]\n", encoding="utf-8")
        _ = RecipeFile(untitled).title


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_fits_one_gpu_of_80_gb_by_its_plan(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--recipe", name, "--memory", "80GB", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] and plan["changes"] == {} and plan["seconds"]["A100"] is not None
