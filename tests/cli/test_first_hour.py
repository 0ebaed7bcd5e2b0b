"""What a newcomer mistypes, on every command: one plain sentence that says what was wrong, and nothing is written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image

from dipp_cli.app import main
from dipp_toolkit.models.loading import load_prompt_encoder
from dipp_toolkit.models.text_encoders import PromptEncoder

BENCH = "bench --generators emoji-onestep --prompts captions.txt --reward ./mine.py:blue"
SCORE = "score a.png --reward ./mine.py:blue --prompt x"
VARY = "ablate --vary steps=1,2"

REFUSED = {
    # Values of the wrong type, and numbers out of range.
    "train --steps many": "Invalid value for '--steps': 'many' is not an integer. Run dipp train --help",
    "train --steps=2.5": "'2.5' is not an integer.",
    "train --steps -5": "The setting steps cannot be -5",
    "train --set steps=many": "The setting steps cannot be 'many': expected a whole number.",
    "train --set learning_rate=fast": "The setting learning_rate cannot be 'fast': expected a number.",
    "train --set compile=perhaps": "The setting compile cannot be 'perhaps'",
    "train --set time_range=a,b": "The setting time_range cannot be 'a': expected a number.",
    "train --track tensorbord": "The setting trackers cannot be 'tensorbord'",
    "train --guidance strong": "'strong' is not a number.",
    "train --guidance -1": "The setting guidance cannot be -1.0",
    "train --reward-scale -1": "The setting reward_scale cannot be -1.0",
    "train --floor emoji-clip": "The floor of the reward 'emoji-clip' has no level; expected a number",
    "train --reward-resolution -3": "The setting reward_resolution cannot be -3",
    "train --push-to-hub x": "expected owner/name",
    "train --term=": "Name a term of the objective",
    "distill --batch-size 0": "The setting batch_size cannot be 0",
    "generate --prompt x --seed -1": "--seed is -1; expected a number from 0",
    "generate --prompt x --steps 4": "in one step, not in 4",
    "generate --prompts captions.txt --count 0": "--count is 0; expected at least 1.",
    f"{BENCH} --seeds 0": "--seeds is 0; expected at least 1.",
    f"{BENCH} --count -3": "--count is -3; expected at least 1.",
    f"{BENCH} --batch-size 0": "The batch size is 0; expected at least 1.",
    f"{BENCH} --pictures -1": "--pictures is -1; expected 0 or more.",
    f"{BENCH} --set foo=3": "--set foo=3 cannot be used here; expected reward.NAME.OPTION=VALUE",
    f"{SCORE} --batch-size 0": "--batch-size is 0; expected at least 1.",
    f"{SCORE} --seed -1": "--seed is -1; expected a number from 0",
    f"{SCORE} --set foo=3": "--set foo is not an option of a reward",
    f"{VARY} --noises 0": "--noises is 0; expected at least 1.",
    f"{VARY} --seeds 0": "--seeds is 0; expected at least 1.",
    f"{VARY} --subject-to emoji-clip": "is not a constraint; expected FIGURE<=NUMBER or FIGURE>=NUMBER.",
    "ablate --vary steps=1,many": "The setting steps cannot be 'many': expected a whole number.",
    "ablate --vary steps": "expected NAME=VALUE,VALUE",
    "ablate --vary stesp=1,2": "There is no setting 'stesp'. Did you mean 'steps'?",
    "ablate --vary out=1,2": "The setting out cannot vary: every cell has a folder of its own.",
    "plan --batch -1": "The setting batch_size cannot be -1",
    "plan --memory lots": "--memory lots is not an amount of memory; expected a number with a unit, as in 24GB.",
    "plan --sharding ddp": "--sharding ddp is unknown; expected none or fsdp.",
    "reward check ./mine.py:blue --size 0": "--size is 0; expected at least 16.",
    "reward serve ./mine.py:blue --port x": "'x' is not an integer. Run dipp reward serve --help",
    "reward serve ./mine.py:blue --max-images 0": "--max-images is 0; expected a number above 0.",
    "reward serve ./mine.py:blue --timeout -1": "--timeout is -1; expected a number above 0.",
    "prompts encode --reference emoji-reference --prompts captions.txt --chunk 0": "--chunk is 0; expected at least 1.",
    "verify --seed -1 --case linear": "The setting seed cannot be -1",
    # Nothing where something is needed.
    "train --steps": "Option '--steps' requires an argument. Run dipp train --help",
    "reward check blue --set": "Option '--set' requires an argument. Run dipp reward check --help",
    "ablate": "Name what varies: either --vary NAME=VALUE,... or a list with --cells FILE.",
    "generate": "Give the prompts: either --prompt TEXT",
    "generate --prompt=": "A --prompt is empty",
    "bench": "Missing option '--generators'",
    "leaderboard": "Name files of rows, as dipp bench writes them, or votes with --votes FOLDER",
    "leaderboard --check": "Name the files to check: those of dipp bench, or one that --submission wrote.",
    "leaderboard empty.jsonl --reward ./mine.py:blue": "Rewards are held against votes: give them with --votes FOLDER.",
    "leaderboard --votes folder --batch-size 0": "--batch-size is 0; expected at least 1.",
    "leaderboard --votes folder --set reward.x.y=1": "none is named: name them with --reward NAME.",
    "leaderboard --votes folder --sort hps": "--sort is for rows of dipp bench: name their files before --votes.",
    "leaderboard --votes folder": "expected votes of dipp vote, or preference data",
    "leaderboard --votes folder --reward emoji-clp": "There is no reward named 'emoji-clp'. Did you mean 'emoji-clip'?",
    "leaderboard --votes nowhere": "There is no folder nowhere.",
    "score": "Missing argument 'FOLDER|IMAGE...'",
    "score a.png --reward=": "No reward is named",
    "score a.png --reward ./mine.py:blue": "There are no prompts for the images: give them with --prompts FILE",
    "reward check": "Missing argument",
    "reward serve ''": "Name the rewards to serve",
    "train --resume": "Name the run folder to resume with --out.",
    # Empty files.
    "train --config empty.yaml": "The settings file empty.yaml is empty; expected names with values",
    "train --prompts empty.txt": "The prompt file empty.txt holds no prompt",
    "train --reward ./empty.py:blue": "The file empty.py defines no 'blue'. It defines no function.",
    "train --reward ./empty.py": "The reward file empty.py defines no function and no class",
    "ablate --cells empty.yaml": "empty.yaml is not a list of cells",
    "leaderboard empty.jsonl": "There are no measured rows to show",
    "score empty.png --reward ./mine.py:blue --prompt x": "The image empty.png is empty.",
    "score folder --reward ./mine.py:blue --prompt x": "The folder folder contains no images.",
    # A folder for a file, a file for a folder, a file of another kind.
    "train --config folder": "Cannot read the settings file folder: Is a directory.",
    "train --prompts folder": "Cannot read the prompt file folder: it is a folder.",
    "train --reward ./folder": "There is no reward named './folder'",
    "train --generator captions.txt": "There is no pipeline folder captions.txt: it is a file.",
    "train --out captions.txt": "captions.txt is a file",
    "ablate --cells folder": "Cannot read the file of cells folder: Is a directory.",
    "ablate --cells captions.txt": "captions.txt is not a list of cells",
    f"{VARY} --out captions.txt": "The ablation's folder captions.txt cannot be made: captions.txt is a file.",
    f"{VARY} --out captions.txt/x": "The ablation's folder captions.txt/x cannot be made: captions.txt is a file.",
    f"{BENCH} --out captions.txt/x": "The bench's folder captions.txt/x cannot be made: captions.txt is a file.",
    f"{BENCH} --images captions.txt": "The image store captions.txt cannot be made: captions.txt is a file.",
    "generate --prompt x --out captions.txt": "Cannot write to captions.txt: captions.txt is a file.",
    "leaderboard captions.txt": "captions.txt, line 1, is not valid JSON",
    "leaderboard a.png": "are not UTF-8 text; expected what dipp bench writes.",
    "score captions.txt --reward ./mine.py:blue --prompt x": "The file captions.txt is not a readable image.",
    f"{SCORE} --out folder": "Cannot write the scores to folder: it is a folder.",
    f"{SCORE} --out nowhere/scores.jsonl": "there is no folder nowhere.",
    "reward serve ./mine.py:blue --token-file folder": "Cannot read the token file folder: Is a directory.",
    "reward install folder": "There is no environment named 'folder'.",
    "reward install nowhere.txt": "There is no requirements file nowhere.txt.",
    # Names that are measured only after hours.
    f"{VARY} --best emoji-juge": "There is no figure named 'emoji-juge'. Did you mean 'emoji-judge'?",
    f"{VARY} --subject-to 'diversty>=1'": "There is no figure named 'diversty'. Did you mean 'diversity'?",
    # Words that are none.
    "trian": "No such command 'trian'. Did you mean 'train'?",
    "reward chekc": "No such command 'chekc'. Did you mean 'check'?",
    "train emoji-onestep": "Got unexpected extra argument(s) (emoji-onestep). Run dipp train --help",
    "verify --case linaer": "There is no verification case named 'linaer'. Did you mean 'linear'?",
    "reward install image-rewrd": "Did you mean 'image-reward'?",
}


@pytest.fixture(autouse=True)
def _in_a_folder_with_files_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for name in ("empty.txt", "empty.yaml", "empty.jsonl", "empty.py", "empty.png"):
        Path(name).touch()
    Path("captions.txt").write_text("a cat\n")
    Path("mine.py").write_text("def blue(images, prompts):\n    return images[:, 2].mean((1, 2))\n")
    Image.new("RGB", (8, 8)).save("a.png")


@pytest.mark.parametrize(("line", "sentence"), REFUSED.items(), ids=REFUSED)
def test_it_is_refused_in_a_plain_sentence(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in Path().rglob("*") if "__pycache__" not in path.parts)
    assert main(shlex.split(line)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (said,) = printed.err.splitlines()
    assert said.startswith("Error: ")
    assert sentence in said
    for word in ("Traceback", "Errno", "NoneType", "Input should be a valid", "unable to parse", "<class", "--debug"):
        assert word not in said
    assert sorted(path for path in Path().rglob("*") if "__pycache__" not in path.parts) == before


def test_a_figure_that_will_be_measured_is_no_reason_to_refuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metrics' own figures, one of a network's parameters, a reward that is only measured: the training begins."""

    class BegunError(Exception):
        pass

    def train_cells(*arguments: object) -> None:
        raise BegunError

    monkeypatch.setattr("dipp_toolkit.experiments.ablation.run.train_cells", train_cells)
    for figure in ("saturation", "parameters-transformer", "emoji-judge", "emoji-clip", "sharpness"):
        assert main(["ablate", "--vary", "steps=1,2", "--measure", "sharpness", "--best", figure]) == 1
        assert "BegunError" in capsys.readouterr().err


def test_the_encoders_of_a_reference_that_comes_with_its_plugin_are_found() -> None:
    assert isinstance(load_prompt_encoder("emoji-reference"), PromptEncoder)
