"""Names that are misspelt or missing: said first, whatever else a request lacks, and before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dipp_cli.app import main
from dipp_toolkit import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.registry import BrokenPlugin, Registry
from dipp_toolkit.training.setup.name_checks import (
    check_folder,
    check_names,
    check_prompts,
    check_rewards,
    may_be_hub_id,
)
from dipp_toolkit.training.setup.resolve import resolve

BENCH = "bench --generators emoji-onestep --prompts emoji-heldout"

MISSPELT = {
    "train --reward emoji-prefrence": "There is no reward named 'emoji-prefrence'. Did you mean 'emoji-preference'?",
    "train --reward emoji-clip,emoji-prefrence=2": "no reward named 'emoji-prefrence'",
    "train --floor emoji-clp=3": "no reward named 'emoji-clp'",
    "train --judge emoji-juge": "no reward named 'emoji-juge'",
    "train --set monitor_rewards=emoji-juge": "no reward named 'emoji-juge'",
    "train --term integral_lk": "There is no term named 'integral_lk'. Did you mean 'integral_kl'?",
    "train --generator emoji-onestp": "There is no generator named 'emoji-onestp'. Did you mean 'emoji-onestep'?",
    "train --prompts emoji-trian": "There is no prompt set named 'emoji-trian'. Did you mean 'emoji-train'?",
    "train --prompts emoji-trian?count=3": "There is no prompt set named 'emoji-trian'.",
    "train --set eval_prompts=emoji-heldot": "no prompt set named 'emoji-heldot'",
    "distill --reference emoji-refrence": "no reference named 'emoji-refrence'",
    "ablate --vary steps=1,2 --reward emoji-clp": "no reward named 'emoji-clp'",
    "ablate --vary steps=1,2 --measure emoji-clp": "no reward named 'emoji-clp'",
    "ablate --vary steps=1,2 --metrics fdi": "no metric named 'fdi'",
    "plan --generator pixart-onestp": "no generator named 'pixart-onestp'",
    "plan --generator pixart-onestep --reward hsp": "no reward named 'hsp'",
    "generate --prompt x --generator emoji-onestp": "no generator named 'emoji-onestp'",
    "generate --reference emoji-refrence": "no reference named 'emoji-refrence'",
    "generate --prompts emoji-heldot": "no prompt set named 'emoji-heldot'",
    "bench --generators emoji-reference,best=emoji-onestp --prompts emoji-heldout":
        "There is no generator or reference named 'emoji-onestp'. Did you mean 'emoji-onestep'?",
    "bench --generators emoji-onestep --prompts emoji-heldot": "no prompt set named 'emoji-heldot'",
    f"{BENCH} --rewards emoji-clp": "no reward named 'emoji-clp'",
    f"{BENCH} --judge emoji-juge": "no reward named 'emoji-juge'",
    f"{BENCH} --metrics fdi": "no metric named 'fdi'",
    "score . --reward emoji-clp": "no reward named 'emoji-clp'",
    "reward check emoji-clp": "no reward named 'emoji-clp'",
    "reward serve emoji-clip,emoji-juge": "no reward named 'emoji-juge'",
    "prompts encode --reference emoji-refrence --prompts emoji-train": "no reference named 'emoji-refrence'",
    "prompts encode --reference emoji-reference --prompts emoji-trian": "no prompt set named 'emoji-trian'",
    "verify --term integral_lk": "no term named 'integral_lk'",
}  # fmt: skip

MISSING = {
    "train --generator ./nowhere --steps 1": "There is no pipeline folder nowhere (looked in {here}).",
    "train --generator nowhere/": "There is no pipeline folder nowhere (looked in {here}).",
    "train --generator diffusers:./nowhere": "There is no pipeline folder nowhere",
    "train --generator runs/second": "folder runs/second (looked in {here}/runs). The runs there: first.",
    "train --generator empty": "empty is not a diffusers pipeline: it has neither model_index.json nor final/model_",
    "distill --reference ./empty": "empty is not a diffusers pipeline",
    "train --generator unfinished":
        "The run in unfinished has no final/ yet. Finish it with: dipp train --resume --out unfinished",
    "train --generator=": "There is no generator named ''.",
    "train --prompts=": "There is no prompt set named ''.",
    "generate --prompts=": "There is no prompt set named ''.",
    "train --generator file.txt": "There is no pipeline folder file.txt: it is a file.",
    "train --generator emoji-onestep --reference ./nowhere": "There is no pipeline folder nowhere",
    "train --reward ./nowhere.py:blue": "no file nowhere.py for the reward './nowhere.py:blue' (looked in {here}).",
    "train --judge ./nowhere.py:blue@mine": "There is no file nowhere.py for the reward",
    "train --term ./nowhere.py:Term": "There is no file nowhere.py for the term",
    "train --prompts nowhere.txt": "Cannot read the prompt file nowhere.txt: No such file (looked in {here}).",
    "train --prompts ./runs": "Cannot read the prompt file runs: it is a folder.",
    "train --set decoder=./nowhere": "There is no decoder folder nowhere",
    "train --config nowhere.yaml": "Cannot read the settings file nowhere.yaml: No such file",
    "train --config runs": "Cannot read the settings file runs: Is a directory",
    "distill --reference ./nowhere": "There is no pipeline folder nowhere",
    "ablate --generator ./nowhere": "There is no pipeline folder nowhere",
    "plan --reference ./nowhere": "There is no pipeline folder nowhere",
    "generate --generator ./nowhere": "There is no pipeline folder nowhere",
    "generate --generator runs/second": "The runs there: first.",
    "generate --reference ./nowhere": "There is no pipeline folder nowhere",
    "generate --prompts ./nowhere.txt": "Cannot read the prompt file nowhere.txt: No such file",
    "bench --generators runs/first,./nowhere --prompts nowhere.txt": "There is no pipeline folder nowhere",
    "bench --generators runs/first --prompts nowhere.txt": "Cannot read the prompt file nowhere.txt: No such file",
    f"{BENCH} --metrics ./nowhere.py:sharp": "There is no file nowhere.py for the metric",
    "score ./nowhere --reward ./nowhere.py:blue": "There is no file nowhere.py for the reward",
    "reward check ./nowhere.py:blue": "There is no file nowhere.py for the reward",
    "reward serve ./nowhere.py:blue": "There is no file nowhere.py for the reward",
    "prompts encode --reference ./nowhere --prompts emoji-train": "There is no pipeline folder nowhere",
    "verify --term ./nowhere.py:Term": "There is no file nowhere.py for the term",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_with_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first" / "final").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "final" / "model_index.json").write_text("{}")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("steps: 3\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs" / "first" / "config.yaml").write_text("steps: 3\n")
    (tmp_path / "file.txt").write_text("a cat\n")


@pytest.mark.parametrize(("words", "sentence"), [*MISSPELT.items(), *MISSING.items()])
def test_a_name_that_is_not_there_is_said_first(
    words: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert sentence.format(here=tmp_path.resolve()) in printed.err
    assert sorted(tmp_path.rglob("*")) == before


def test_none_of_them_waits_for_torch() -> None:
    script = (
        "import json, sys; from dipp_cli.app import main;"
        "loaded = [words for words in json.load(sys.stdin)"
        "          if main(words.split()) != 2 or {'torch', 'numpy', 'diffusers'} & set(sys.modules)];"
        "print(json.dumps(loaded))"
    )
    asked = json.dumps([*MISSPELT, *MISSING])
    done = subprocess.run([sys.executable, "-c", script], input=asked, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_what_is_there_passes() -> None:
    check_names(
        TrainConfig(
            generator="runs/first",
            reference="somebody/a-model",
            rewards={"emoji-clip": 1, "http://10.0.0.1:8700/hps": 1, "unheard-of@mine": 1},
            prompts="file.txt?count=1",
            eval_prompts="emoji-heldout?count=3",
            decoder="madebyollin/taesd",
        )
    )


def test_what_a_run_recommends_is_looked_for_as_well() -> None:
    Path("runs/first/config.yaml").write_text("reference: ./moved-away\nprompts: emoji-train\n")
    with pytest.raises(RequestError, match="no pipeline folder moved-away"):
        resolve(TrainConfig(generator="runs/first"))


@pytest.mark.parametrize(
    ("name", "answer"),
    [("owner/name", True), ("runs/", False), ("/name", False), ("./name", False), ("~/name", False), ("a/b/c", False)],
)
def test_a_hub_id_has_an_owner_and_a_name(name: str, answer: bool) -> None:
    assert may_be_hub_id(name) is answer


def test_a_hub_id_whose_owner_is_a_folder_of_no_runs_is_still_one() -> None:
    Path("owner/other-model").mkdir(parents=True)
    check_folder("owner/name")


def test_a_file_that_may_not_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(RequestError, match=r"Cannot read the prompt file file.txt: it may not be read\."):
        check_prompts("file.txt")


def test_an_unknown_name_tells_of_the_broken_plugin_that_may_have_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.broken.append(BrokenPlugin("my-rewards", "ModuleNotFoundError: No module named 'somewhere'"))
    monkeypatch.setattr("dipp_toolkit.training.setup.name_checks.get_registry", lambda: registry)
    with pytest.raises(RequestError) as raised:
        check_rewards(["mine"])
    assert str(raised.value) == (
        "There is no reward named 'mine'. No reward is installed. The plugin 'my-rewards' is broken and was skipped: "
        "ModuleNotFoundError: No module named 'somewhere'."
    )
