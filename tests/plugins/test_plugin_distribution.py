"""Plugins as users install them: distributions with an entry point, one good and one broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny import PROMPTS, tiny_pipeline

SOURCES = Path(__file__).parent / "distributions"

LIST = """
import json, sys
from dipp_toolkit.registry import get_registry
registry = get_registry()
print(json.dumps({
    "rewards": {name: entry.plugin for name, entry in registry.entries["reward"].items()},
    "pipelines": list(registry.entries["pipeline"]),
    "broken": {one.name: one.reason for one in registry.broken},
    "torch": "torch" in sys.modules,
}))
"""

TRAIN = """
import json, sys
from pathlib import Path
from dipp_toolkit import TrainConfig, train
import dipp_warmth
pipeline, prompts, out = map(Path, sys.argv[1:])
config = TrainConfig(
    reference=str(pipeline), prompts=str(prompts), out=out, device="cpu",
    rewards={"warmth": 1.0}, reward_options={"warmth": {"strength": 2.0}},
    steps=3, batch_size=4, learning_rate=1e-3, eval_count=4, reference_steps=2,
)
result = train(config)
print(json.dumps({"heard": dipp_warmth.steps_heard, "rewards": result.summary["rewards"]}))
"""

OLD_PATHS = """
import json, sys, warnings
from pathlib import Path
pipeline, out = map(Path, sys.argv[1:])
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always", DeprecationWarning)
    from dipp_toolkit.registry import get_registry
    registry = get_registry()
    light = "torch" not in sys.modules
    entries = [entry for of_kind in registry.entries.values() for entry in of_kind.values() if entry.plugin == "ember"]
    for entry in entries:
        entry.attribute
    from dipp_toolkit import Generator, Reference, TrainConfig, train
    entry_of = {entry.kind: entry for entry in entries}
    known = [isinstance(entry_of[kind].build(folder=str(pipeline)), role)
             for kind, role in (("generator", Generator), ("reference", Reference))]
    config = TrainConfig(
        generator=str(pipeline), reference=str(pipeline), prompts="ember-prompts", out=out, device="cpu",
        rewards={"ember": 1.0}, term="ember-distillation",
        steps=2, batch_size=2, eval_count=2, reference_steps=1,
    )
    result = train(config)
print(json.dumps({
    "kinds": [entry.kind for entry in entries], "torch": not light, "known": known,
    "broken": [one.name for one in registry.broken], "rewards": result.summary["rewards"],
    "heard": [str(one.message) for one in heard if one.category is DeprecationWarning],
}))
"""

PLUGINS = """
import json, subprocess, sys
command = [sys.executable, "-m", "dipp_cli", "plugins", "--json"]
print(json.dumps(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder both distributions are installed into; the environment that runs the tests stays as it is."""
    root = tmp_path_factory.mktemp("distributions")
    sources = [Path(shutil.copytree(SOURCES / name, root / name)) for name in ("good", "broken", "old_paths")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--target", str(root / "site"), *map(str, sources)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return root / "site"


def run(code: str, site: Path | None, *arguments: str) -> Any:
    """The JSON that a fresh interpreter prints last, with `site` on its path."""
    root = Path(__file__).parents[2]
    path = [str(item) for item in (site, root, root / "plugins", root / "cli") if item is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_an_installed_plugin_is_found_and_a_broken_one_is_named(site: Path) -> None:
    without, found = run(LIST, None), run(LIST, site)
    assert "warmth" not in without["rewards"]
    assert found["rewards"] == {**without["rewards"], "warmth": "warmth", "ember": "ember"}
    assert sorted(found["pipelines"]) == sorted([*without["pipelines"], "EmberPipeline"])
    new = {name: reason for name, reason in found["broken"].items() if name not in without["broken"]}
    assert new.keys() == {"shattered", "half-made"}
    for name, words, line in (
        ("shattered", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'", "line 3: import a_package"),
        ("half-made", "RuntimeError: the second half was never written", "line 11: raise RuntimeError("),
    ):
        assert new[name].startswith(f"{words} ({site}")
        assert line in new[name]
    assert not found["torch"]


@pytest.mark.slow
def test_the_command_line_lists_both(site: Path) -> None:
    listed = run(PLUGINS, site)
    assert "warmth" in [item["name"] for item in listed["reward"]]
    assert {"shattered", "half-made"} <= {item["plugin"] for item in listed["broken"]}


@pytest.mark.exhaustive
@pytest.mark.slow
def test_an_installed_reward_trains_beside_a_broken_plugin(site: Path, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(tmp_path / "pipeline")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
    told = run(TRAIN, site, str(pipeline), str(prompts), str(tmp_path / "run"))
    assert told["heard"] == [1, 2, 3]
    assert set(told["rewards"]) == {"warmth"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all("reward/warmth" in row for row in rows)
    assert (tmp_path / "run" / "final" / "model_index.json").is_file()


@pytest.mark.slow
def test_a_plugin_of_an_earlier_version_loads_and_trains_with_warnings(site: Path, tmp_path: Path) -> None:
    """Its modules import what they use from where it was before dipp_toolkit had rooms."""
    told = run(OLD_PATHS, site, str(tiny_pipeline(tmp_path / "pipeline")), str(tmp_path / "run"))
    assert sorted(told["kinds"]) == sorted(
        ["reward", "term", "metric", "prompts", "environment", "reference", "generator", "pipeline", "blueprint"]
    )
    assert not told["torch"] and "ember" not in told["broken"] and all(told["known"])
    assert set(told["rewards"]) == {"ember"}
    for old, new in (
        ("roles", "protocols"),
        ("condition", "diffusion.condition"),
        ("loading", "models.loading"),
        ("terms.integral_kl", "objective.terms.integral_kl"),
    ):
        named = [f"dipp_toolkit.{module}" for module in (old, new)]
        assert any(all(module in message for module in named) for message in told["heard"]), old
