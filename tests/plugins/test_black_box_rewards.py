"""`jpeg` and `ocr` against what Pillow and the eye say."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from dipp_black_box.jpeg import JpegSize
from dipp_black_box.ocr import agreement, wanted_text
from dipp_toolkit import RequestError, load_reward


def test_jpeg_is_the_size_of_the_file_in_bits_a_pixel() -> None:
    images = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    scores = JpegSize()(images, [""] * 3)
    for image, score in zip(images, scores, strict=True):
        file = io.BytesIO()
        pixels = np.round(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, format="JPEG", quality=95)
        assert score.item() == pytest.approx(-8 * len(file.getvalue()) / (24 * 40))


def test_jpeg_prefers_plain_images_and_turns_round() -> None:
    images = torch.stack([torch.full((3, 64, 64), 0.5), torch.rand(3, 64, 64)])
    plain, noisy = JpegSize()(images, ["", ""])
    assert plain > noisy
    torch.testing.assert_close(JpegSize(sign=-1)(images, ["", ""]), -JpegSize()(images, ["", ""]))
    assert JpegSize(quality=50)(images, ["", ""])[1] > noisy


@pytest.mark.parametrize(
    ("options", "sentence"), [({"quality": 0}, "quality from 1 to 95, not 0"), ({"sign": 2}, "sign of 1 or -1, not 2")]
)
def test_jpeg_refuses_other_options(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        load_reward("jpeg", **options)


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ('a sign that says "open late"', "open late"),
        ("a shirt with “don’t panic” on it", "don’t panic"),
        ("the dog's 'best friend' mug", "best friend"),
        ("a dog's bowl", "a dog's bowl"),
        ('"a" and "b"', "a b"),
        ("", ""),
    ],
)
def test_the_wanted_text_is_what_is_quoted(prompt: str, wanted: str) -> None:
    assert wanted_text(prompt) == wanted


@pytest.mark.parametrize(
    ("found", "wanted", "score"),
    [("Open, LATE!", "open late", 1), ("", "open", 0), ("xyz", "open", 0), ("ope", "open", 6 / 7), ("anything", "", 0)],
)
def test_agreement(found: str, wanted: str, score: float) -> None:
    assert agreement(found, wanted) == pytest.approx(score)


def test_ocr_reads() -> None:
    pytest.importorskip("rapidocr", reason="the extra ocr is not installed")
    picture = Image.new("RGB", (256, 128), "white")
    ImageDraw.Draw(picture).text((20, 40), "HELLO", fill="black", font=ImageFont.load_default(48))
    shown = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
    images = torch.stack([shown, shown, torch.ones_like(shown)])
    scores = load_reward("ocr")(images, ['a sign that says "hello"', '"zyx"', '"hello"'])
    torch.testing.assert_close(scores, torch.tensor([1.0, 0.0, 0.0]))
