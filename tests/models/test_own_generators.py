"""A generator of somebody's own: trained, and then drawn from, benched, resumed and trained on from, by name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_cli.app import main
from dipp_toolkit import load_generator, load_prompts, load_reference
from dipp_toolkit.config import make_config
from dipp_toolkit.errors import PluginError, RequestError
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.models.files.saved_generators import note_generator, reference_beside, split_saved
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.monitoring.interval import EVERY, SMALL
from dipp_toolkit.protocols import texts
from dipp_toolkit.registry import Entry, get_registry
from dipp_toolkit.rewards.code_digests import code_digest
from dipp_toolkit.training.setup.resolve import resolve, with_recommended
from dipp_toolkit.utils.imports import load_python_name
from tiny import PROMPTS, tiny_pipeline

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "writing-a-plugin.md"
TINY = "./tiny.py:Tiny"
QUICK = ["--batch-size", "4", "--set", "eval_count=2", "--set", "reference_steps=1", "--device", "cpu", "--quiet"]
TRAIN = [
    "train",
    "--reference",
    "emoji-reference",
    "--prompts",
    "./mine.py:PROMPTS",
    "--reward",
    "colourfulness",
    *QUICK,
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the example of the page, `mine.py`, and `runs/tiny`, trained for two steps; the working folder."""
    folder, before, cache = tmp_path_factory.mktemp("own"), Path.cwd(), os.environ.get("DIPP_CACHE")
    (block,) = re.findall(r"```python\n(# tiny\.py\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (folder / "tiny.py").write_text(block, encoding="utf-8")
    mute = block.replace("load_pretrained", "load_another_way").replace("class Tiny", "class Mute")
    (folder / "mute.py").write_text(mute.replace("-> Tiny", "-> Mute"), encoding="utf-8")
    (folder / "mine.py").write_text(
        'PROMPTS = ["fox on blue", "cake on yellow"]\n'
        "def reference():\n"
        "    from dipp_toolkit import load_reference\n"
        '    return load_reference("emoji-reference")\n'
        "class NoGenerator:\n"
        "    latent_shape = (4, 32, 32)\n",
        encoding="utf-8",
    )
    os.chdir(folder)
    os.environ["DIPP_CACHE"] = str(folder / "cache")
    try:
        assert main([*TRAIN, "--generator", TINY, "--steps", "2", "--out", "runs/tiny"]) == 0
        yield folder
    finally:
        os.chdir(before)
        os.environ.pop("DIPP_CACHE") if cache is None else os.environ.update(DIPP_CACHE=cache)


def test_the_run_says_how_its_generator_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((place / "runs/tiny/summary.json").read_text())
    assert summary["final"] == f"the generator, for --generator {TINY}@runs/tiny"
    assert not any("load" in warning for warning in summary["warnings"])
    assert json.loads((place / "runs/tiny/final/generator.json").read_text()) == {
        "generator": TINY, "reference": "emoji-reference", "options": {},
    }  # fmt: skip


def test_what_was_saved_is_loaded_again(place: Path) -> None:
    torch.manual_seed(5)
    fresh, trained, again = (load_generator(name) for name in (TINY, f"{TINY}@runs/tiny", f"{TINY}@runs/tiny/final"))
    states = [item.network.state_dict() for item in (fresh, trained, again)]
    assert all(torch.equal(states[1][name], states[2][name]) for name in states[1])
    assert not any(torch.equal(states[0][name], states[1][name]) for name in ("inward.weight", "text.weight"))


def test_it_is_drawn_from_and_benched(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{TINY}@runs/tiny"
    assert main(["generate", "--generator", name, "--prompt", "fox on blue", "--out", "fox", "--device", "cpu"]) == 0
    assert len(list(Path("fox").glob("*.png"))) >= 1
    words = ["bench", "--generators", name, "--prompts", "./mine.py:PROMPTS", "--rewards", "colourfulness"]
    capsys.readouterr()
    assert main([*words, "--out", "bench", "--device", "cpu", "--quiet", "--seeds", "2"]) == 0
    (row,) = [json.loads(line) for line in Path("bench/results.jsonl").read_text().split("\n") if line]
    assert (row["subject"]["label"], row["protocol"]["count"]) == ("tiny", 2)
    assert row["subject"]["trained_on"] == ["colourfulness"]


def test_it_is_resumed_and_trained_on(place: Path) -> None:
    assert main([*TRAIN, "--generator", f"{TINY}@runs/tiny", "--steps", "1", "--out", "runs/on"]) == 0
    assert json.loads(Path("runs/on/final/generator.json").read_text())["generator"] == TINY
    assert main(["train", "--resume", "--out", "runs/on", "--steps", "2", "--quiet"]) == 0
    assert json.loads(Path("runs/on/summary.json").read_text())["steps"] == 2


def test_settings_of_the_run_carry_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_recommended(make_config({"generator": f"{TINY}@runs/tiny", "prompts": "./mine.py:PROMPTS"}))
    assert config.reference == "emoji-reference"
    # The prompts are code, and the folder of a generator names none.
    with pytest.raises(
        RequestError,
        match=r"names \./mine\.py:PROMPTS as its prompts, and code or addresses named in a generator's folder are not",
    ):
        with_recommended(make_config({"generator": f"{TINY}@runs/tiny"}))


@pytest.mark.parametrize("field", ["judge", "reference", "eval_prompts"])
@pytest.mark.parametrize("name", ["./evil.py:f", "evil:f", "http://evil.example/f", "hps@isolated"])
def test_a_strangers_run_folder_names_no_code(tmp_path: Path, field: str, name: str) -> None:
    folder = tiny_pipeline(tmp_path / "run" / "final").parent
    (folder / "config.yaml").write_text(f"reference: emoji-reference\nprompts: emoji-train\n{field}: {name}\n")
    with pytest.raises(
        RequestError, match=f"as its {field}, and code or addresses named in a generator's folder are not used"
    ):
        with_recommended(make_config({"generator": str(folder)}))
    assert getattr(with_recommended(make_config({"generator": str(folder), field: None})), field) is None
    assert getattr(with_recommended(make_config({"generator": str(folder), field: name})), field) == name


def test_a_folder_names_no_code(place: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Tiny: ...\n")
    (tmp_path / "final").mkdir()
    for name in (f"{evil}:Tiny", "evil:Tiny"):
        about = {"generator": name, "reference": name}
        (tmp_path / "final" / "generator.json").write_text(json.dumps(about))
        with pytest.raises(
            RequestError, match=r"code that a folder names is never run\. If that file is yours, say so"
        ):
            load_generator(str(tmp_path))
        with pytest.raises(RequestError, match=r"the reference .*evil.*, and code that a folder names"):
            reference_beside(str(tmp_path))
    (tmp_path / "final" / "generator.json").write_text('{"generator": "nobody"}')
    with pytest.raises(RequestError, match=r"'nobody', which no installed plugin has\. Install the plugin"):
        load_generator(str(tmp_path))
    (tmp_path / "final" / "generator.json").write_text('{"generator": 3}')
    with pytest.raises(RequestError, match=r"does not name a generator; expected a text, got 3"):
        load_generator(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_without_a_counterpart_the_run_says_what_it_left(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--generator", "./mute.py:Mute", "--steps", "1", "--out", "runs/mute"]) == 0
    printed = capsys.readouterr().out
    assert "what ./mute.py:Mute saved; it cannot be loaded again yet" in printed
    sentence = "'./mute.py:Mute' has no load_pretrained(folder) to load it again. Its run can be resumed"
    assert sentence in printed
    assert any(sentence in warning for warning in json.loads(Path("runs/mute/summary.json").read_text())["warnings"])
    assert main(["generate", "--generator", "./mute.py:Mute@runs/mute", "--prompt", "fox", "--out", "x"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_registered_generator_is_found_from_its_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factory, defaults = load_python_name(TINY, "generator"), {"reference": "emoji-reference"}
    entry = Entry("generator", "tiny", factory, "", (), "plugin", defaults)
    monkeypatch.setitem(get_registry().entries["generator"], "tiny", entry)
    final = place / "runs" / "registered" / "final"
    load_generator("tiny").save_pretrained(final)
    said = note_generator(final, "tiny", "", {})
    assert (said.text, said.problem) == (f"the generator, for --generator {final.parent}", "")
    for name in (str(final), str(final.parent), f"tiny@{final.parent}"):
        assert type(load_generator(name)) is factory
        assert reference_beside(name) == "emoji-reference"
    assert note_generator(final, str(final.parent), "", {}) == said


def test_names_with_folders(place: Path) -> None:
    assert split_saved(f"{TINY}@runs/tiny") == (TINY, "runs/tiny")
    assert split_saved("package.module:Name@a@b") == ("package.module:Name", "a@b")
    assert split_saved("/home/u@h/tiny.py:Tiny@x") == ("/home/u@h/tiny.py:Tiny", "x")
    assert split_saved("emoji-onestep@x") == ("emoji-onestep", "x")
    assert split_saved("some@body/folder") == ("some@body/folder", None)
    (one,) = parse_entries(TINY, {})
    assert one.label == "Tiny"
    with pytest.raises(RequestError, match=r"Name the reference of 'Tiny' with --set generator\.Tiny\.reference"):
        one.source(torch.device("cpu"))
    with pytest.raises(RequestError, match=r"There is no saved generator in .*nowhere"):
        load_generator(f"{TINY}@nowhere")


def test_a_class_that_is_no_generator_is_refused_before_the_training(place: Path) -> None:
    with pytest.raises(PluginError, match="is a NoGenerator without network, generate, save_pretrained"):
        load_generator("./mine.py:NoGenerator")
    with pytest.raises(PluginError, match="is a NoGenerator without denoiser, encode, null, decode, sample, to"):
        load_reference("./mine.py:NoGenerator")


def test_a_reference_and_prompts_of_a_file(place: Path) -> None:
    assert load_reference("./mine.py:reference").latent_shape == (4, 32, 32)
    assert list(texts(load_prompts("./mine.py:PROMPTS?count=1&seed=3"))) in (["fox on blue"], ["cake on yellow"])
    Path("sets.py").write_text(
        "from dipp_toolkit.protocols import Prompt\n"
        "class Two:\n    name = 'two'\n    prompts = [Prompt('a', 'x', 'animals'), Prompt('b', 'y')]\n"
        "def made(count=3): return [str(k) for k in range(count)]\n"
        "EMPTY = ['']\nNUMBER = 3\n"
    )
    assert load_prompts("./sets.py:Two").name == "two"
    assert [prompt.id for prompt in load_prompts("./sets.py:Two?category=animals").prompts] == ["x"]
    assert [prompt.id for prompt in load_prompts("./sets.py:made", count=None).prompts] == ["1", "2", "3"]
    for name in ("EMPTY", "NUMBER"):
        with pytest.raises(PluginError, match="expected a list of texts, none of them empty"):
            load_prompts(f"./sets.py:{name}")
    config = resolve(make_config({"generator": TINY, "reference": "./mine.py:reference", "prompts": "./sets.py:Two"}))
    assert config.reference == "./mine.py:reference"


def test_a_plan_says_what_it_needs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--generator", TINY, "--reference", "emoji-reference"]) == 2
    assert "dipp_register_blueprints" in capsys.readouterr().err


def test_monitors_and_diagnostics_are_on_for_ones_own(place: Path, tmp_path: Path) -> None:
    def looks(**settings: Any) -> tuple[int, int]:
        config = with_recommended(make_config(settings))
        return config.monitor_every, config.diagnose_every

    assert looks(generator=TINY, reference="emoji-reference") == (EVERY, EVERY)
    assert looks(generator=TINY, reference="pixart-alpha") == (0, 0)
    assert looks(generator="pixart-onestep") == (0, 0)
    assert looks(generator="somebody/published", reference="somebody/published") == (0, 0)
    assert looks(generator=TINY, reference="emoji-reference", monitor_every=7) == (7, EVERY)
    folder = tiny_pipeline(tmp_path / "pipeline")
    assert looks(generator=str(folder), reference=f"diffusers:{folder}") == (EVERY, EVERY)
    assert looks(reference=str(folder)) == (EVERY, EVERY)
    with (folder / "transformer" / "diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.truncate(SMALL + 1)
    assert looks(generator=str(folder), reference=str(folder)) == (0, 0)


def test_a_run_without_rewards_is_watched(tmp_path: Path) -> None:
    """A distillation has no reward to watch, and one prompt no spread."""
    folder, prompts = tiny_pipeline(tmp_path / "pipeline"), tmp_path / "p.txt"
    for count, name in ((len(PROMPTS), "many"), (1, "one")):
        prompts.write_text("\n".join(PROMPTS[:count]))
        words = ["distill", "--reference", str(folder), "--prompts", str(prompts), "--steps", "2", *QUICK]
        words += ["--set", "monitor_every=1", "--set", "diagnose_every=1", "--out", str(tmp_path / name)]
        assert main(words) == 0
        assert len((tmp_path / name / "monitors.jsonl").read_text().splitlines()) == 3
        assert len((tmp_path / name / "diagnostics.jsonl").read_text().splitlines()) == 3


def test_code_of_ones_own_is_part_of_what_made_an_image(place: Path) -> None:
    before = code_digest(load_generator(TINY))
    text = Path("tiny.py").read_text()
    try:
        Path("tiny.py").write_text(text.replace("silu(", "1.5 * silu("))
        assert code_digest(load_generator(TINY)) != before != ""
    finally:
        Path("tiny.py").write_text(text)
    assert code_digest(load_generator("emoji-onestep")) == ""
    assert DiffusersGenerator.__module__.startswith("dipp_toolkit")
