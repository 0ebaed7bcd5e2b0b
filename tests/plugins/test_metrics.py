"""Metrics: against the reference packages, against closed forms, and as plugins are used."""

from __future__ import annotations

import colorsys
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dipp_toolkit import CostMetric, Metric, RequestError, RunError, load_metric
from dipp_toolkit.evaluation import mmd, precision_recall
from dipp_toolkit.evaluation.colour import clipped_share, contrast, saturation
from dipp_toolkit.evaluation.diversity import seed_diversity, vendi_scores
from dipp_toolkit.evaluation.frechet import ReferenceFrechet, frechet_distance, frechet_distance_of_gaussians
from dipp_toolkit.evaluation.rank_agreement import pairwise_agreement, rank_agreement
from dipp_toolkit.registry import get_registry
from golden.make_cmmd import formula_features

EMOJI_CLIP = Path(__file__).parents[2] / "plugins" / "dipp_emoji" / "weights" / "clip"
EXTRACTOR = """
import torch
calls = []

def moments(images):
    calls.append(len(images))
    return torch.cat([images.mean((2, 3)), images.std((2, 3)), images[:, :, 0, 0]], 1)

def wrong(images):
    return images.mean()

def failing(images):
    raise KeyError("colour")
"""


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A folder of 24 images of 16 by 16 pixels."""
    folder = tmp_path / "real"
    folder.mkdir()
    for index, picture in enumerate(pictures(24, seed=1)):
        Image.fromarray(picture.mul(255).byte().permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def extractor(tmp_path: Path) -> str:
    path = tmp_path / "features.py"
    path.write_text(EXTRACTOR)
    return f"{path}:moments"


def pictures(count: int, seed: int = 0, side: int = 16) -> Tensor:
    """Random 8-bit images of random brightness."""
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, side, side, generator=random) * torch.rand(count, 3, 1, 1, generator=random)
    return images.mul(255).round() / 255


# --- single images ---


def test_saturation_is_the_mean_of_the_standard_librarys() -> None:
    images = pictures(3)
    images[0, :, 0, 0] = 0
    expected = [np.mean([colorsys.rgb_to_hsv(*pixel)[1] for pixel in image.flatten(1).T.tolist()]) for image in images]
    assert saturation(images).tolist() == pytest.approx(expected, rel=1e-5)


def test_contrast_and_clipped_have_closed_forms() -> None:
    half = torch.zeros(1, 3, 4, 4)
    half[..., :2] = 1
    assert contrast(half).item() == pytest.approx(0.5)
    red = torch.full((1, 3, 4, 4), 0.5)
    red[:, 0, :, :2] = 0.6
    assert contrast(red).item() == pytest.approx(0.299 * 0.05, rel=1e-4)
    for value in range(256):
        share = clipped_share(torch.full((1, 3, 2, 2), value) / 255).item()
        assert share == float(value <= 1 or value >= 254), value
    one_channel = torch.full((1, 3, 2, 2), 0.5)
    one_channel[:, 1, 0, 0] = 1.0
    assert clipped_share(one_channel).item() == 0.25
    with pytest.raises(RequestError, match="shape"):
        saturation(torch.rand(2, 3, 0, 4))


# --- the mathematics ---


@pytest.mark.parametrize("case", json.loads((Path(__file__).parent / "golden" / "cmmd.json").read_text()))
@pytest.mark.parametrize("at_once", [10, 10**7])
def test_cmmd_is_the_references(case: dict[str, float], at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmd, "KERNELS_AT_ONCE", at_once)
    unit, dimensions = bool(case["unit"]), int(case["dimensions"])
    x = torch.from_numpy(formula_features(int(case["x"]), dimensions, 0, 0.0, unit))
    y = torch.from_numpy(formula_features(int(case["y"]), dimensions, 1, case["shift"], unit))
    assert 1000 * mmd.gaussian_mmd(x, y) == pytest.approx(case["cmmd"], rel=1e-8)
    assert 1000 * mmd.gaussian_mmd(x.float(), y.float()) == pytest.approx(case["cmmd"], rel=1e-3)
    assert mmd.gaussian_mmd(x, x) == pytest.approx(0, abs=1e-12)


def test_the_discrepancy_of_two_points_has_a_closed_form() -> None:
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert mmd.gaussian_mmd(x, y, sigma=5.0) == pytest.approx(2 - 2 * math.exp(-0.5))
    for wrong in (torch.zeros(0, 2), torch.full((1, 2), math.nan)):
        with pytest.raises(RequestError, match="eatures"):
            mmd.gaussian_mmd(x, wrong)


@pytest.mark.parametrize(("k", "shift", "at_once"), [(1, 0.0, 10**7), (3, 0.4, 100), (5, 0.2, 10**7)])
def test_neighbours_agree_with_prdc(k: int, shift: float, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from prdc import compute_prdc

    monkeypatch.setattr(precision_recall, "DISTANCES_AT_ONCE", at_once)
    random = np.random.default_rng(k)
    real, made = random.normal(size=(70, 6)), 0.7 * random.normal(size=(60, 6)) + shift
    expected = compute_prdc(real, made, k)
    found = precision_recall.neighbourhood(torch.from_numpy(real), torch.from_numpy(made), k)
    assert expected["precision"] > 0 and 0 < expected["recall"] < 1
    for name, value in (
        ("precision", found.precise.mean().item()), ("density", found.dense.mean().item()),
        ("recall", found.recall), ("coverage", found.coverage),
    ):  # fmt: skip
        assert value == pytest.approx(expected[name], rel=1e-9), name
    with pytest.raises(RequestError, match=f"at least {k + 1} images"):
        precision_recall.neighbour_radii(torch.rand(k, 2), k)


def test_vendi_agrees_with_vendi_score_and_its_limits() -> None:
    from vendi_score import vendi

    features = torch.randn(3, 5, 8, dtype=torch.float64)
    expected = [vendi.score_X(feature.numpy()) for feature in features]
    assert vendi_scores(features).tolist() == pytest.approx(expected, rel=1e-6)
    alike, apart = torch.ones(1, 4, 6), torch.eye(4, 6)[None]
    assert vendi_scores(torch.cat([alike, apart])).tolist() == pytest.approx([1, 4])
    black = torch.zeros(1, 4, 6)
    assert vendi_scores(black).item() == pytest.approx(1)
    black[:, 0] = 1
    assert vendi_scores(black).item() == pytest.approx(math.exp(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75))))


@pytest.mark.parametrize("real_count", [5, 30])
@pytest.mark.parametrize("count", [2, 7, 40])
def test_one_reference_gives_the_same_frechet_distance(count: int, real_count: int) -> None:
    real, made = torch.randn(real_count, 12), 0.5 + torch.randn(count, 12)
    reference = ReferenceFrechet(real)
    moments = [moment for rows in (made.double(), real.double()) for moment in (rows.mean(0), rows.T.cov())]
    # Where covariances are singular, the roots of eigenvalues that should be 0 leave 1e-6 or so.
    assert reference.distance(made) == pytest.approx(
        frechet_distance_of_gaussians(*moments), rel=1e-6 if min(count, real_count) < 13 else 1e-9
    )
    assert frechet_distance(made, real) == reference.distance(made)
    assert reference.distance(real) == pytest.approx(0, abs=1e-5)
    with pytest.raises(RequestError, match="12 features"):
        reference.distance(made[:, :3])


def test_rank_agreement_is_scipys_with_an_interval() -> None:
    from scipy.stats import kendalltau, spearmanr

    judge = torch.randn(60, dtype=torch.float64)
    reward = (judge + torch.randn(60, dtype=torch.float64)).mul(4).round()
    found = rank_agreement(reward, judge)
    assert found.spearman.mean == pytest.approx(spearmanr(reward, judge).statistic)
    assert found.kendall.mean == pytest.approx(kendalltau(reward, judge).statistic)
    for item in (found.spearman, found.kendall):
        assert -1 < item.low < item.mean < item.high < 1
        assert 0.1 < item.high - item.low < 0.6
    assert rank_agreement(judge, -judge.exp()).spearman.as_dict() == pytest.approx({"mean": -1, "low": -1, "high": -1})
    assert found == rank_agreement(reward, judge), "the seed decides"
    with pytest.raises(RequestError, match="every prompt the same"):
        rank_agreement(torch.ones(5), torch.rand(5))
    with pytest.raises(RequestError, match="at least three"):
        rank_agreement(torch.rand(2), torch.rand(2))
    with pytest.raises(RequestError, match="NaN"):
        rank_agreement(torch.rand(4), torch.full((4,), math.nan))


def test_the_interval_of_rank_agreement_covers_as_often_as_it_says() -> None:
    rho, inside = 0.6, 0
    truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's rho of two normal variables
    random = torch.Generator().manual_seed(5)
    for draw in range(60):
        a, noise = torch.randn(2, 80, generator=random)
        found = rank_agreement(a, rho * a + (1 - rho**2) ** 0.5 * noise, seed=draw, resamples=100).spearman
        inside += found.contains(truth)
    assert inside >= 50


def test_pairwise_agreement_counts_decided_prompts() -> None:
    reward_a, reward_b = torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([0.0, 3, 1, 4, 1])
    judge_a, judge_b = torch.tensor([9.0, 1, 0, 1, 7]), torch.tensor([1.0, 8, 5, 0, 7])
    found = pairwise_agreement(reward_a, reward_b, judge_a, judge_b)
    assert (found.share.mean, found.decided, found.ties) == (pytest.approx(2 / 3), 3, 2)
    z, n, p = 1.959964, 3, 2 / 3
    middle, reach = (p + z * z / (2 * n)) / (1 + z * z / n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found.share.low == pytest.approx(middle - reach / (1 + z * z / n), rel=1e-4)
    assert found.share.high == pytest.approx(middle + reach / (1 + z * z / n), rel=1e-4)
    with pytest.raises(RequestError, match="nothing to compare"):
        pairwise_agreement(reward_a, reward_a, judge_a, judge_b)


# --- metrics of images ---


def image_metrics(real: Path, extractor: str) -> dict[str, Metric]:
    folder = {"images": str(real), "features": extractor}
    return {
        name: load_metric(name, **options)
        for name, options in {
            "fid": folder, "cmmd": {**folder, "sigma": 0.5}, "precision-recall": {**folder, "k": 2},
            "vendi": {"features": extractor}, "diversity": {}, "saturation": {}, "contrast": {}, "clipped": {},
            "emoji-frechet": {},
        }.items()
    }  # fmt: skip


def test_every_metric_keeps_its_promises(real: Path, extractor: str) -> None:
    images = pictures(12)
    for name, metric in image_metrics(real, extractor).items():
        assert isinstance(metric, Metric) and not isinstance(metric, CostMetric), name
        prompts = ["a"] * 12
        rows = metric.features(images, prompts)
        alone = torch.cat([metric.features(images[[index]], ["b"]) for index in range(12)])
        torch.testing.assert_close(rows, alone, rtol=1e-4, atol=1e-5, msg=name)
        table = rows.reshape(6, 2, -1)
        for chosen in (torch.arange(6), torch.tensor([0, 5]), torch.tensor([3, 3, 1, 3, 0, 0])):
            found = metric.values(table[chosen])
            assert set(found) == set(metric.better) and set(metric.better.values()) <= {"higher", "lower", ""}, name
            for value in found.values():
                as_tensor = torch.as_tensor(value)
                assert as_tensor.shape in ((), (len(chosen),)) and as_tensor.isfinite().all(), name
                if as_tensor.ndim and name != "precision-recall":  # precision of a prompt depends on no other either
                    torch.testing.assert_close(as_tensor, metric.values(table)[next(iter(found))][chosen])
        with pytest.raises(RequestError, match="one prompt for each"):
            metric.features(images, ["a"])


def test_fid_is_torchmetrics_on_the_same_features(real: Path, tmp_path: Path) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    num_features = 5\n"
        "    def __init__(self):\n        super().__init__()\n        torch.manual_seed(4)\n"
        "        self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.Tanh())\n"
        "    def forward(self, images):\n        return self.net(images).mean((2, 3))\n"
    )
    metric = load_metric("fid", images=str(real), features=f"{tmp_path}/net.py:Net")
    made, real_images = pictures(40, seed=3).sqrt(), pictures(24, seed=1)
    theirs = FrechetInceptionDistance(feature=metric.extractor.network, normalize=True)
    theirs.update(real_images.mul(255).byte().float() / 255, real=True)
    theirs.update(made, real=False)
    found = metric.values(metric.features(made, [""] * 40).reshape(20, 2, -1))["fid"]
    assert found == pytest.approx(theirs.compute().item(), rel=1e-3) and found > 1e-3
    assert metric.notes == []


def test_what_is_constant_is_computed_once(real: Path, extractor: str) -> None:
    for name in ("fid", "cmmd", "precision-recall"):
        metric = load_metric(name, images=str(real), features=extractor)
        calls = metric.extractor.function.__globals__["calls"]
        table = metric.features(pictures(12), [""] * 12).reshape(6, 2, -1)
        first = metric.values(table)
        before = len(calls)
        again = metric.values(table)
        assert len(calls) == before and sum(calls) == 24 + 12
        assert all(torch.equal(torch.as_tensor(first[key]), torch.as_tensor(again[key])) for key in first)


def test_fid_says_when_images_are_too_few(real: Path, extractor: str) -> None:
    metric = load_metric("fid", images=str(real), features=extractor)
    table = metric.features(pictures(8), [""] * 8).reshape(4, 2, -1)
    metric.values(table), metric.values(table)
    assert len(metric.notes) == 1 and "8 made images with 9 features" in metric.notes[0]


def test_the_real_images_themselves_are_perfect(real: Path, extractor: str) -> None:
    images = pictures(24, seed=1).mul(255).byte().float() / 255
    for name, figure, best in (("fid", "fid", 0.0), ("cmmd", "cmmd", 0.0), ("precision-recall", "coverage", 1.0)):
        metric = load_metric(name, images=str(real), features=extractor)
        found = metric.values(metric.features(images, [""] * 24).reshape(12, 2, -1))
        assert float(found[figure]) == pytest.approx(best, abs=1e-6), name


def test_diversity_is_the_toolkits() -> None:
    metric = load_metric("diversity")
    images = pictures(12, side=64).reshape(4, 3, 3, 64, 64)
    found = metric.values(metric.features(images.flatten(0, 1), [""] * 12).reshape(4, 3, -1))["diversity"]
    assert found.mean().item() == pytest.approx(seed_diversity(images))
    large = torch.rand(4, 3, 128, 96)
    small = nn.functional.avg_pool2d(large, 2)
    torch.testing.assert_close(metric.features(large, [""] * 4), small.flatten(1))
    for name in ("diversity", "vendi"):
        with pytest.raises(RequestError, match="at least two noises"):
            load_metric(name).values(torch.rand(4, 1, 8))
        assert load_metric(name).needs_seeds


# --- extractors ---


def test_a_folder_of_transformers_gives_its_clips_embeddings(real: Path) -> None:
    from transformers import CLIPModel

    images = pictures(4, side=64)
    metric = load_metric("cmmd", images=str(real), features=f"clip:{EMOJI_CLIP}")
    found = metric.features(images, [""] * 4)
    model = CLIPModel.from_pretrained(EMOJI_CLIP, attn_implementation="eager").float().eval()
    with torch.no_grad():  # preprocessor_config.json has a mean and a deviation of a half
        raw = model.visual_projection(model.vision_model(images * 2 - 1).pooler_output)
    torch.testing.assert_close(found, raw / raw.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
    assert math.isfinite(metric.values(found.reshape(2, 2, -1))["cmmd"])


def test_a_folder_of_open_clip_gives_unit_embeddings(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 28, "layers": 1, "width": 16, "head_width": 8, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 8, "heads": 1, "layers": 1},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 28}}))
    torch.save(open_clip.CLIP(**config).state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    metric = load_metric("vendi", features=f"clip:{tmp_path}")
    found = metric.features(pictures(4, side=40), [""] * 4)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    assert found.shape == (4, 8) and found.std(0).min() > 0


def test_inception_looks_at_eight_bits_and_reads_only_tensors(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    from torch_fidelity import feature_extractor_inceptionv3 as theirs
    from torchmetrics.image.fid import FrechetInceptionDistance

    class_ = theirs.FeatureExtractorInceptionV3
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *args, **options: {})
    with monkeypatch.context() as patch:
        patch.setattr(class_, "load_state_dict", lambda self, state: None)
        blank = class_("inception-v3-compat", ["2048"])
    weights = tmp_path / "inception.pth"
    torch.save(blank.state_dict(), weights)
    metric = load_metric("fid", images=str(real), weights=str(weights))
    theirs_metric = FrechetInceptionDistance(
        normalize=True, feature_extractor_weights_path=str(weights), antialias=False
    )
    images = pictures(2, side=32)
    with torch.no_grad():
        expected = theirs_metric.inception(images.mul(255).round().byte())
    torch.testing.assert_close(metric.features(images, ["", ""]), expected, rtol=1e-4, atol=1e-6)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    weights.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RequestError, match="refused"):
        load_metric("fid", images=str(real), weights=str(weights))
    assert not (tmp_path / "ran").exists()


def test_without_a_net_inception_says_what_to_fetch(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(RequestError, match=r"cannot be fetched: Name or service not known\. Fetch https://.*weights="):
        load_metric("fid", images=str(real))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("fid", {}, "name it with images=FOLDER"),
        ("fid", {"images": "nowhere"}, "There is no folder nowhere"),
        ("fid", {"images": "REAL", "features": "inceptoin"}, "Did you mean 'inception'"),
        ("fid", {"images": "REAL", "weights": "nowhere.pth"}, "There is no file nowhere.pth"),
        ("fid", {"images": "REAL", "features": "pixels", "weights": "x.pth"}, "belongs to features=inception"),
        ("cmmd", {"images": "REAL", "features": "clip:./nowhere"}, "not a folder of a CLIP|There is no"),
        ("cmmd", {"images": "REAL", "features": "clip:ViT-L-14-336/opnai"}, "Did you mean 'openai'"),
        ("cmmd", {"images": "REAL", "features": "clip:ViT-L-15"}, "Did you mean 'ViT-"),
        ("cmmd", {"images": "REAL"}, "hf download openai/clip-vit-large-patch14-336"),
        (
            "precision-recall",
            {"images": "REAL", "k": 30, "features": "pixels"},
            "at least 31 real images; .* contains 24",
        ),
        ("vendi", {"sigma": 1}, "takes no such option"),
        ("latency", {"batch": 1}, "needs batch >= 2"),
        ("cmmd", {"images": "REAL", "features": "pixels", "sigma": 0}, "needs sigma above 0"),
        ("fidd", {}, "Did you mean 'fid'"),
    ],
)
def test_errors_are_sentences(real: Path, name: str, options: dict[str, object], says: str) -> None:
    options = {key: str(real) if value == "REAL" else value for key, value in options.items()}
    with pytest.raises(RequestError, match=says):
        load_metric(name, **options)


def test_a_users_features_are_checked(real: Path, extractor: str, tmp_path: Path) -> None:
    for function, says in (("wrong", r"shape \(\); expected one row"), ("failing", "failed with KeyError")):
        metric = load_metric("vendi", features=extractor.replace("moments", function))
        with pytest.raises(RunError, match=says):
            metric.features(pictures(2), ["", ""])
    metric = load_metric("fid", images=str(real), features="pixels")
    with pytest.raises(RequestError, match=r"rows of 192 and 768 numbers"):
        metric.values(metric.features(pictures(4, side=8), [""] * 4).reshape(2, 2, -1))


# --- costs ---


class Source:
    """Takes a known time an image, on its own clock, and a known memory a call."""

    evaluations = 1
    device = torch.device("cpu")

    def __init__(self) -> None:
        shared = nn.Linear(100, 100, bias=False)
        self.networks = {"network": nn.Sequential(shared, nn.Linear(100, 50)), "vae": shared}
        self.calls: list[tuple[list[str], list[int]]] = []
        self.seconds = 0.0

    def images(self, prompts: list[str], seeds: list[int]) -> Tensor:
        self.calls.append((list(prompts), list(seeds)))
        held = torch.ones(100 * 2**18)  # 100 MiB
        self.seconds += 0.02 + 0.001 * len(prompts)
        return held[: 12 * len(prompts)].reshape(-1, 3, 2, 2)


def test_latency_is_the_time_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    source, metric = Source(), load_metric("latency", repeats=4, warmup=1)
    monkeypatch.setattr("dipp_metrics.costs.perf_counter", lambda: source.seconds)
    found = metric.costs(source, ["a", "b", "c"])
    assert isinstance(metric, CostMetric) and set(found) == set(metric.better)
    assert [len(source.calls), *map(len, found.values())] == [10, 4, 4]
    assert found["latency"] == pytest.approx([0.021] * 4)
    assert found["latency-batch-8"] == pytest.approx([(0.02 + 0.008) / 8] * 4)
    assert source.calls[1] == (["a"], [0]) and source.calls[2] == (["b"], [1])
    assert len(source.calls[-1][0]) == 8 and len(set(source.calls[-1][1])) == 8
    hasty = load_metric("latency", repeats=50, warmup=0, seconds=0.0)
    assert len(hasty.costs(source, ["a"])["latency"]) == 3
    with pytest.raises(RequestError, match="at least one prompt"):
        metric.costs(source, [])


def test_memory_is_what_a_batch_holds() -> None:
    found = load_metric("memory").costs(Source(), ["a"])["memory"]
    assert len(found) == 3
    assert all(95 < item < 150 for item in found), found


def test_parameters_count_shared_ones_once() -> None:
    metric = load_metric("parameters")
    found = metric.costs(Source(), [])
    assert found == {"parameters": [0.01505], "parameters-network": [0.01505], "parameters-vae": [0.01]}
    assert set(metric.better) == set(found)


# --- the emoji world, and a user's own file ---


def test_metrics_of_real_compositions_are_the_recorded_ones() -> None:
    from dipp_emoji.metrics import real_images
    from dipp_toolkit import load_prompts
    from dipp_toolkit.protocols import texts

    benchmark = Path(__file__).parents[2] / "benchmarks" / "emoji_quality" / "results.json"
    recorded = json.loads(benchmark.read_text())["columns"]["real compositions"]
    prompts = [text for text in texts(load_prompts("emoji-heldout")) for _ in range(2)]
    images = real_images(seed=2).mul(255).round() / 255
    for name, key in (("emoji-frechet", "frechet"), ("emoji-naming", "naming"), ("diversity", "diversity")):
        metric = load_metric(name)
        parts = [metric.features(images[k : k + 176], prompts[k : k + 176]) for k in range(0, len(images), 176)]
        found = metric.values(torch.cat(parts).reshape(352, 2, -1))[name]
        assert torch.as_tensor(found).mean().item() == pytest.approx(recorded[key], rel=2e-3), name


def test_emoji_metrics_know_real_compositions() -> None:
    from dipp_emoji.judge import EmojiJudge
    from dipp_emoji.metrics import real_images
    from dipp_toolkit import load_prompts
    from dipp_toolkit.protocols import texts

    prompts = [text for text in texts(load_prompts("emoji-heldout"))[:40] for _ in range(2)]
    images = real_images(seed=2)[:80]
    naming, frechet = load_metric("emoji-naming"), load_metric("emoji-frechet")
    flags = naming.features(images, prompts)
    found = naming.values(flags.reshape(40, 2, 1))["emoji-naming"]
    assert found.mean().item() == pytest.approx(EmojiJudge().naming_accuracy(images, prompts)) and found.mean() > 0.9
    distances = [
        frechet.values(frechet.features(item, prompts).reshape(40, 2, -1))["emoji-frechet"]
        for item in (images, images.mul(0.7), torch.rand_like(images))
    ]
    assert distances == sorted(distances) and len(frechet.notes) == 1
    with pytest.raises(RequestError, match="not a caption of the emoji world"):
        naming.features(images[:1], ["a photograph of a dog"])


@pytest.mark.parametrize(
    ("attribute", "options", "says"),
    [
        ("Red", {"gain": 2.0}, ""),
        ("red", {}, ""),
        ("make", {"gain": 2.0}, ""),
        ("Red", {"gian": 2.0}, "Did you mean 'gain'"),
        ("Needy", {}, "missing a required argument: 'folder'"),
        ("red", {"gain": 1.0}, "takes no options"),
        ("Half", {}, "`features` and `values`, or `costs`"),
    ],
)
def test_a_file_is_a_metric(tmp_path: Path, attribute: str, options: dict[str, float], says: str) -> None:
    (tmp_path / "mine.py").write_text(
        "class Red:\n"
        "    better = {'red': ''}\n"
        "    def __init__(self, gain=2.0):\n        self.gain = gain\n"
        "    def features(self, images, prompts):\n        return self.gain * images[:, :1].mean((2, 3))\n"
        "    def values(self, features):\n        return {'red': features.mean((1, 2))}\n"
        "def make(gain):\n    return Red(gain)\n"
        "red = Red()\n"
        "class Half:\n    better = {}\n"
        "class Needy(Red):\n    def __init__(self, folder):\n        pass\n"
    )
    name = f"{tmp_path}/mine.py:{attribute}"
    if says:
        with pytest.raises(RequestError, match=says):
            load_metric(name, **options)
        return
    metric = load_metric(name, **options)
    assert metric.features(torch.full((2, 3, 4, 4), 0.25), ["", ""]).tolist() == [[0.5], [0.5]]


def test_the_docs_examples_work(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    examples = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", page, re.DOTALL))
    (tmp_path / "blueness.py").write_text(examples["blueness.py"])
    metric = load_metric(f"{tmp_path}/blueness.py:Blueness")
    assert isinstance(metric, Metric)
    images = pictures(6)
    found = metric.values(metric.features(images, [""] * 6).reshape(3, 2, -1))["blueness"]
    torch.testing.assert_close(found, images[:, 2].mean((1, 2)).reshape(3, 2).mean(1))
    scores = dict(zip(("reward_a", "reward_b", "judge_a", "judge_b"), torch.rand(4, 20), strict=True))
    exec(compile(examples["agreement.py"], "agreement.py", "exec"), scores)
    assert 0 <= scores["pairs"].share.low <= scores["pairs"].share.high <= 1
    registered = {entry.name for entry in get_registry() if entry.kind == "metric"}
    table = page.partition("## Against")[0]
    assert registered == set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
