"""What the command line says to requests it cannot fulfil: one sentence, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dipp_cli.app import main
from dipp_toolkit.diffusion.predictions import Prediction
from dipp_toolkit.errors import Interrupted, RunError
from tiny import PROMPTS, tiny_pipeline

WRONG, FAILED, INTERRUPTED = 2, 1, 130


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pipeline, prompts, and rewards good and bad."""
    folder = tmp_path_factory.mktemp("world")
    tiny_pipeline(folder / "tiny")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    (folder / "empty.txt").write_text("\n# nothing\n\n")
    (folder / "binary.txt").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    (folder / "nul.txt").write_bytes(b"a cat\x00\x01\x02")
    (folder / "good.py").write_text("def blue(images, prompts):\n    return images[:, 2].mean((1, 2))\n")
    (folder / "syntax.py").write_text("def blue(images, prompts)\n    return 1\n")
    (folder / "raises.py").write_text("import no_such_package_at_all\n\ndef blue(images, prompts):\n    return 1\n")
    (folder / "signature.py").write_text("def blue(images):\n    return images.mean((1, 2, 3))\n")
    (folder / "number.py").write_text("blue = 3\n")
    (folder / "shape.py").write_text(
        "class blue:\n    differentiable = True\n\n"
        "    def __call__(self, images, prompts):\n        return images.mean()\n"
    )
    (folder / "constant.py").write_text(
        "import torch\n\ndef blue(images, prompts):\n    return torch.zeros(len(images))\n"
    )
    (folder / "stops.py").write_text("raise KeyboardInterrupt\n")
    (folder / "damaged.yaml").write_text("steps: [1, 2\n")
    (folder / "list.yaml").write_text("- steps\n")
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def small(world: Path) -> list[str]:
    """Words that train for two steps, were they not followed by something wrong."""
    tiny, prompts = str(world / "tiny"), str(world / "prompts.txt")
    quick = ["--steps", "2", "--batch-size", "2", "--set", "eval_count=2", "--set", "reference_steps=1"]
    return ["--generator", tiny, "--reference", tiny, "--prompts", prompts, *quick]


def refused(words: list[str], capsys: pytest.CaptureFixture[str], code: int = WRONG) -> str:
    """The one line on stderr with which a command fails; nothing else is said, and nothing is written."""
    before = sorted(Path().rglob("*"))
    assert main(words) == code
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith(("Error: ", "dipp: "))]
    assert len(lines) == 1
    assert printed.err.splitlines()[-1] == lines[0]
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert sorted(Path().rglob("*")) == before
    return lines[0]


# Words that cannot be parsed.


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["trian", "Did you mean 'train'?"]),
        (["train", "--stesp", "3"], ["'dipp train' has no option '--stesp'", "Did you mean '--steps'?"]),
        (["--qqqqqqqq"], ["'dipp' has no option '--qqqqqqqq'"]),
        (["train", "--steps", "many"], ["--steps", "integer"]),
        (["train", "--steps", "2.5"], ["--steps", "integer"]),
        (["train", "--steps"], ["--steps", "requires an argument"]),
        (["train", "emoji-onestep"], ["unexpected extra argument", "emoji-onestep"]),
        (["generate", "--guidance", "strong"], ["--guidance", "number"]),
        (["train", "--resume=yes", "--out", "x"], ["--resume yes is not valid"]),
    ],
)
def test_words_that_cannot_be_parsed(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(words, capsys)
    for part in parts:
        assert part in sentence


# Settings.


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--steps", "0"], ["steps cannot be 0", "greater than 0"]),
        (["--steps", "-5"], ["steps cannot be -5"]),
        (["--batch-size", "0"], ["batch_size cannot be 0"]),
        (["--seed", "-1"], ["seed cannot be -1"]),
        (["--reward", "emoji-clip=lots"], ["weight of the reward 'emoji-clip' is 'lots'", "expected a number"]),
        (["--reward", "emoji-clip=nan"], ["'nan'", "expected a number"]),
        (["--reward", "emoji-clip,emoji-clip=2"], ["named twice"]),
        (["--set", "learning_rat=1"], ["no setting 'learning_rat'", "Did you mean 'learning_rate'?"]),
        (["--set", "learning_rate=fast"], ["learning_rate cannot be 'fast'"]),
        (["--set", "learning_rate"], ["--set learning_rate is not an assignment"]),
        (["--steps", "3", "--set", "steps=4"], ["steps is given twice"]),
        (["--precision", "fp8"], ["precision cannot be 'fp8'", "bf16"]),
        (["--track", "tensorbord"], ["tensorbord"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
        (["--config", "{world}/damaged.yaml"], ["is not valid YAML"]),
        (["--config", "{world}/list.yaml"], ["contains list"]),
        (["--config", "{world}"], ["Cannot read the settings file"]),
        (["--device", "gpu"], ["device 'gpu' cannot be used"]),
    ],
)
def test_settings_out_of_range(
    world: Path, words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(["train", *[word.format(world=world) for word in words]], capsys)
    for part in parts:
        assert part in sentence


# Names and files.


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--generator", "emoji-onestp"], ["no generator named 'emoji-onestp'", "Did you mean 'emoji-onestep'?"]),
        (["--reference", "emoji-refrence"], ["no reference named 'emoji-refrence'", "Did you mean 'emoji-reference'?"]),
        (["--reward", "emoji-prefrence"], ["no reward named 'emoji-prefrence'", "Did you mean 'emoji-preference'?"]),
        (["--judge", "emoji-juge"], ["no reward named 'emoji-juge'", "Did you mean 'emoji-judge'?"]),
        (["--prompts", "emoji-trian"], ["no prompt set named 'emoji-trian'", "Did you mean 'emoji-train'?"]),
        (["--set", "term=integral_lk"], ["no term named 'integral_lk'", "Did you mean 'integral_kl'?"]),
        (["--set", "weighting=dmdd"], ["no weighting named 'dmdd'"]),
        (["--generator", "./nowhere"], ["no pipeline folder nowhere"]),
        (["--generator", "{world}"], ["not a diffusers pipeline"]),
        (["--prompts", "./nowhere.txt"], ["nowhere.txt", "No such file"]),
        (["--prompts", "{world}/empty.txt"], ["holds no prompt"]),
        (["--prompts", "{world}/binary.txt"], ["not UTF-8 text"]),
        (["--prompts", "{world}/nul.txt"], ["is binary"]),
        (["--prompts", "{world}/tiny"], ["Cannot read the prompt file"]),
        (["--reward", "./nowhere.py:blue"], ["no file nowhere.py"]),
        (["--reward", "{world}/good.py:bleu"], ["defines no 'bleu'", "Did you mean 'blue'?"]),
        (["--reward", "{world}/syntax.py:blue"], ["syntax error in line 1"]),
        (["--reward", "{world}/raises.py:blue"], ["ModuleNotFoundError", "no_such_package_at_all"]),
        (["--reward", "{world}/signature.py:blue"], ["signature (images)", "reward(images, prompts)"]),
        (["--reward", "{world}/number.py:blue"], ["is a int", "expected a function"]),
        (["--out", "{world}/prompts.txt"], ["prompts.txt is a file"]),
        (["--out", "{world}/prompts.txt/run"], ["prompts.txt is a file"]),
        (["--out", "{world}/tiny"], ["is not empty"]),
        (["--set", "reward.emoji-clip.size=3"], ["Options", "emoji-clip", "does not use"]),
    ],
)
def test_names_and_files_that_cannot_be_used(
    world: Path, words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(["train", *small(world), *[word.format(world=world) for word in words]], capsys)
    for part in parts:
        assert part in sentence


def test_a_mistyped_generator_is_told_before_its_reference_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'emoji-onestep'?" in refused(["train", "--generator", "emoji-onestp"], capsys)


def test_a_reward_that_gives_no_score_for_each_image_fails_the_run(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *small(world), "--reward", f"{world / 'shape'}.py:blue", "--out", "run"]) == FAILED
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"Error: The reward '{world / 'shape'}.py:blue'")
    assert "Traceback" not in error


def test_a_reward_without_gradient_is_trained_as_a_black_box_and_says_so(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A constant is the worst of them: nothing can be learned of it, and the run must not look as if it were."""
    assert main(["train", *small(world), "--reward", f"{world / 'constant'}.py:blue", "--json"]) == 0
    found = " ".join(json.loads(capsys.readouterr().out)["warnings"])
    assert "has no gradient, so it was trained as a black box" in found
    assert "its surrogate was trusted in 0 of 2 steps" in found


@pytest.mark.parametrize(
    ("prediction", "readout", "part"),
    [("epsilon", "1", "predicts noise")],
)
def test_a_generator_that_cannot_be_exported_is_refused_before_training(
    world: Path, prediction: Prediction, readout: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_pipeline(world / prediction, prediction_type=prediction)
    words = ["distill", "--reference", str(folder), "--prompts", str(world / "prompts.txt"), "--steps", "2"]
    assert part in refused([*words, "--set", f"readout={readout}"], capsys)


def test_distill_takes_no_rewards(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "dipp distill takes no rewards" in refused(["distill", *small(world), "--set", "rewards=emoji-clip"], capsys)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["--prompt TEXT", "--prompts SET|FILE"]),
        (["--prompt", "a cat", "--prompts", "{world}/prompts.txt"], ["either --prompt"]),
        (["--prompt", "  "], ["--prompt is empty"]),
        (["--prompts", "{world}/empty.txt"], ["holds no prompt"]),
        (["--prompts", "{world}/prompts.txt", "--count", "0"], ["--count is 0"]),
        (["--prompt", "a cat", "--steps", "0"], ["--steps is 0"]),
        (["--prompt", "a cat", "--steps", "5"], ["in one step, not in 5"]),
        (["--prompt", "a cat", "--guidance", "2"], ["guidance built in"]),
        (["--prompt", "a cat", "--seed", "-1"], ["--seed is -1"]),
        (["--prompt", "a cat", "--out", "{world}/prompts.txt"], ["prompts.txt is a file"]),
        (["--prompt", "a cat", "--out", "{world}/prompts.txt/x.png"], ["prompts.txt is a file"]),
        (["--prompt", "a cat", "--generator", "emoji-onestap"], ["Did you mean 'emoji-onestep'?"]),
        (["--prompt", "a cat", "--reference", "emoji-ref"], ["Did you mean 'emoji-reference'?"]),
        (["--prompt", "a cat", "--device", "gpu"], ["device 'gpu' cannot be used"]),
    ],
)
def test_generate_refuses(world: Path, words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    generator = [] if "--generator" in words else ["--generator", str(world / "tiny")]
    sentence = refused(["generate", *generator, *[word.format(world=world) for word in words]], capsys)
    for part in parts:
        assert part in sentence


def test_verify_refuses_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'integral_kl'?" in refused(["verify", "--term", "integral_lk"], capsys)
    assert "Known: " in refused(["verify", "--case", "linaer"], capsys)
    assert "Did you mean 'six-train'?" in refused(["verify", "--thorough", "--case", "six-trian"], capsys)
    for words in (["--term", "integral_kl"], ["--loop", "mine.py:Loop"], ["--term", "x", "--set", "a=1"]):
        assert "leave out --term, --set, --reference and --loop" in refused(["verify", "--thorough", *words], capsys)


# Resuming.


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--resume"], ["--out"]),
        (["--resume", "--out", "nowhere"], ["no such folder"]),
        (["--resume", "--out", "{world}/prompts.txt"], ["prompts.txt is a file"]),
        (["--resume", "--out", "{world}/tiny"], ["not a run folder", "no config.yaml"]),
        (["--resume", "auto"], ["--out"]),
        (["--resume", "auto", "--out", "{world}/tiny"], ["is not empty"]),
    ],
)
def test_resume_needs_a_run(
    world: Path, words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(["train", *[word.format(world=world) for word in words]], capsys)
    for part in parts:
        assert part in sentence


def test_resume_refuses_damaged_runs_and_other_settings(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("run")
    assert main(["distill", *small(world), "--out", str(out)]) == 0
    capsys.readouterr()
    resume = ["distill", "--resume", "--out", str(out)]
    assert "seed was 0 and is 4" in refused([*resume, "--seed", "4"], capsys)
    assert "at step 2 already" in refused([*resume, "--steps", "1"], capsys)
    (weights,) = out.glob("checkpoints/*/state.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "checksum" in refused([*resume, "--steps", "4"], capsys)
    (out / "config.yaml").write_text("steps: -3\n")
    assert "steps cannot be -3" in refused(resume, capsys)
    (out / "config.yaml").write_bytes(b"\x00\xff")
    assert "is not valid YAML" in refused(resume, capsys)


# Whatever else may happen.


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (
            ZeroDivisionError("division by zero"),
            FAILED,
            ": raise error). Run again with --debug",
        ),
        (RunError("The disk\nis full."), FAILED, "Error: The disk is full."),
        (Interrupted("Interrupted after step 3; saved."), INTERRUPTED, "dipp: Interrupted after step 3; saved."),
        (KeyboardInterrupt(), INTERRUPTED, "dipp: Interrupted."),
    ],
)
def test_errors_become_sentences_and_codes(
    error: BaseException, code: int, part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_verify(**options: object) -> None:
        raise error

    monkeypatch.setattr("dipp_toolkit.verify.run_verify", run_verify)
    sentence = refused(["verify"], capsys, code)
    assert part in sentence
    assert not isinstance(error, ZeroDivisionError) or "Error: ZeroDivisionError: division by zero (" in sentence


@pytest.mark.parametrize("words", [["--debug", "verify"], ["verify", "--debug"]])
def test_debug_shows_the_traceback(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_verify(**options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("dipp_toolkit.verify.run_verify", run_verify)
    assert main(words) == FAILED
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert "in run_verify" in error


def test_ctrl_c_while_loading_leaves_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *small(world), "--reward", f"{world / 'stops.py'}:blue"]
    assert refused(words, capsys, INTERRUPTED) == "dipp: Interrupted."


def test_ctrl_c_while_training_saves_and_says_how_to_go_on(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reward presses Ctrl-C in its second batch, the first time it is used; its very first call is a trial."""
    Path("stop.py").write_text(
        "import pathlib, signal\n"
        "calls = []\n"
        "def blue(images, prompts):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3 and not pathlib.Path('stopped').exists():\n"
        "        pathlib.Path('stopped').touch()\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    return images[:, 2].mean((1, 2))\n"
    )
    words = ["train", *small(world), "--steps", "4", "--reward", "./stop.py:blue", "--out", "run"]
    assert main(words) == INTERRUPTED
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("dipp: Interrupted by SIGINT after step 2 of 4")
    assert "dipp train --resume --out run" in last
    assert not Path("run/summary.json").exists()
    assert main(["train", "--resume", "--out", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 4


@pytest.mark.slow
def test_ctrl_c_in_the_program_itself_shows_no_traceback(world: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "dipp_cli", "train", *small(world), "--steps", "100000", "--out", "run"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not Path("run/metrics.jsonl").exists() and time.monotonic() < deadline and program.poll() is None:
        time.sleep(0.1)
    program.send_signal(signal.SIGINT)
    out, error = program.communicate(timeout=120)
    assert program.returncode == INTERRUPTED
    assert out == ""
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("dipp: Interrupted by SIGINT after step")
