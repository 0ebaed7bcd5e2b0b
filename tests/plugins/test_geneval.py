"""GenEval: the verdict is the published one, detectors are read rightly, and bad input is a sentence."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.geneval.finder import EmojiFinder, nearest_tint
from benchmarks.geneval.run import measured, reward_of
from benchmarks.geneval.scenes import draw, scenes
from bombs import write_bomb
from dipp_geneval import original
from dipp_geneval.colours import ClipColours, crop_of
from dipp_geneval.detectors import OpenDetector, as_named, boxes_of
from dipp_geneval.metadata import COLOURS, RELATIONS, Metadata, of_prompt, read_metadata
from dipp_geneval.reward import GenEval
from dipp_geneval.verdict import Detections, Found, Thresholds, counted, overlap, relations, verdict_of
from dipp_toolkit.errors import DippError, RequestError, RunError
from dipp_toolkit.experiments.bench.score_cache import version_of
from dipp_toolkit.models.files.fetching import without_fetching
from dipp_toolkit.rewards.code_digests import identity_of
from dipp_toolkit.rewards.isolated.environments import find_registered
from dipp_toolkit.rewards.loading import load_reward

ROOT = Path(__file__).parents[2]


# --- the published rules, written a second time: arrays per class, one loop of conditions -----------------------------


def published(row: dict[str, Any], found: Detections, colours: dict[int, str], options: Thresholds) -> bool:
    """Whether an image is correct, by indices into the detections; `colours` has one of each."""
    bar = options.counting_threshold if row.get("tag") == "counting" else options.threshold
    by_class: dict[str, list[int]] = {}
    for name in set(found.labels):
        mine = sorted((i for i, label in enumerate(found.labels) if label == name and found.scores[i] > bar),
                      key=lambda i: -found.scores[i])[: options.max_objects]  # fmt: skip
        left: list[int] = []
        while mine:
            left.append(mine.pop(0))
            if options.max_overlap != 1:
                mine = [i for i in mine if _iou(found.boxes[left[-1]], found.boxes[i]) < options.max_overlap]
        by_class[name] = left
    good, groups = True, []
    for clause in row["include"]:
        some: list[int] | None = by_class.get(clause["class"], [])[: clause["count"]]
        assert some is not None
        if len(some) < clause["count"]:
            some = None
        if some is not None and "color" in clause and any(colours[i] != clause["color"] for i in some):
            some = None
        if some is not None and "position" in clause:
            relation, target = clause["position"]
            others = groups[target]
            stands = others is not None and all(
                relation in _stands(found.boxes[i], found.boxes[j], options.position_threshold)
                for i in some
                for j in others
            )
            some = some if stands else None
        good &= some is not None
        groups.append(some)
    return good and all(len(by_class.get(clause["class"], [])) < clause["count"] for clause in row.get("exclude", []))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 1, 0, None)
    both = np.prod(np.clip(a[2:] - a[:2] + 1, 0, None)) + np.prod(np.clip(b[2:] - b[:2] + 1, 0, None))
    return float(np.prod(sides) / (both - np.prod(sides)))


def _stands(a: np.ndarray, b: np.ndarray, share: float) -> set[str]:
    offset = (a[:2] + a[2:]) / 2 - (b[:2] + b[2:]) / 2
    moved = np.sign(offset) * np.clip(np.abs(offset) - share * (a[2:] - a[:2] + b[2:] - b[:2]), 0, None)
    if (np.abs(moved) < 1e-3).all():
        return set()
    x, y = moved / np.sqrt((offset**2).sum())
    return {name for name, holds in zip(RELATIONS, (x < -0.5, x > 0.5, y < -0.5, y > 0.5), strict=True) if holds}


def random_case(choose: random.Random) -> tuple[dict[str, Any], Detections, dict[int, str], Thresholds]:
    """Few classes, counts and colours, so that clauses hold about as often as not."""
    names, colours = ("cow", "cup", "dog")[: choose.randint(1, 3)], ("red", "blue")
    include: list[dict[str, Any]] = []
    for number in range(choose.randint(1, 3)):
        clause: dict[str, Any] = {"class": choose.choice(names), "count": choose.choice((1, 1, 2, 3))}
        if choose.random() < 0.4:
            clause["color"] = choose.choice(colours)
        if number and choose.random() < 0.5:
            clause["position"] = [choose.choice(RELATIONS), choose.randrange(number)]
        include.append(clause)
    exclude = [{"class": clause["class"], "count": clause["count"] + 1} for clause in include if choose.random() < 0.3]
    row = {"prompt": "p", "tag": choose.choice(("counting", "position")), "include": include, "exclude": exclude}
    count = choose.randint(0, 8)
    corners = np.array([[choose.uniform(0, 80), choose.uniform(0, 80)] for _ in range(count)]).reshape(-1, 2)
    sides = np.array([[choose.uniform(4, 40), choose.uniform(4, 40)] for _ in range(count)]).reshape(-1, 2)
    scores = np.array([choose.choice((0.2, 0.95)) + 0.04 * choose.random() for _ in range(count)])
    found = Detections(
        [choose.choice(names) for _ in range(count)], scores, np.concatenate([corners, corners + sides], 1)
    )
    likely = choose.choice(colours)
    named = {index: likely if choose.random() < 0.8 else choose.choice(colours) for index in range(count)}
    options = Thresholds(max_objects=choose.choice((16, 2)), max_overlap=choose.choice((1.0, 0.3)))
    return row, found, named, options


def test_verdicts_are_the_published_ones_on_random_detections() -> None:
    choose = random.Random(0)
    seen = {True: 0, False: 0}
    for _ in range(6000):
        row, found, named, options = random_case(choose)
        places = {tuple(map(float, box)): named[index] for index, box in enumerate(found.boxes)}
        verdict = verdict_of(
            counted(found, row["tag"], options),
            Metadata.model_validate(row),
            lambda name, some, places=places: [places[one.box] for one in some],
            options,
        )
        assert verdict.correct is published(row, found, named, options), (row, found, named, options)
        assert (verdict.share == 1) is verdict.correct and 0 <= verdict.share <= 1
        seen[verdict.correct] += 1
    assert min(seen.values()) > 300, seen


# --- cases by hand ----------------------------------------------------------------------------------------------------

COW = {"class": "cow", "count": 1}


def at(*places: tuple[str, float, float], score: float = 0.95) -> Detections:
    """Objects of 10 pixels a side around these places."""
    centres = np.array([[x, y] for _, x, y in places], float).reshape(-1, 2)
    return Detections(
        [name for name, *_ in places], np.full(len(places), score), np.concatenate([centres - 5, centres + 5], 1)
    )


def judged(found: Detections, include: list[dict[str, Any]], exclude: Sequence[dict[str, Any]] = (), tag: str = "",
           colours: Sequence[str] = ("red",)) -> tuple[bool, float, str]:  # fmt: skip
    row = Metadata.model_validate({"prompt": "p", "tag": tag, "include": include, "exclude": exclude})
    verdict = verdict_of(counted(found, tag, Thresholds()), row, lambda name, some: list(colours)[: len(some)])
    return verdict.correct, verdict.share, "; ".join(verdict.reasons)


def test_single_and_two_objects() -> None:
    assert judged(at(("cow", 20, 20), ("dog", 50, 50)), [COW]) == (True, 1.0, "")
    assert judged(at(("dog", 20, 20)), [COW]) == (False, 0.0, "expected at least 1 cow, found 0")
    both = [COW, {"class": "dog", "count": 1}]
    assert judged(at(("cow", 20, 20), ("dog", 20, 20)), both)[0]
    assert judged(at(("cow", 20, 20)), both) == (False, 0.5, "expected at least 1 dog, found 0")


@pytest.mark.parametrize(
    ("shown", "correct", "share"), [(0, False, 0.0), (2, False, 0.0), (3, True, 1.0), (4, False, 0.5)]
)
def test_counting_wants_neither_fewer_nor_more(shown: int, correct: bool, share: float) -> None:
    three = [{"class": "cow", "count": 3}], [{"class": "cow", "count": 4}]
    places = [("cow", 20.0 * number, 20.0) for number in range(shown)]
    verdict = judged(at(*places), *three, tag="counting")
    assert verdict[:2] == (correct, share)
    if shown == 4:
        assert verdict[2] == "expected fewer than 4 cow, found 4"


def test_counting_needs_more_certainty() -> None:
    found = at(("cow", 20, 20), score=0.9)
    assert judged(found, [COW], tag="single_object")[0]
    assert not judged(found, [COW], tag="counting")[0]  # more than 0.9, and not 0.9
    assert not judged(at(("cow", 20, 20), score=0.3), [COW])[0]


@pytest.mark.parametrize(
    ("x", "y", "holds"),
    [
        (20, 50, {"left of"}), (80, 50, {"right of"}), (50, 20, {"above"}), (50, 80, {"below"}),
        (20, 20, {"left of", "above"}), (80, 80, {"right of", "below"}),
        (52, 48, set()),  # nearer than a tenth of both objects' sides
        (54, 50, set()),  # beyond that, yet less than half of the offset
        (55, 50, {"right of"}),  # (5 - 2) / 5 is more than half
    ],
)  # fmt: skip
def test_positions_have_four_directions(x: float, y: float, holds: set[str]) -> None:
    assert relations((x - 5, y - 5, x + 5, y + 5), (45, 45, 55, 55)) == holds
    for relation in RELATIONS:
        placed = [{"class": "dog", "count": 1}, {**COW, "position": [relation, 0]}]
        verdict = judged(at(("dog", 50, 50), ("cow", x, y)), placed)
        assert verdict[0] is (relation in holds)
        assert verdict[1] == (1.0 if verdict[0] else pytest.approx(2 / 3))


def test_a_position_needs_both_objects() -> None:
    placed = [{"class": "dog", "count": 1}, {**COW, "position": ["left of", 0]}]
    assert judged(at(("cow", 5, 5)), placed) == (
        False, pytest.approx(1 / 3), "expected at least 1 dog, found 0; nothing is there for cow to be left of",
    )  # fmt: skip
    assert judged(at(("dog", 5, 5)), placed)[1] == pytest.approx(1 / 3)


def test_colours_are_of_the_most_certain_objects() -> None:
    red = [{"class": "cow", "count": 2, "color": "red"}]
    two = at(("cow", 20, 20), ("cow", 50, 50))
    assert judged(two, red, colours=["red", "red"]) == (True, 1.0, "")
    assert judged(two, red, colours=["red", "blue"]) == (False, 0.5, "expected 2 red cow, found 1 red, 1 blue")
    more = Detections(["cow"] * 3, np.array([0.5, 0.9, 0.8]), np.arange(12.0).reshape(3, 4))
    assert [one.box[0] for one in counted(more, "colors", Thresholds())["cow"]] == [4, 8, 0]


def test_overlaps_count_unless_told_otherwise() -> None:
    assert overlap((0, 0, 9, 9), (0, 0, 9, 9)) == 1
    assert overlap((0, 0, 9, 9), (5, 0, 14, 9)) == pytest.approx(50 / 150)
    twice = at(("cow", 20, 20), ("cow", 21, 20))
    assert len(counted(twice, "", Thresholds())["cow"]) == 2
    assert len(counted(twice, "", Thresholds(max_overlap=0.5))["cow"]) == 1
    many = at(*[("cow", float(x), 0.0) for x in range(20)])
    assert len(counted(many, "", Thresholds())["cow"]) == 16


# --- metadata ---------------------------------------------------------------------------------------------------------


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "metadata.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROW = {"tag": "single_object", "include": [COW], "prompt": "a photo of a cow"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "line 1, are not JSON"),
        ("[1]", "line 1: Input should be a valid dictionary"),
        ({"prompt": "p"}, "include: Field required"),
        ({"prompt": "p", "include": []}, "include: Tuple should have at least 1 item"),
        ({**ROW, "include": [{"class": "cow", "count": 0}]}, "include.0.count: Input should be greater than"),
        ({**ROW, "include": [{**COW, "color": "mauve"}]}, "include.0.color: Input should be 'red', "),
        ({**ROW, "include": [{**COW, "colour": "red"}]}, "include.0.colour: Extra inputs are not permitted"),
        ({**ROW, "include": [{**COW, "position": ["left of", 0]}]}, "points to clause 0, which is no earlier one"),
        ({**ROW, "include": [COW, {**COW, "position": ["near", 0]}]}, "include.1.position.0: Input should be"),
        ({**ROW, "tag": "Counting"}, "tag: There is no task named 'Counting'. Did you mean 'counting'? Known: color"),
        ({**ROW, "excludes": [COW]}, "there is no field 'excludes'. Did you mean 'exclude'?"),
        ({**ROW, "exclude": [{**COW, "color": "red"}]}, "an exclude clause has a class and a count alone"),
        ("\n\n", "are empty; expected a line a prompt"),
    ],
)  # fmt: skip
def test_bad_metadata_are_a_sentence(tmp_path: Path, row: Any, why: str) -> None:
    with pytest.raises(RequestError) as told:
        read_metadata(written(tmp_path, row))
    assert why in str(told.value)


def test_other_fields_of_metadata_are_passed_over(tmp_path: Path) -> None:
    (row,) = read_metadata(written(tmp_path, {**ROW, "tag": "", "prompt_id": 3, "stage": 1, "target": "mine"})).values()
    assert row.tag == "" and len(row.include) == 1


def test_metadata_that_contradict_are_refused_and_repeated_ones_are_not(tmp_path: Path) -> None:
    assert len(read_metadata(written(tmp_path, ROW, ROW))) == 1
    with pytest.raises(RequestError, match="say two different things of the prompt 'a photo of a cow'"):
        read_metadata(written(tmp_path, ROW, {**ROW, "include": [{"class": "cow", "count": 2}]}))


def test_an_unknown_prompt_names_the_nearest(tmp_path: Path) -> None:
    rows = read_metadata(written(tmp_path, ROW))
    assert of_prompt(rows, " a photo of a cow\n").include[0].name == "cow"
    with pytest.raises(
        RunError, match=r"no metadata of the prompt 'a photo of a crow'\. The one most like it is 'a photo of a cow'"
    ):
        of_prompt(rows, "a photo of a crow")


# --- colours ----------------------------------------------------------------------------------------------------------


def test_crops_are_those_of_the_published_pipeline() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    mask = np.zeros((30, 40), bool)
    mask[8:20, 11:30] = np.random.default_rng(1).random((12, 19)) > 0.3
    box = (10.6, 7.4, 29.5, 21.2)
    picture = Image.fromarray(pixels)
    expected = np.asarray(
        Image.composite(picture, Image.new("RGB", picture.size, "#999"), Image.fromarray(mask)).crop(box)
    )
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    crop = crop_of(image, Found(box, mask))
    assert torch.equal(crop.mul(255).round().byte().permute(1, 2, 0), torch.from_numpy(expected.copy()))
    assert crop_of(image, Found((60, 60, 60, 60))).shape == (3, 1, 1)  # outside: a pixel at the edge


def test_clip_names_colours_as_zero_shot_classification_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against open_clip's own classifier builder, with a tiny CLIP of random weights."""
    import open_clip
    from open_clip.model import CLIP

    from dipp_geneval import colours as module
    from dipp_toolkit.rewards.open_clip_models import preprocess_of

    torch.manual_seed(0)
    network = CLIP(
        16, {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    ).eval()  # fmt: skip
    monkeypatch.setattr(module, "load_clip", lambda *_: (network, preprocess_of(network)))
    namer = ClipColours("ViT-L-14-quickgelu", "openai")
    images = torch.rand(6, 3, 20, 24)
    vectors = open_clip.build_zero_shot_classifier(
        network, open_clip.get_tokenizer("ViT-L-14"), list(COLOURS),
        [f"a photo of a {{}}{rest}".format for rest in (" cow", "-colored cow", " object")],
    )  # fmt: skip
    torch.testing.assert_close(namer._vectors_of("cow", torch.device("cpu")), vectors.T, atol=1e-6, rtol=0)
    before = identity_of(namer)
    transform = open_clip.image_transform(32, is_train=False)
    for image in images:
        pixels = image.mul(255).round().byte().permute(1, 2, 0).numpy()
        features = network.encode_image(transform(Image.fromarray(pixels))[None], normalize=True)
        (named,) = namer(image.mul(255).round().div(255), "cow", [Found((0, 0, 24, 20))])
        assert named == COLOURS[int((features @ vectors).argmax())]
    namer(images[0], "dog", [Found((0, 0, 24, 20))])
    assert identity_of(namer) == before  # the vectors of another class are no other namer


# --- detectors --------------------------------------------------------------------------------------------------------


def tiny_segmenter(folder: Path) -> Path:
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    names = ["cow", "mouse", "Sofa"]
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(
            image_size=32, patch_size=2, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=8, dim_feedforward=8,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=6, id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )  # fmt: skip
    network = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        network.class_predictor.weight.mul_(60)  # so that some are certain
    network.save_pretrained(folder)
    Mask2FormerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def tiny_boxer(folder: Path) -> Path:
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=8, num_detection_tokens=5, id2label={0: "cow", 1: "remote"}, label2id={"cow": 0, "remote": 1},
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_segmenter_of_transformers_is_read_rightly(tmp_path: Path) -> None:
    """Labels, scores, masks and boxes against the arithmetic of mask classification, done here by hand."""
    detector = OpenDetector(tiny_segmenter(tmp_path))
    assert list(detector.classes) == ["cow", "computer mouse", "couch"]
    image = torch.rand(3, 20, 28).mul(255).round().div(255)
    found = detector(torch.stack([image, 1 - image]))
    alone = detector((1 - image)[None])[0]
    assert np.array_equal(found[1].scores, alone.scores)  # an image does not depend on its neighbours
    inputs = detector.processor(images=[image.mul(255).byte().permute(1, 2, 0).numpy()], return_tensors="pt")
    with torch.no_grad():
        outputs = detector.network(**inputs)
    likely = outputs.class_queries_logits[0].softmax(-1)[:, :-1].flatten()
    masks = torch.nn.functional.interpolate(outputs.masks_queries_logits, (384, 384), mode="bilinear")[0]
    expected = []
    for index in likely.topk(6).indices.tolist():
        mask = masks[index // 3]
        inside = (mask > 0).float()
        score = likely[index] * (mask.sigmoid() * inside).sum() / (inside.sum() + 1e-6)
        small = torch.nn.functional.interpolate(inside[None, None], (20, 28), mode="nearest")[0, 0] > 0
        if score >= 0.05 and small.any():
            rows, columns = small.any(1).nonzero()[:, 0], small.any(0).nonzero()[:, 0]
            box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            name = ("cow", "computer mouse", "couch")[index % 3]
            expected.append((name, round(float(score), 4), box, int(small.sum())))
    assert found[0].masks is not None
    seen = [
        (label, round(float(score), 4), tuple(map(int, box)), int(mask.sum()))
        for label, score, box, mask in zip(
            found[0].labels, found[0].scores, found[0].boxes, found[0].masks, strict=True
        )
    ]
    assert sorted(seen) == sorted(expected) and seen


def test_a_detector_without_masks_is_read_rightly(tmp_path: Path) -> None:
    detector = OpenDetector(tiny_boxer(tmp_path))
    assert list(detector.classes) == ["cow", "tv remote"]
    (found,) = detector(torch.rand(1, 3, 20, 28))
    assert found.masks is None and len(found.labels) == len(found.scores) == len(found.boxes) > 0
    assert set(found.labels) <= {"cow", "tv remote"}
    assert (found.boxes[:, 2] <= 28.5).all()


def tiny_detr(folder: Path, kind: str) -> Path:
    import transformers

    torch.manual_seed(0)
    family = kind.removesuffix("ForObjectDetection").removesuffix("ForSegmentation")
    config = getattr(transformers, f"{family}Config")(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=8, decoder_attention_heads=8,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=5, use_timm_backbone=False, use_pretrained_backbone=False,
        backbone=None, id2label={0: "cow", 1: "remote"}, label2id={"cow": 0, "remote": 1},
        backbone_config=transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, layer_type="basic",
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
    )  # fmt: skip
    getattr(transformers, kind)(config).save_pretrained(folder)
    getattr(transformers, f"{family}ImageProcessor")(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["DetrForObjectDetection", "DetrForSegmentation", "ConditionalDetrForObjectDetection"])
def test_a_detr_gives_boxes_by_the_class_that_its_configuration_names(tmp_path: Path, kind: str) -> None:
    detector = OpenDetector(tiny_detr(tmp_path, kind))
    assert type(detector.network).__name__ == kind
    image = torch.rand(3, 20, 28).mul(255).round().div(255)
    (found,) = detector(image[None])
    inputs = detector.processor(images=[image.mul(255).byte().permute(1, 2, 0).numpy()], return_tensors="pt")
    with torch.no_grad():
        outputs = detector.network(**inputs)
    middle, sides = outputs.pred_boxes[0].split(2, -1)
    corners = torch.cat([middle - sides / 2, middle + sides / 2], -1) * torch.tensor([28.0, 20.0, 28.0, 20.0])
    assert found.masks is None and len(found.labels) > 0 and set(found.labels) <= {"cow", "tv remote"}
    for box in found.boxes:
        assert (corners - torch.from_numpy(box)).abs().amax(1).min() < 1e-4


@pytest.mark.parametrize(
    ("kind", "named"),
    [("DetrForObjectDetection", "DetrForSegmentation"), ("DetrForSegmentation", "DetrForObjectDetection")],
)
def test_a_checkpoint_of_another_class_is_refused(tmp_path: Path, kind: str, named: str) -> None:
    config = json.loads((tiny_detr(tmp_path, kind) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": [named]}))
    with pytest.raises(RequestError, match=rf"do not fit: .* tensors of {named} are missing or of another shape"):
        OpenDetector(tmp_path)


def test_a_checkpoint_without_its_head_is_refused(tmp_path: Path) -> None:
    from transformers import Mask2FormerForUniversalSegmentation

    network = Mask2FormerForUniversalSegmentation.from_pretrained(tiny_segmenter(tmp_path))
    network.model.save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=r"are missing or of another shape, such as 'class_predictor\.bias'"):
        OpenDetector(tmp_path)


def test_a_model_that_says_neither_masks_nor_boxes_is_refused(tmp_path: Path) -> None:
    from transformers import EomtConfig, EomtImageProcessor

    EomtConfig().save_pretrained(tmp_path)
    EomtImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=r"EomtImageProcessor.* neither masks of their own nor boxes; the reward"):
        OpenDetector(tmp_path)


def test_a_detector_is_known_by_weights_configuration_and_processor(tmp_path: Path) -> None:
    places = [tiny_boxer(tmp_path / name) for name in ("one", "moved", "processor", "config", "weights")]
    for place, file, field, value in (
        (places[2], "preprocessor_config.json", "size", {"height": 40, "width": 32}),
        (places[3], "config.json", "layer_norm_eps", 1e-3),
    ):
        content = json.loads((place / file).read_text())
        assert content[field] != value
        (place / file).write_text(json.dumps({**content, field: value}))
    detectors = [OpenDetector(place) for place in places]
    detectors[4].network.bbox_predictor.layers[0].bias.data.add_(1)
    identities = [detector.score_identity() for detector in detectors]
    assert identities[0] == identities[1] and len(set(identities)) == 4
    metadata = str(written(tmp_path, ROW))
    versions = [version_of("geneval", {}, GenEval(detector, metadata)) for detector in detectors]
    assert versions[0] == versions[1] and len(set(versions)) == 4  # so the bench keeps their scores apart


def test_boxes_are_the_extents_of_masks() -> None:
    masks = np.zeros((2, 6, 9), bool)
    masks[0, 2:4, 3:8] = True
    assert boxes_of(masks).tolist() == [[3, 2, 8, 4], [0, 0, 0, 0]]


def test_detections_of_different_lengths_are_a_sentence() -> None:
    with pytest.raises(RunError, match=r"found 3 labels with scores of shape \(2,\); expected \(3,\), one for each"):
        Detections(["cow", "dog", "cup"], np.ones(2), at(("cow", 1, 1), ("dog", 2, 2)).boxes)


def test_classes_of_coco_are_named_as_genevals() -> None:
    assert [as_named(name) for name in ("Remote", "keyboard", "mouse", "cow", "traffic_light")] == [
        "tv remote", "computer keyboard", "computer mouse", "cow", "traffic light",
    ]  # fmt: skip


# --- the reward -------------------------------------------------------------------------------------------------------


def test_scenes_of_emoji_get_the_verdict_that_is_true() -> None:
    rows = measured(9, 0.05)
    assert [row["correct"] for row in rows] == [row["right"] for row in rows]
    assert {row["right"] for row in rows} == {True, False}
    assert all((row["share"] == 1) is row["correct"] for row in rows)


def test_scores_are_verdicts_or_shares(tmp_path: Path) -> None:
    made = scenes(12)[8:]  # wrong ones
    images = torch.stack([draw(scene, torch.Generator().manual_seed(1), 0.05) for scene in made])
    reward, prompts = reward_of(made, tmp_path)
    assert reward.differentiable is False
    assert torch.equal(reward(images, prompts), torch.zeros(4))
    shares = reward_of(made, tmp_path, output="share")[0](images, prompts)
    assert shares.dtype == torch.float32 and shares.max() < 1 and shares.max() > 0


FILE = """
import numpy as np
from dipp_geneval.verdict import Detections

class Corner:
    \"\"\"A bright upper left quarter is a cow.\"\"\"
    classes = ("cow", "dog")

    def __call__(self, images):
        return [self.one(image) for image in images]

    def one(self, image):
        height, width = image.shape[1] // 2, image.shape[2] // 2
        mean = float(image[:, :height, :width].mean())
        return Detections(["cow"], np.array([mean]), np.array([[0, 0, width, height]]))

class Silent:
    classes = ("cow",)

    def __call__(self, images):
        return []

class Nameless:
    def __call__(self, images):
        return []

def mauve(image, name, found):
    return ["mauve"] * len(found)

class Red:
    def __call__(self, image, name, found):
        return ["red"] * len(found)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_what_decides_a_score_is_its_identity(file: Path) -> None:
    one, two = file.parent / "one", file.parent / "two"
    for folder in (one, two):
        folder.mkdir()
    paths = (written(one, ROW), written(two, {**ROW, "include": [{"class": "cow", "count": 2}]}))
    rewards = [
        load_reward("geneval", detector=f"{file}:{name}", metadata=str(path), **options)
        for name, path, options in (
            ("Corner", paths[0], {}),
            ("Corner", paths[0], {}),
            ("Silent", paths[0], {}),
            ("Corner", paths[1], {}),
            ("Corner", paths[0], {"output": "share"}),
            ("Corner", paths[0], {"threshold": 0.4}),
        )
    ]
    identities = [reward.score_identity() for reward in rewards]  # type: ignore[attr-defined]
    assert identities[0] == identities[1] and len(set(identities)) == 5


def test_a_detector_of_ones_own(file: Path) -> None:
    path = written(file.parent, ROW, {**ROW, "prompt": "a bird", "include": [{"class": "bird", "count": 1}]})
    reward = load_reward("geneval", detector=f"{file}:Corner", metadata=str(path))
    images = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.8)])
    assert torch.equal(reward(images, ["a photo of a cow"] * 2), torch.tensor([0.0, 1.0]))
    with pytest.raises(RunError, match="ask for 'bird', which the detector of the reward 'geneval' does not know"):
        reward(images, ["a bird"] * 2)
    silent = load_reward("geneval", detector=f"{file}:Silent", metadata=str(path))
    with pytest.raises(RunError, match="answered for 0 of 2 images"):
        silent(images, ["a photo of a cow"] * 2)
    with pytest.raises(DippError, match="without classes"):
        load_reward("geneval", detector=f"{file}:Nameless", metadata=str(path))


def test_a_colour_that_is_none_is_a_sentence(file: Path) -> None:
    path = written(file.parent, {**ROW, "include": [{**COW, "color": "red"}]})
    reward = load_reward("geneval", detector=f"{file}:Corner", metadata=str(path), colours=f"{file}:mauve")
    with pytest.raises(RunError, match="named the colour 'mauve'; expected one of red, orange"):
        reward(torch.ones(1, 3, 8, 8), ["a photo of a cow"])
    red = load_reward("geneval", detector=f"{file}:Corner", metadata=str(path), colours=f"{file}:Red")
    assert red(torch.ones(1, 3, 8, 8), ["a photo of a cow"]).item() == 1
    with pytest.raises(DippError, match="expected a function that can be called as colour"):
        load_reward("geneval", detector=f"{file}:Corner", metadata=str(path), colours=f"{file}:Silent")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"output": "sure"}, "option output of the reward 'geneval' is 'sure'; expected correct or share"),
        ({"threshold": 1.5}, "option threshold of the reward 'geneval' is 1.5; expected a number in [0, 1]"),
        ({"max_objects": 0}, "option max_objects of the reward 'geneval' is 0; expected 1 or more"),
        ({"metadata": "./none.jsonl"}, "names none.jsonl, which is not a file"),
        ({"detector": "./none"}, "There is no folder none for the detector of the reward 'geneval'"),
        ({"detectr": "x"}, "Did you mean 'detector'?"),
    ],
)
def test_bad_options_are_a_sentence(
    file: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], why: str
) -> None:
    monkeypatch.chdir(file.parent)
    given = {"detector": f"{file}:Corner", "metadata": str(written(file.parent, ROW)), **options}
    with pytest.raises(RequestError) as told:
        load_reward("geneval", **given)
    assert why in str(told.value)


def test_a_detector_that_is_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = tiny_segmenter(tmp_path / "it")
    (folder / "model.safetensors").unlink()
    write_bomb(folder / "pytorch_model.bin", tmp_path / "exploded")
    with pytest.raises(RequestError, match=r"are refused: .*pytorch_model\.bin is a pickle"):
        OpenDetector(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_dry_run_says_what_would_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    path = written(tmp_path, ROW)
    with without_fetching() as noted:
        assert GenEval.find_files() == [Path("config.json")]
        assert GenEval.find_files(detector=tmp_path, metadata=path) == [tmp_path / "config.json"]
        assert GenEval.find_files(detector="mine.py:Corner", metadata=path) == []
    for what in (
        "config.json of huggingface.co/facebook/mask2former-swin-small",
        "ViT-L-14",
        "evaluation_metadata.jsonl",
    ):
        assert any(what in item for item in noted), what


def test_a_model_that_detects_nothing_is_refused(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, ViTConfig

    ViTConfig().save_pretrained(tmp_path)
    CLIPImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="is a vit, which does not detect objects"):
        OpenDetector(tmp_path)


# --- the original -----------------------------------------------------------------------------------------------------


def test_the_environment_and_its_stand_in_for_compiled_code(tmp_path: Path) -> None:
    environment = find_registered("geneval")
    assert environment is not None and environment.reward == "geneval"
    (tmp_path / "mmcv").mkdir()
    original.add_extension(tmp_path)
    code = "import _ext; assert hasattr(_ext, 'nms') and not hasattr(_ext, '__path__'); _ext.nms(1)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "mmcv", capture_output=True, text=True)  # noqa: PLW1510
    assert "NotImplementedError: mmcv's operation nms is compiled code" in ended.stderr
    with pytest.raises(RunError, match="mmcv-lite is not in"):
        original.add_extension(tmp_path / "nowhere")


class Model(torch.nn.Module):
    """In the place of mmdet's: its one weight says what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.dataset_meta = {"classes": ("cow", "mouse")}
        self.seen: list[np.ndarray] = []


@pytest.fixture
def mmdet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    """A module with what is used of mmdet, which is not installed here."""
    model = Model()

    def inference_detector(given: Model, pixels: np.ndarray) -> Any:
        given.seen.append(pixels)
        instances = types.SimpleNamespace(
            labels=torch.tensor([1]), scores=given.weight.detach(), bboxes=torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
            masks=torch.ones(1, *pixels.shape[:2], dtype=torch.bool),
        )  # fmt: skip
        instances.cpu = lambda: instances
        return types.SimpleNamespace(pred_instances=instances)

    apis = types.ModuleType("mmdet.apis")
    apis.inference_detector = inference_detector  # type: ignore[attr-defined]
    apis.init_detector = lambda config, checkpoint, **_: model  # type: ignore[attr-defined]
    package = types.ModuleType("mmdet")
    package.__file__ = str(tmp_path / "mmdet" / "__init__.py")
    monkeypatch.setitem(sys.modules, "mmdet", package)
    monkeypatch.setitem(sys.modules, "mmdet.apis", apis)
    return model


def test_the_original_sees_blue_first_and_scores_by_the_same_rules(mmdet: Model, tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.tensor([0.7])}, "meta": {"CLASSES": ("cow",)}}, tmp_path / "it.pth")
    path = written(tmp_path, {**ROW, "include": [{"class": "computer mouse", "count": 1}]})
    reward = original.load(tmp_path / "it.pth", metadata=path)
    assert isinstance(reward, GenEval)
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0] = 1
    assert torch.equal(reward(image, ["a photo of a cow"]), torch.ones(1))
    assert mmdet.seen[0][0, 0].tolist() == [0, 0, 255]
    assert torch.equal(
        original.load(tmp_path / "it.pth", metadata=path, threshold=0.8)(image, ["a photo of a cow"]), torch.zeros(1)
    )


class Odd:
    """Not a plain value."""


def test_checkpoints_that_do_not_fit_or_would_run_code_are_refused(mmdet: Model, tmp_path: Path) -> None:
    path = written(tmp_path, ROW)
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "it.pth")
    with pytest.raises(RequestError, match="does not fit the configuration"):
        original.load(tmp_path / "it.pth", metadata=path)
    torch.save({"state_dict": {}, "meta": Odd()}, tmp_path / "it.pth")
    with pytest.raises(RequestError, match="It is read without running code"):
        original.load(tmp_path / "it.pth", metadata=path)
    with pytest.raises(RequestError, match="option checkpoint of the reward 'geneval' names"):
        original.load(tmp_path / "none.pth", metadata=path)


def test_the_detector_of_scenes_is_one() -> None:
    image = draw(scenes(1)[0], torch.Generator().manual_seed(0))
    (found,) = EmojiFinder()(image[None])
    assert scenes(1)[0].things[0].name in found.labels
    objects = counted(found, "", Thresholds())
    (thing,) = objects[scenes(1)[0].things[0].name]
    assert nearest_tint(image, scenes(1)[0].things[0].name, [thing]) == [scenes(1)[0].things[0].colour]
