"""A pipeline with a network that is published alone, as one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.published_world.hub_cache import HubCache
from dipp_pixart.family import write_pixart_sigma_twin
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.files.fetching import hub_id_of, without_fetching
from dipp_toolkit.models.files.folders import resolve_folder
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.registry import get_registry
from tiny import PROMPTS, plain_diffusers


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))


def write_alone(folder: Path, sample_size: int = 4) -> Path:
    """A network of another size, with its configuration and nothing else."""
    whole = write_pixart_sigma_twin(folder / "whole", seed=7, sample_size=sample_size)
    shutil.copytree(whole / "transformer", folder / "alone")
    return folder / "alone"


def test_it_has_the_networks_size_and_weights_and_the_pipelines_parts(tmp_path: Path, noise: Tensor) -> None:
    pipeline, alone = write_pixart_sigma_twin(tmp_path / "pipeline"), write_alone(tmp_path)
    name = f"{pipeline}+{alone}"
    reference = DiffusersReference.load(name)
    assert reference.latent_shape == (4, 4, 4) and DiffusersReference.load(str(pipeline)).latent_shape == (4, 8, 8)
    assert resolve_folder(name) == reference.folder
    expected = DiffusersReference.load(str(tmp_path / "whole")).network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in reference.network.state_dict().items())
    embeddings = [
        DiffusersReference.load(one).encode(PROMPTS).tensors["encoder_hidden_states"] for one in (name, str(pipeline))
    ]
    assert torch.equal(*embeddings)

    noise = noise[..., :4, :4]
    condition = reference.encode(PROMPTS)
    sampled = reference.sample(condition, noise, 2, 3.0)
    torch.testing.assert_close(sampled, plain_diffusers(reference.folder, noise, 2, 3.0), rtol=1e-4, atol=1e-4)
    generator = DiffusersGenerator.load(name, 0.4)
    generator.save_pretrained(tmp_path / "final")
    assert not any(path.is_symlink() for path in (tmp_path / "final").rglob("*"))
    with torch.no_grad():
        ours = generator.generate(noise, condition)
    torch.testing.assert_close(plain_diffusers(tmp_path / "final", noise, 1, 1.0), ours, rtol=1e-4, atol=1e-4)


def test_a_published_name_is_put_together_from_the_hubs_cache(tmp_path: Path) -> None:
    model = get_registry().find("reference", "pixart-sigma-512").factory
    hub = HubCache(tmp_path / "hub")
    shutil.copytree(write_pixart_sigma_twin(tmp_path / "pipeline"), hub.snapshot(model.pipeline), dirs_exist_ok=True)
    alone = hub.snapshot(model.hub) / "transformer"
    shutil.copytree(write_alone(tmp_path), alone, dirs_exist_ok=True)
    with hub.used():
        reference, generator = load_reference("pixart-sigma-512"), load_generator("pixart-sigma-512-onestep")
    assert reference.latent_shape == generator.latent_shape == (4, 4, 4)
    assert isinstance(generator, DiffusersGenerator) and hub_id_of(generator.weights) == model.hub
    assert model.hub == "PixArt-alpha/PixArt-Sigma-XL-2-512-MS"


def test_a_dry_run_goes_on_with_the_pipeline(tmp_path: Path) -> None:
    pipeline = write_pixart_sigma_twin(tmp_path / "pipeline")
    with without_fetching() as noted:
        assert resolve_folder(f"{pipeline}+owner/network:transformer") == pipeline
    assert any("owner/network" in what for what in noted)


def test_what_does_not_belong_together_is_a_sentence(tmp_path: Path) -> None:
    pipeline, alone = write_pixart_sigma_twin(tmp_path / "pipeline"), write_alone(tmp_path)
    with pytest.raises(RequestError, match="There is no pipeline folder"):
        resolve_folder(f"./missing+{alone}")
    config = json.loads((alone / "config.json").read_text())
    (alone / "config.json").write_text(json.dumps(config | {"_class_name": "DiTTransformer2DModel"}))
    with pytest.raises(RequestError, match="holds the weights of a DiTTransformer2DModel"):
        resolve_folder(f"{pipeline}+{alone}")
