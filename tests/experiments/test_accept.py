"""`dipp accept` on twins: what is right passes, and what is not is found by name."""

from __future__ import annotations

import getpass
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from accepting import TRAINING, accepted, edit, failing, verdicts, write_pair
from benchmarks.published_world.hub_cache import HubCache
from dipp_cli.app import main
from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.experiments.acceptance import check as checks_there_are
from dipp_toolkit.experiments.acceptance import run as running
from dipp_toolkit.experiments.acceptance.check import Check, Outcome, all_checks, names, skipped
from dipp_toolkit.experiments.acceptance.checks import step
from dipp_toolkit.experiments.acceptance.checks.pull import held, scaled
from dipp_toolkit.experiments.acceptance.checks.rewards import _compared
from dipp_toolkit.experiments.acceptance.golden import (
    NAME,
    Golden,
    golden_images,
    golden_of,
    read_golden,
    weights_key,
    write_golden,
)
from dipp_toolkit.experiments.acceptance.row import has_path, public
from dipp_toolkit.experiments.acceptance.settings import PROMPTS, Candidate, settings_of
from dipp_toolkit.experiments.acceptance.subject import Subject
from dipp_toolkit.experiments.acceptance.weights_used import weight_file
from dipp_toolkit.models.published import PublishedGenerator, PublishedReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.registry import Entry, get_registry
from dipp_toolkit.utils import licences

EMOJI = Path(__file__).parents[2] / "plugins" / "dipp_emoji"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def copied(pair: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The pair, to be changed."""
    return tuple(Path(shutil.copytree(item, tmp_path / item.name)) for item in pair)  # type: ignore[return-value]


def test_a_sound_pair_passes_everything_and_leaves_a_row_that_is_sound(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, reference = pair
    code, row = accepted(tmp_path, str(generator), "--reference", str(reference), "--reward", "colourfulness")
    assert code == 0, failing(row)
    assert {item["check"] for item in row["checks"]} == set(names())
    for check in ("fetch", "load", "stock", "step", "pull"):
        assert "pass" in verdicts(row, check).values(), check
    assert verdicts(row, "align")["short alignment"] == "pass"
    assert list(verdicts(row, "rewards").values()) == ["skipped"]  # nobody knows golden numbers of it
    assert verdicts(row, "step")["memory of the update"] == "skipped"
    drawn = [item["numbers"]["largest"] for item in row["checks"] if item["check"] == "stock"]
    assert len(drawn) == 2 and max(drawn) < 1e-5
    files = {(item["role"], item["file"]): item["sha256"] for item in row["weights"]}
    network = "transformer/diffusion_pytorch_model.safetensors"
    assert files["generator", network] != files["reference", network]
    said = capsys.readouterr()
    assert " pass, " in said.out and " fail" not in said.out and "stock: " in said.err
    assert main(["accept", "--check", str(tmp_path / "row.json")]) == 0
    assert "1 file is sound." in capsys.readouterr().out


def test_a_row_names_no_folder_user_or_machine(pair: tuple[Path, Path], tmp_path: Path) -> None:
    reward = tmp_path / "mine.py"
    reward.write_text("def blue(images, prompts):\n    return images[:, 2].mean((1, 2))\n", encoding="utf-8")
    _, row = accepted(
        tmp_path, str(pair[0]), "--reference", str(pair[1]), "--reward", f"{reward}:blue", "--set", "pull=0.5"
    )
    text = json.dumps(row)
    assert has_path(text) is False
    for word in (str(tmp_path), str(pair[0]), str(Path.home()), "mine.py", getpass.getuser() + "/"):
        assert word not in text
    assert platform.node() not in text or len(platform.node()) < 3
    assert row["name"] == row["reference"] == "a folder" and row["rewards"] == ["own code"]
    assert main(["accept", "--check", str(tmp_path / "row.json")]) == 0


def test_another_autoencoder_is_found_by_its_weights_and_by_the_image(
    copied: tuple[Path, Path], tmp_path: Path
) -> None:
    other = write_twin("PixArtAlphaPipeline", tmp_path / "other", seed=9)
    shutil.copytree(other / "vae", copied[0] / "vae", dirs_exist_ok=True)
    words = (str(copied[0]), "--reference", str(copied[1]), "--reward", "colourfulness")
    code, row = accepted(tmp_path, *words, skip=TRAINING)
    found = failing(row)
    assert code == 1
    assert "another part" in found["load: generator's parts"]
    assert "vae: other weights" in next(item["measured"] for item in row["checks"] if "parts" in item["compared"])
    assert any(name.startswith("stock: generator's image") for name in found)
    assert not any("reference's image" in name for name in found)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"trained_betas": [0.001 + 0.00001 * k for k in range(441)]}, "load: generator's noise schedule"),
        pytest.param(
            {"prediction_type": "v_prediction"}, "load: generator's noise schedule", marks=pytest.mark.exhaustive
        ),
        ({"timestep_spacing": "leading"}, "stock: generator's image"),
    ],
)
def test_another_scheduler_is_found(
    changes: dict[str, Any], found: str, copied: tuple[Path, Path], tmp_path: Path
) -> None:
    edit(copied[0] / "scheduler" / "scheduler_config.json", **changes)
    words = (str(copied[0]), "--reference", str(copied[1]), "--reward", "colourfulness")
    code, row = accepted(tmp_path, *words, skip=TRAINING)
    assert code == 1
    assert any(name.startswith(found) for name in failing(row)), failing(row)


@pytest.mark.parametrize(
    "pipeline",
    [
        "FluxPipeline",
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline")
        ),
    ],
)
def test_other_classes_are_drawn_as_plain_diffusers_draws_them(pipeline: str, tmp_path: Path) -> None:
    twin = str(write_twin(pipeline, tmp_path / "twin"))
    _, row = accepted(tmp_path, twin, "--reference", twin, "--reward", "colourfulness", skip=TRAINING)
    assert set(verdicts(row, "stock").values()) == {"pass"} and len(verdicts(row, "stock")) == 2, failing(row)


def test_half_precision_is_compared_in_half_precision(pair: tuple[Path, Path], tmp_path: Path) -> None:
    words = (str(pair[0]), "--reference", str(pair[1]), "--reward", "colourfulness", "--set", "frozen_precision=bf16")
    _, row = accepted(tmp_path, *words, skip=TRAINING)
    assert set(verdicts(row, "stock").values()) == {"pass"}, failing(row)


# Published names.


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`tiny-onestep` and `tiny-reference`, published in a hub's cache; the folder is the repository's snapshot."""
    twin = write_twin("PixArtAlphaPipeline", tmp_path / "twin")
    cache = HubCache(tmp_path / "home")
    snapshot = cache.add("somebody/tiny", twin)
    reference = PublishedReference("tiny-reference", "", "somebody/tiny", twin, licences.APACHE)
    generator = PublishedGenerator(
        "tiny-onestep", "", "somebody/tiny", twin, licences.APACHE, reference="tiny-reference", readout=440 / 999,
        input_scale="sigma",
    )  # fmt: skip
    entries = get_registry().entries
    defaults = {"reference": "tiny-reference", "readout": 440 / 999, "input_scale": "sigma", "reward_scale": "auto"}
    for kind, model in (("reference", reference), ("generator", generator)):
        own = defaults if kind == "generator" else {}
        monkeypatch.setitem(entries[kind], model.name, Entry(kind, model.name, model, "", (), "pixart", own))
        blueprint = Entry("blueprint", model.name, model.blueprint, "", (), "pixart")
        monkeypatch.setitem(entries["blueprint"], model.name, blueprint)
    with cache.used():
        yield snapshot


NAMED = ("tiny-onestep", "--reward", "colourfulness")


def test_a_published_name_is_held_against_its_record(published: Path, tmp_path: Path) -> None:
    code, row = accepted(tmp_path, *NAMED, "--set", "guidance=2")
    assert code == 0, failing(row)
    loaded = verdicts(row, "load")
    for what in ("generator's configurations", "generator's noise schedule", "reference's scheduler", "read-out"):
        assert loaded[what] == "pass"
    assert {item["revision"] for item in row["weights"]} == {"0" * 40}
    assert {item["source"] for item in row["weights"]} == {"somebody/tiny"}
    assert row["name"] == "tiny-onestep" and row["reference"] == "tiny-reference"
    (pull,) = [item for item in row["checks"] if item["check"] == "pull"]
    assert pull["verdict"] == "pass" and pull["numbers"]["asked"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("file", "changes", "found"),
    [
        ("scheduler/scheduler_config.json", {"beta_end": 0.012}, "load: generator's noise schedule"),
        ("scheduler/scheduler_config.json", {"algorithm_type": "sde-dpmsolver++"}, "load: reference's scheduler"),
        ("vae/config.json", {"scaling_factor": 0.5}, "load: reference's configurations"),
    ],
)
def test_a_published_name_of_other_files_is_found(
    file: str, changes: dict[str, Any], found: str, published: Path, tmp_path: Path
) -> None:
    edit(published / file, **changes)
    code, row = accepted(tmp_path, *NAMED, skip=(*TRAINING, "stock"))
    assert code == 1
    assert found in failing(row)
    measured = [item["measured"] for item in row["checks"] if item["verdict"] == "fail"]
    assert any(name in text for name in (*changes, "alpha off") for text in measured)


def test_a_reference_that_is_named_alone_begins_with_its_own_network(published: Path, tmp_path: Path) -> None:
    code, row = accepted(tmp_path, "tiny-reference", "--reward", "colourfulness", skip=TRAINING)
    assert code == 0, failing(row)
    assert row["kind"] == "reference" and list(verdicts(row, "stock")) == ["reference's image in 4 steps at guidance 3"]


def test_what_is_not_here_fails_by_itself(published: Path, tmp_path: Path) -> None:
    shutil.rmtree(published / "vae")
    code, row = accepted(tmp_path, *NAMED)
    assert code == 1
    assert verdicts(row, "rewards") == {"scores of colourfulness": "skipped"}
    assert "fail" in verdicts(row, "load").values() and "fail" in verdicts(row, "step").values()
    assert verdicts(row, "pull") == {"rewards' gradient over the divergence's": "skipped"}


def test_a_file_that_is_not_the_hubs_is_damaged(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--somebody--tiny" / "snapshots" / ("a" * 40)
    blobs = tmp_path / "models--somebody--tiny" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / ("b" * 64)).write_bytes(b"other")
    (snapshot / "model.safetensors").symlink_to(blobs / ("b" * 64))
    file = weight_file(snapshot / "model.safetensors", "generator", snapshot)
    assert (file.source, file.revision, file.hub_sha256, file.intact) == ("somebody/tiny", "a" * 40, "b" * 64, False)
    assert replace(file, hub_sha256=file.sha256).intact and replace(file, hub_sha256="").intact


# Golden numbers.


def test_the_emoji_worlds_golden_numbers_hold_and_those_of_other_weights_are_stale(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    words = (str(pair[0]), "--reference", str(pair[1]), "--reward", "emoji-preference")
    skip = ("fetch", "load", "stock", *TRAINING)
    code, row = accepted(tmp_path, *words, skip=skip)
    assert (code, verdicts(row, "rewards")) == (0, {"scores of emoji-preference": "pass"})
    place = Path(shutil.copytree(EMOJI / "weights" / "preference", tmp_path / "preference"))
    tensors = load_file(place / "model.safetensors")
    save_file({name: tensor * 1.0001 for name, tensor in tensors.items()}, place / "model.safetensors")
    code, row = accepted(tmp_path, *words, "--set", f"reward.emoji-preference.folder={place}", skip=skip)
    (why,) = failing(row).values()
    assert code == 1 and why.startswith("stale: the golden numbers are of the weights b929641f9d05")


GOLDEN = Golden(weights="a" * 64, images=NAME, scores=(1.0, 2.0), tolerance=0.1, origin="a test")


def test_golden_numbers_of_the_same_weights_have_to_be_met() -> None:
    scores = torch.tensor([1.0, 2.05], dtype=torch.float64)
    assert _compared("x", scores, "a" * 64, "", [GOLDEN]).verdict == "pass"
    off = _compared("x", scores + 0.2, "a" * 64, "", [GOLDEN])
    assert off.verdict == "fail" and "the same weights" in off.why.lower()
    assert _compared("x", scores, "b" * 64, "", [GOLDEN]).why.startswith("stale")
    other = _compared("x", scores, "b" * 64, "v2.1", [GOLDEN])  # of a version that nobody has recorded
    assert (other.verdict, other.why[:10]) == ("skipped", "none known")


def test_every_reward_of_the_emoji_world_has_golden_numbers_and_no_other_one_has() -> None:
    rewards = get_registry().entries["reward"]
    assert {name for name in rewards if golden_of(name)} == {"emoji-clip", "emoji-preference", "emoji-judge"}


def test_golden_numbers_are_kept_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    write_golden(path, {"one": GOLDEN})
    write_golden(path, {"one": GOLDEN.model_copy(update={"weights": "b" * 64}), "two": GOLDEN})
    again = GOLDEN.model_copy(update={"scores": (3.0, 4.0)})
    write_golden(path, {"one": again})
    found = read_golden(path)
    assert [item.weights[0] for item in found["one"]] == ["b", "a"] and found["one"][1] == again
    assert found["two"] == [GOLDEN]
    path.write_text('{"one": [{"weights": 3}]}', encoding="utf-8")
    with pytest.raises(RequestError, match="is not a file of golden numbers"):
        read_golden(path)


def test_the_golden_images_are_these_to_the_bit() -> None:
    levels = (golden_images() * 255).round().to(torch.uint8)
    assert torch.equal(levels.float() / 255, golden_images())
    assert levels.shape == (8, 3, 256, 256)
    assert (int(levels.long().sum()), int(levels[3, 2, 100, 200]), int(levels[1, 0, 255, 3])) == SUMS
    assert len({image.numpy().tobytes() for image in levels}) == 4


SUMS = (201725840, 21, 31)


def test_a_reward_without_files_is_known_by_its_tensors() -> None:
    reward = type("Reward", (), {})()
    reward.network = torch.nn.Linear(2, 1)
    before = weights_key(reward, ())
    with torch.no_grad():
        reward.network.bias.add_(1)
    assert before.startswith("state-") and weights_key(reward, ()) != before


# Pull and memory.


def test_a_pull_of_one_side_alone_fails_and_says_the_scale() -> None:
    weak = scaled(1e-4, 0.0, 1.0)
    assert weak.verdict == "fail" and "--set reward_scale=7000" in weak.why
    assert scaled(0.7, 0.0, 80.0).verdict == "pass"
    assert scaled(0.7, 0.0, 80.0).numbers["usual_scale"] == 80
    row = {"scale/reward/hps": 512.0}
    assert held(0.7, 0.0, 0.7, row).numbers["scale of reward/hps"] == 512
    assert "hps times 512" in held(0.7, 0.0, 0.7, row).measured
    assert held(500.0, 0.0, 500.0, row).verdict == "fail"


def test_memory_is_held_against_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SimpleNamespace(peak=6 * 2**30, resident={"process": 2 * 2**30}, uncounted=())
    monkeypatch.setattr("dipp_toolkit.planning.estimate.make_plan", lambda config: plan)
    candidate = Candidate("emoji-onestep", device="cpu")
    config = settings_of(candidate, tmp_path)
    assert config.eval_count == 64 and config.prompts == "emoji-train" and config.learning_rate == 1e-4
    subject = Subject(candidate, config, torch.device("cuda"), tmp_path)
    row = step.memory_outcome(subject, 0.01)
    assert row.verdict == "pass" and row.numbers["planned_gib"] == 4
    assert step.memory_outcome(subject, 4.7).verdict == "fail"
    plan.uncounted = ("hps",)
    assert "does not count hps" in step.memory_outcome(subject, 1.0).why
    subject.device = torch.device("cpu")
    assert step.memory_outcome(subject, 0.01).verdict == "skipped"


def test_settings_of_a_name_without_prompts_or_rewards(published: Path, tmp_path: Path) -> None:
    config = settings_of(Candidate("tiny-onestep", settings={"mode": "lora", "lora_rank": 2}), tmp_path)
    assert list(config.rewards) == ["hps", "imagereward"] and (config.learning_rate, config.ema) == (1e-4, 0.9)
    assert (tmp_path / "prompts.txt").read_text(encoding="utf-8").splitlines() == list(PROMPTS)
    assert len(set(PROMPTS)) == 64
    said = settings_of(Candidate("tiny-onestep", settings={"mode": "lora", "learning_rate": 1e-6}), tmp_path)
    assert said.learning_rate == 1e-6


# How the checks are run.


@pytest.fixture
def subject(pair: tuple[Path, Path], tmp_path: Path) -> Subject:
    candidate = Candidate(str(pair[0]), str(pair[1]), "colourfulness", None, "cpu")
    return Subject(candidate, settings_of(candidate, tmp_path), torch.device("cpu"), tmp_path)


def made(*found: Any) -> tuple[Check, ...]:
    """Checks that give a row, or raise."""

    def look(what: Any) -> Any:
        def run(_: Subject) -> Iterator[Outcome]:
            yield Outcome("before", "", "", "pass")
            if isinstance(what, BaseException):
                raise what

        return run

    return tuple(Check(f"number {number}", number, look(what), "asks") for number, what in enumerate(found))


def test_a_check_that_raises_is_a_row_and_the_next_ones_go_on(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (RunError("No luck."), ZeroDivisionError("none"), torch.OutOfMemoryError("full"))
    monkeypatch.setattr(running, "all_checks", lambda: made(*broken, None))
    found = running.accept(subject)
    assert found.complete and not found.passed
    whys = [row.why for row in found.outcomes if row.verdict == "fail"]
    assert whys[0] == "No luck." and "ZeroDivisionError: none" in whys[1] and "ran out of memory" in whys[2]
    assert [row.verdict for row in found.outcomes if row.compared == "before"] == ["pass"] * 4


def test_an_interrupt_keeps_what_is_there(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "all_checks", lambda: made(None, KeyboardInterrupt(), None))
    found = running.accept(subject)
    assert not found.complete
    assert [row.why for row in found.outcomes] == ["", "", "Interrupted.", "Interrupted."]


def test_no_check_begins_after_the_time_and_none_that_is_left_out(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "all_checks", lambda: made(None, None, None))
    times = iter([0.0, 2.0])
    subject.clock, subject.deadline = lambda: next(times), 1.0
    found = running.accept(subject, skip=["number 1"])
    assert [row.verdict for row in found.outcomes] == ["pass", "skipped", "skipped"]
    assert "--minutes" in found.outcomes[2].why and "--skip" in found.outcomes[1].why


def test_another_check_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taste.py").write_text(
        "from dipp_toolkit.experiments.acceptance.check import Check\n"
        "CHECK = Check('taste', 35, lambda subject: [], 'tastes')\n",
        encoding="utf-8",
    )
    there = checks_there_are.checks.__path__
    monkeypatch.setattr(checks_there_are.checks, "__path__", [*there, str(tmp_path)])
    for cached in (names, all_checks):
        cached.cache_clear()
    try:
        assert "taste" in names()
        assert [check.name for check in all_checks()][3] == "taste"
    finally:
        monkeypatch.undo()
        for cached in (names, all_checks):
            cached.cache_clear()
    assert [check.name for check in all_checks()] == [
        "fetch", "load", "stock", "rewards", "step", "pull", "align",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["emoji-onestp"], "Did you mean 'emoji-onestep'?"),
        (["emoji-onestep", "emoji-reference"], "dipp accept takes one name, and got 2"),
        (["emoji-onestep", "--skip", "stok"], "Did you mean 'stock'?"),
        (["emoji-onestep", "--minutes", "0"], "--minutes is 0"),
        (["emoji-onestep", "--reward", "hpps"], "There is no reward named 'hpps'"),
        (["emoji-onestep", "--set", "push_to_hub=a/b"], "--set push_to_hub cannot be set for an acceptance"),
        (["./mine.py:Own", "--reference", "emoji-reference"], "code of your own"),
        (["emoji-onestep", "--out", "."], "it is a folder"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_a_request_that_means_nothing_is_refused_before_anything_runs(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["accept", *words]) == 2
    assert said in capsys.readouterr().err


# Texts.


@pytest.mark.parametrize(
    "text",
    [
        "/home/jane/models/x is missing", "see ~/models/a.bin", "C:\\Users\\jane\\a.bin", "in ./runs/mine.",
        "file:///srv/data/a", "a '/mnt/x' b", "\\\\server\\share\\x", f"{Path.home()}/x", "(../secret/x)",
    ],
)  # fmt: skip
def test_paths_are_out_of_public_texts(text: str) -> None:
    assert has_path(text)
    found = public(text)
    assert not has_path(found) and "a folder of this machine" in found
    for word in ("jane", "models", "secret", "share", "mnt", "srv"):
        assert word not in found


@pytest.mark.parametrize(
    "text",
    ["PixArt-alpha/PixArt-XL-2-512x512:transformer/x.bin", "440/999 of 1/100", "https://huggingface.co/a/b", "w/o"],
)
def test_names_and_addresses_stay(text: str) -> None:
    assert public(text) == text and not has_path(text)


def test_secrets_names_and_length_are_out_of_public_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "jane.doe")
    monkeypatch.setattr(platform, "node", lambda: "lab-machine-7")
    said = public("jane.doe on lab-machine-7: https://me:secret@host/x?token=abc\nnext\x1b[31m")
    assert all(word not in said for word in ("jane", "lab-machine", "secret", "abc", "\n", "\x1b"))
    assert len(public("word " * 1000)) <= 600


def test_skipped_rows_say_why() -> None:
    assert skipped("what", "why").why == "why"
