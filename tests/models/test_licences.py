"""Licences of published weights: told by `dipp plugins` and at a run's start, and kept in every export's model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.repocard import metadata_load

from dipp_cli.app import main
from dipp_cli.terminal.progress import listener
from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.events import RunStartEvent
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.publish import write_model_card
from dipp_toolkit.training.run import train
from dipp_toolkit.training.setup.origins import licence_notices, origins_of, start_origins
from dipp_toolkit.utils.licences import Licence

OWN = Licence("other", "https://a.b", "own-nc", non_commercial=True)
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-step pipeline as a run leaves it, without a card."""
    folder = tmp_path_factory.mktemp("licences")
    twin = write_twin("StableDiffusionXLPipeline", folder / "twin")
    DiffusersGenerator.load(str(twin), readout=0.4).save_pretrained(folder / "run" / "final")
    return folder / "run"


def header(folder: Path) -> dict:
    card = metadata_load(folder / "final" / "README.md")
    assert card is not None
    return card


def test_every_published_weight_says_its_licence() -> None:
    registry = get_registry()
    for kind in ("generator", "reference"):
        for entry in registry.entries[kind].values():
            assert entry.origin is not None, entry.name
            assert entry.origin.licence.id or entry.origin.licence.note, entry.name
    rewards = ("hps", "imagereward", "pickscore", "aesthetic", "clip", "clip-g", "mps", "cyclereward", "vqascore")
    for name in (*rewards, "emoji-clip"):
        origin = registry.entries["reward"][name].origin
        assert origin is not None
        reward = registry.entries["reward"][name].attribute
        assert origin.licence.id in reward.licence.lower().replace("; openai's and laion's are", "")


@pytest.mark.parametrize(
    ("generator", "fields", "bases"),
    [
        ("sdxl-dmd2", {"license": "cc-by-nc-4.0"}, ["tianweiy/DMD2", SDXL]),
        (
            "sdxl-turbo",
            {
                "license": "other",
                "license_name": "sai-nc-community",
                "license_link": "https://huggingface.co/stabilityai/sdxl-turbo/blob/main/LICENSE.md",
            },
            ["stabilityai/sdxl-turbo", SDXL],
        ),
        ("dipp-sdxl", {}, ["XDG-XHS/dipp_1step", SDXL]),
        ("hyper-sdxl", {"license": "openrail++"}, ["ByteDance/Hyper-SD", SDXL]),
        ("hyper-sd15", {"license": "openrail++"}, ["ByteDance/Hyper-SD", SD15, SDXL]),
        (None, {"license": "openrail++"}, [SDXL]),
    ],
)
def test_a_card_keeps_the_licence_and_the_next_run_does_too(
    generator: str | None, fields: dict, bases: list[str], exported: Path
) -> None:
    write_model_card(exported / "final", make_config({"generator": generator, "reference": "sdxl"}), {})
    first = header(exported)
    assert {key: value for key, value in first.items() if key.startswith("license")} == fields
    assert first["base_model"] == bases
    origins = origins_of("generator", str(exported))
    assert [origin.hub for origin in origins] == bases
    if generator is not None:
        assert origins[0] == get_registry().entries["generator"][generator].origin

    config = make_config({"generator": str(exported), "reference": "sdxl"})
    write_model_card(exported / "final", config, {})
    assert {key: header(exported).get(key) for key in first} == first
    text = (exported / "final" / "README.md").read_text(encoding="utf-8")
    assert f"started from [{bases[0]}](https://huggingface.co/{bases[0]}): {origins[0].licence.text}." in text
    assert bool(licence_notices(config)) == origins[0].licence.non_commercial


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("license: mit\n", Licence("mit")),
        ("license: other\nlicense_name: own-nc\nlicense_link: https://a.b\n", OWN),
        ("license: cc-by-nc-sa-4.0\n", Licence("cc-by-nc-sa-4.0", non_commercial=True)),
        (f"license: mit\nbase_model: {SDXL}\n", Licence("mit", f"https://huggingface.co/{SDXL}")),
    ],
)  # fmt: skip
def test_a_folder_of_somebody_else_says_its_licence_in_its_card(card: str, licence: Licence, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{card}---\n# Mine\n", encoding="utf-8")
    assert origins_of("generator", str(tmp_path))[0].licence == licence


@pytest.mark.parametrize("card", ["", "# no header\n", "---\n[\n---\n", "---\n- a list\n---\n", "---\nlicense:\n---\n"])
def test_a_card_that_states_nothing_is_not_read_into(card: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert origins_of("generator", str(tmp_path)) == []
    assert licence_notices(TrainConfig(generator=str(tmp_path), reference="sd15")) == []


def test_weights_from_elsewhere_come_before_those_they_take_the_place_of() -> None:
    given: list[dict[str, Any]] = [
        {"generator": "sdxl", "weights": "somebody/something:unet.safetensors"},
        {"generator": "sdxl-lightning", "lora": ("somebody/something:lora.safetensors=0.5", "./mine.safetensors")},
    ]
    for settings in given:
        origins = start_origins(make_config({**settings, "reference": "sdxl"}))
        assert (origins[0].hub, origins[-1].hub) == ("somebody/something", SDXL)
        assert origins[0].licence.label == "not stated"


def test_a_hub_id_has_the_licence_of_the_name_that_is_published_there() -> None:
    (origin,) = origins_of("generator", "stabilityai/sdxl-turbo")
    assert origin.licence.label == "sai-nc-community"
    (unknown,) = origins_of("generator", "somebody/something")
    assert unknown.licence.label == "not stated"


def test_what_was_fetched_of_a_repository_says_its_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models--somebody--something"
    (place / "snapshots" / "0").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0", encoding="utf-8")
    (place / "snapshots" / "0" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = TrainConfig(generator="somebody/something", reference="sd15", weights="others/unet:a.safetensors")
    assert [origin.licence.label for origin in start_origins(config)] == ["not stated", "cc-by-nc-4.0"]
    (notice,) = licence_notices(config)
    assert notice.startswith("Weights of somebody/something: cc-by-nc-4.0 (not for commercial use)")


def test_a_run_begins_with_what_is_not_for_commercial_use(capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(generator="flux-schnell", reference="flux")
    (notice,) = licence_notices(config)
    assert notice.startswith("Weights of black-forest-labs/FLUX.1-dev: flux-1-dev-non-commercial-license")
    assert licence_notices(TrainConfig(generator="sd15-onestep", reference="sd15")) == []
    with listener(False) as lines:
        lines.dipp_on_run_start(RunStartEvent(config, Path("runs/x"), 0, licences=(notice,)))  # type: ignore[attr-defined]
    assert notice in " ".join(capsys.readouterr().err.split())


def test_a_training_tells_the_licence_and_its_export_keeps_it(exported: Path, tmp_path: Path) -> None:
    write_model_card(exported / "final", make_config({"generator": "sdxl-dmd2", "reference": "sdxl"}), {})
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n", encoding="utf-8")
    notices: list[str] = []

    class Listener:
        def dipp_on_run_start(self, event: RunStartEvent) -> None:
            notices.extend(event.licences)

    config = make_config(
        {
            "generator": str(exported), "reference": str(exported.parent / "twin"), "prompts": str(prompts), "steps": 1,
            "batch_size": 1, "eval_count": 2, "eval_seeds": 2, "reference_steps": 1, "monitor_every": 0,
            "device": "cpu", "precision": "fp32", "out": str(tmp_path / "run"),
        }
    )  # fmt: skip
    train(config, listeners=[Listener()])
    assert [notice.partition(" (")[0] for notice in notices] == ["Weights of tianweiy/DMD2: cc-by-nc-4.0"]
    card = header(tmp_path / "run")
    assert card["license"] == "cc-by-nc-4.0"
    assert card["base_model"] == ["tianweiy/DMD2", SDXL]


def test_a_dry_run_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n", encoding="utf-8")
    words = ["train", "--generator", "sdxl-dmd2", "--reward", "jpeg", "--prompts", str(tmp_path / "prompts.txt")]
    assert main([*words, "--out", str(tmp_path / "run"), "--dry-run", "--set", "device=cpu"]) == 0
    assert "Weights of tianweiy/DMD2: cc-by-nc-4.0" in " ".join(capsys.readouterr().out.split())


def test_plugins_show_licences_and_the_filter_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["generator"]}
    assert rows["sdxl-dmd2"]["licence"] == "cc-by-nc-4.0"
    assert main(["plugins", "generators"]) == 0
    assert "cc-by-nc-4.0" in capsys.readouterr().out
    assert main(["plugins", "cc-by-nc"]) == 0
    listing = capsys.readouterr().out
    assert "sdxl-dmd2: https://huggingface.co/tianweiy/DMD2, licence cc-by-nc-4.0 (not for commercial use" in listing
    assert "sd15-onestep" not in listing
