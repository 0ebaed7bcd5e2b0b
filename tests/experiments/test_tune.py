"""`dipp tune`: the adapter on the reference, both ways of distilling, going on, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dipp_cli.app import main
from dipp_toolkit import load_reference
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import Interrupted, RequestError
from dipp_toolkit.experiments.tuning import adapter as adapter_module
from dipp_toolkit.experiments.tuning.adapter import AdapterPlan, AdapterTraining
from dipp_toolkit.experiments.tuning.pictures import Pictures, covering
from dipp_toolkit.experiments.tuning.run import tune
from dipp_toolkit.experiments.tuning.settings import AdapterRequest, TuneSettings
from dipp_toolkit.models import lora
from dipp_toolkit.models.encoding import encode_images
from dipp_toolkit.models.latent_space import LatentSpace
from dipp_toolkit.models.reference import DiffusersReference
from tiny import PROMPTS, tiny_pipeline

RUN: dict[str, Any] = {
    "steps": 2, "batch_size": 2, "eval_count": 2, "reference_steps": 2, "device": "cpu", "assistant_warmup": 0,
    "checkpoint_every": 1, "ema": 0.0, "cooldown": 0,
}  # fmt: skip
WRITTEN = (
    "tune.json",
    "reference/model_index.json",
    "reference-adapter/adapter_model.safetensors",
    "run/final/model_index.json",
    "run/report.html",
    "report/beside.png",
    "report/summary.json",
)


class Heard:
    """Remembers what a tuning tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun: list[str] = []

    def begin(self, what: str, total: int) -> None:
        self.begun.append(what)

    def advance(self, count: int) -> None: ...

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def write_pictures(folder: Path, count: int = 5, side: int = 16, captions: bool = True) -> Path:
    """Random pictures with captions beside them."""
    folder.mkdir()
    random = torch.Generator().manual_seed(1)
    for number in range(count):
        pixels = (torch.rand(side, side, 3, generator=random) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
        if captions:
            (folder / f"{number}.txt").write_text(PROMPTS[number % len(PROMPTS)], encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("tune") / "base")


def settings_of(pipeline: Path, folder: Path, out: str, **others: Any) -> TuneSettings:
    pictures = folder / "pictures"
    if not pictures.exists():
        write_pictures(pictures)
    train = RUN | {"generator": str(pipeline), "reference": str(pipeline)} | others.pop("train", {})
    request = AdapterRequest(steps=4, batch=3, rank=4, learning_rate=0.01, save_every=2)
    return TuneSettings(pictures=pictures, out=folder / out, adapter=request, train=train, **others)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def training_on(pipeline: Path) -> AdapterTraining:
    """A small adapter's training on random latents."""
    reference = load_reference(str(pipeline))
    random = torch.Generator().manual_seed(3)
    latents = torch.randn(5, *reference.latent_shape, generator=random)
    conditions = Condition.cat([reference.encode(list(PROMPTS[:1]) * 5), reference.null(1)])
    network = lora.adapted(reference.denoiser.network, lora.AdapterSettings(4, 4.0))
    plan = AdapterPlan(steps=6, batch=3, learning_rate=0.01)
    return AdapterTraining(replace(reference.denoiser, network=network), latents, conditions, plan)


def test_an_adapter_goes_on_to_the_same_bits(pipeline: Path, tmp_path: Path) -> None:
    whole, losses = training_on(pipeline), list[float]()
    whole.run(tmp_path / "whole", 100, lambda step, loss: losses.append(loss), lambda: None)
    half = training_on(pipeline)

    def stopped() -> None:
        if half.step == 3:
            raise Interrupted("now")

    with pytest.raises(Interrupted):
        half.run(tmp_path / "half", 2, lambda step, loss: None, stopped)
    rest, told = training_on(pipeline), list[int]()
    rest.resume(tmp_path / "half")
    rest.run(tmp_path / "half", 2, lambda step, loss: told.append(step), lambda: None)
    assert told == [4, 5, 6]
    assert len(losses) == 6
    one, other = whole.denoiser.network.state_dict(), rest.denoiser.network.state_dict()
    assert same(dict(one), dict(other))
    assert all(torch.equal(a, b) for a, b in zip(whole.average.average, rest.average.average, strict=True))


def test_an_adapter_learns_its_pictures(pipeline: Path) -> None:
    training = training_on(pipeline)
    training.plan = replace(training.plan, steps=150)
    training.latents = training.latents[:1].expand(5, -1, -1, -1).contiguous()
    losses = [training.one_step() for _ in range(150)]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


@pytest.mark.parametrize("way", ["reference", "difference"])
def test_a_tuning_leaves_everything_it_says(pipeline: Path, tmp_path: Path, way: str) -> None:
    heard = Heard()
    result = tune(settings_of(pipeline, tmp_path, "tuned", way=way, naive=way == "reference"), heard)
    out = tmp_path / "tuned"
    assert result.folder == out
    for name in WRITTEN:
        assert (out / name).is_file(), name
    assert (out / "naive" / "model_index.json").is_file() is (way == "reference")
    assert not same(weights(out / "run" / "final"), weights(pipeline))
    assert not same(weights(out / "reference"), weights(pipeline))
    # The tuned reference is the base with the adapter, and plain diffusers loads it.
    from diffusers import PixArtAlphaPipeline

    plain = PixArtAlphaPipeline.from_pretrained(out / "reference")
    base = load_reference(str(pipeline))
    merged = lora.merged(lora.load_adapter(base.denoiser.network, out / "reference-adapter"))
    assert same(dict(plain.transformer.state_dict()), dict(merged.state_dict()))
    assert type(plain.scheduler).__name__ == type(base.scheduler).__name__  # type: ignore[attr-defined]
    assert result.summary["columns"] == (["before", "after", "naive", "reference"] if way == "reference" else
                                         ["before", "after", "reference"])  # fmt: skip
    assert any("few" in note for note in heard.notes)


def test_a_finished_tuning_does_nothing_again(pipeline: Path, tmp_path: Path) -> None:
    settings = settings_of(pipeline, tmp_path, "tuned")
    first = tune(settings, Heard())
    before = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "tuned").rglob("*")) if path.is_file()}
    heard = Heard()
    assert tune(settings, heard).summary == first.summary
    assert heard.begun == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_stopped_tuning_goes_on_to_the_same_bits(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(settings_of(pipeline, tmp_path, "whole"), Heard())
    settings = settings_of(pipeline, tmp_path, "stopped")
    own = adapter_module.AdapterTraining.one_step

    def killed_at_three(training: AdapterTraining) -> float:
        if training.step == 3:
            raise KeyboardInterrupt
        return own(training)

    with monkeypatch.context() as patch:
        patch.setattr(AdapterTraining, "one_step", killed_at_three)
        with pytest.raises(KeyboardInterrupt):
            tune(settings, Heard())
    assert not (tmp_path / "stopped" / "reference").exists()

    class Kill:
        def dipp_on_step(self, event: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # in the distillation now
        tune(settings, Heard(), [Kill()])
    assert (tmp_path / "stopped" / "reference").is_dir()
    assert not (tmp_path / "stopped" / "run" / "final").exists()
    tune(settings, Heard())
    for name in ("reference", "run/final"):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "stopped" / name)), name
    rows = [json.loads(line) for line in (tmp_path / "stopped/adapter-training/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def test_damaged_files_of_a_finished_tuning_are_sentences(pipeline: Path, tmp_path: Path) -> None:
    settings = settings_of(pipeline, tmp_path, "tuned")
    first = tune(settings, Heard())
    for name, contents, said in (
        ("tune.json", ["[]", "[1]", "{", "\x00"], "Begin in another folder"),
        ("run/summary.json", ["{}", "[]", '{"steps": "many"}'], "Remove it; the same command finishes"),
        ("report/summary.json", ["{}", "[]", '{"columns": 3, "judge": null, "warnings": []}'], "Remove it; the same"),
        (
            "report/summary.json",
            ['{"columns": ["after"], "judge": {"name": "a"}, "warnings": []}'],
            "no score of after",
        ),
    ):
        path = settings.out / name
        whole = path.read_text(encoding="utf-8")
        for content in contents:
            path.write_text(content, encoding="utf-8")
            with pytest.raises(RequestError, match=f"{name} ?.*{said}|{name}: .*{said}"):
                tune(settings, Heard())
        path.write_text(whole, encoding="utf-8")
    for name in ("run/summary.json", "report/summary.json"):  # the advice works
        (settings.out / name).unlink()
        assert tune(settings, Heard()).summary["columns"] == first.summary["columns"]


def test_another_request_in_the_same_folder_is_refused(pipeline: Path, tmp_path: Path) -> None:
    settings = settings_of(pipeline, tmp_path, "tuned")
    tune(settings, Heard())
    with pytest.raises(RequestError, match=r"begun with adapter_rank 4\. Give it as it was"):
        tune(replace(settings, adapter=replace(settings.adapter, rank=2)), Heard())
    with pytest.raises(RequestError, match="begun with steps 2"):
        tune(replace(settings, train={**settings.train, "steps": 3}), Heard())
    (settings.pictures / "0.txt").write_text("a dog", encoding="utf-8")
    with pytest.raises(RequestError, match="other pictures or captions"):
        tune(settings, Heard())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(RequestError, match="not empty and holds no tuning"):
        tune(replace(settings, out=tmp_path / "mine"), Heard())


def test_what_cannot_be_tuned_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no folder"):
        Pictures.find(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="contains no images"):
        Pictures.find(tmp_path / "empty")
    with pytest.raises(RequestError, match=r"holds 1 picture; expected at least 4"):
        Pictures.find(write_pictures(tmp_path / "one", 1))
    bare = write_pictures(tmp_path / "bare", captions=False)
    with pytest.raises(RequestError, match=r"have no captions, 0\.png for one.*0\.txt.*--captions FILE"):
        Pictures.find(bare)
    assert Pictures.find(bare, caption="a cat").captions == ("a cat",) * 5
    (bare / "1.txt").write_text("a dog", encoding="utf-8")
    with pytest.raises(RequestError, match=r"There is no caption .*0\.txt"):
        Pictures.find(bare)
    for number in range(5):
        (bare / f"{number}.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(RequestError, match="is empty; expected what its picture shows"):
        Pictures.find(bare)
    broken = write_pictures(tmp_path / "broken")
    (broken / "2.png").write_bytes(b"no picture")
    with pytest.raises(RequestError, match=r"2\.png is not a readable image"):
        Pictures.find(broken).read((16, 16))


def test_pictures_are_read_with_metadata_and_brought_to_size(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "some", 4, side=12, captions=False)
    rows = [json.dumps({"file_name": f"{number}.png", "text": f"a cat {number}"}) for number in range(4)]
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    pictures = Pictures.find(folder)
    assert pictures.captions == ("a cat 0", "a cat 1", "a cat 2", "a cat 3")
    images, notices = pictures.read((16, 16))
    assert images.shape == (4, 3, 16, 16)
    assert any("4 are smaller" in notice for notice in notices)
    wide = torch.zeros(3, 10, 30)
    wide[:, :, 10:20] = 1.0  # the middle third is what is kept
    assert torch.equal(covering(wide, (10, 10)), torch.ones(3, 10, 10))


def test_latents_are_what_the_stock_autoencoder_encodes(pipeline: Path) -> None:
    reference = load_reference(str(pipeline))
    assert isinstance(reference, DiffusersReference)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = encode_images(reference, images, batch=2)
    with torch.no_grad():
        stock = reference.vae.encode(2 * images - 1).latents * reference.vae.config.scaling_factor
    torch.testing.assert_close(latents, stock)
    with pytest.raises(RequestError, match=r"latents of the shape \(4, 16, 16\) of images of 32 x 32 pixels"):
        encode_images(reference, torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    "space", [LatentSpace(0.13), LatentSpace(1.5, mean=(0.1,)), LatentSpace(0.5, (1.0, 2.0), (0.5, -1.0))]
)
def test_encoding_undoes_decoding(space: LatentSpace) -> None:
    latents = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(space.encoded(space.decodable(latents)), latents)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--way", "sideways"], "sideways"),
        (["--strength", "2"], "give it with --way difference"),
        (["--adapter-rank", "0"], "--adapter-rank is 0; expected at least 1"),
        (["--caption-dropout", "1"], "--caption-dropout is 1.0; expected 0 to below 1"),
        (["--set", "term=reward_only"], "chosen by --way"),
        (["--caption", "a", "--captions", "b.txt"], "give one of them"),
    ],
)
def test_wrong_requests_are_sentences(
    tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "pictures")
    assert main(["tune", str(folder), "--out", str(tmp_path / "out"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_prints_one_object(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pictures(tmp_path / "pictures")
    words = [word for name, value in RUN.items() for word in ("--set", f"{name}={value}")]
    models = ["--generator", str(pipeline), "--reference", str(pipeline), "--out", str(tmp_path / "out")]
    small = ["--adapter-steps", "2", "--adapter-rank", "4", "--adapter-batch", "2"]
    assert main(["tune", str(folder), *models, *small, *words, "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == str(tmp_path / "out")
    assert printed["generator"] == str(tmp_path / "out" / "run" / "final")


def test_what_failed_before_it_began_is_in_nobodys_way(pipeline: Path, tmp_path: Path) -> None:
    settings = settings_of(pipeline, tmp_path, "tuned")
    whole = (settings.pictures / "1.png").read_bytes()
    (settings.pictures / "1.png").write_bytes(b"no picture")
    with pytest.raises(RequestError, match="is not a readable image"):
        tune(settings, Heard())
    (settings.pictures / "1.png").write_bytes(whole)
    tune(settings, Heard())
