"""Image files as rewards see them: every kind of pixel, and files that are no images."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dipp_toolkit import load_prompts
from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.image_files import (
    ANIMATED,
    TRANSPARENT,
    formats,
    list_images,
    natural_key,
    read_image,
    read_prompts,
    say_notes,
)
from dipp_toolkit.protocols import texts

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [51, 102, 204]], [[0, 0, 0], [255, 255, 255]]], np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def expected(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1)


# Pixels.


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tiff", "a.ppm", "a.tga"])
def test_lossless_rgb(tmp_path: Path, name: str) -> None:
    found = read_image(saved(Image.fromarray(COLOURS), tmp_path / name))
    assert found.pixels.dtype == torch.float32
    assert torch.equal(found.pixels, expected(COLOURS))
    assert found.notes == ()


@pytest.mark.parametrize(("name", "options"), [("a.jpg", {"quality": 95}), ("a.webp", {"quality": 95})])
def test_lossy_rgb(tmp_path: Path, name: str, options: dict[str, int]) -> None:
    colour = Image.new("RGB", (16, 8), (200, 100, 50))
    found = read_image(saved(colour, tmp_path / name, **options)).pixels
    assert found.shape == (3, 8, 16)
    assert (found[:, 0, 0] * 255 - torch.tensor([200.0, 100.0, 50.0])).abs().max() < 6


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_is_repeated(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.array([[0, 255, 128]], np.uint8)).convert(mode, dither=Image.Dither.NONE)
    found = read_image(saved(grey, tmp_path / "a.png")).pixels
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert found[0, 0].tolist() == pytest.approx([0, 1, 128 / 255 if mode == "L" else 1.0])


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bits_are_not_clipped(tmp_path: Path, name: str) -> None:
    grey = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    found = read_image(saved(Image.fromarray(grey), tmp_path / name)).pixels
    assert found[1, 0].tolist() == pytest.approx((grey[0] / 65535).tolist(), abs=1e-7)


def test_numbers_of_unknown_range_are_refused(tmp_path: Path) -> None:
    for array in (np.ones((2, 2), np.float32), np.full((2, 2), 70000, np.int32), np.full((2, 2), -1, np.int32)):
        path = saved(Image.fromarray(array), tmp_path / "a.tiff")
        with pytest.raises(RequestError, match=r"a\.tiff has .* range is unknown"):
            read_image(path)


def png(path: Path, depth: int, colour: int, numbers: bytes, width: int, **chunks: bytes) -> Path:
    """A PNG of one row, as the format has it: Pillow writes none of 16 bits with transparency."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))]
    parts += [(name.encode(), data) for name, data in chunks.items()]
    parts += [(b"IDAT", zlib.compress(b"\0" + numbers)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts))
    return path


def test_sixteen_bits_with_transparency(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    keyed = png(path, 16, 0, struct.pack(">4H", 0, 255, 0x8000, 65535), 4, tRNS=struct.pack(">H", 0x8000))
    found = read_image(keyed)
    assert found.notes == (TRANSPARENT,)
    assert found.pixels[0, 0].tolist() == pytest.approx([0, 255 / 65535, 1, 1])
    found = read_image(png(path, 16, 4, struct.pack(">4H", 0, 0x8000, 0x8000, 0xFFFF), 2))  # grey with alpha
    assert found.notes == (TRANSPARENT,)
    assert found.pixels[0, 0].tolist() == pytest.approx([0.5, 0.5], abs=0.005)
    found = read_image(png(path, 16, 6, struct.pack(">4H", 0xFFFF, 0, 0, 0x8000), 1))
    assert found.pixels[:, 0, 0].tolist() == pytest.approx([1, 0.5, 0.5], abs=0.005)
    assert read_image(png(path, 16, 2, struct.pack(">3H", 0xFFFF, 0x8000, 0), 1)).pixels[:, 0, 0].tolist() == (
        pytest.approx([1, 0.5, 0], abs=0.005)
    )
    colour = struct.pack(">3H", 1, 2, 3)
    with pytest.raises(RequestError, match="has 16 bits and one transparent colour; save it with an alpha channel"):
        read_image(png(path, 16, 2, colour, 1, tRNS=colour))


@pytest.mark.parametrize(("depth", "numbers"), [(1, b"\x40"), (2, b"\x1b"), (4, b"\x01\x23")])
def test_grey_of_few_bits_with_a_transparent_level(tmp_path: Path, depth: int, numbers: bytes) -> None:
    width = 2 if depth == 1 else 4
    path = png(tmp_path / "a.png", depth, 0, numbers, width, tRNS=struct.pack(">H", 0))
    levels = [1, 1] if depth == 1 else [1] + [level / (2**depth - 1) for level in (1, 2, 3)]
    found = read_image(path)
    assert found.notes == (TRANSPARENT,)
    assert found.pixels[0, 0].tolist() == pytest.approx(levels)
    path = png(tmp_path / "b.png", depth, 0, numbers, width, tRNS=struct.pack(">H", 1))
    expected_levels = [0, 1] if depth == 1 else [0, 1] + [level / (2**depth - 1) for level in (2, 3)]
    assert read_image(path).pixels[0, 0].tolist() == pytest.approx(expected_levels)


def tiff(path: Path, bits: int, sample_format: int, numbers: bytes, photometric: int = 1) -> Path:
    """A grey TIFF of one row and two numbers."""
    entries = {256: 2, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 134, 277: 1, 278: 1, 279: len(numbers)}
    entries |= {339: sample_format}
    table = b"".join(struct.pack("<HHIHxx", tag, 3, 1, value) for tag, value in sorted(entries.items()))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0)
    assert len(head) == 134
    path.write_bytes(head + numbers)
    return path


def test_grey_tiffs(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    for photometric, levels in ((1, [0.2, 1]), (0, [0.8, 0])):  # black is zero, and white is
        found = read_image(tiff(path, 16, 1, struct.pack("<2H", 13107, 65535), photometric)).pixels
        assert found[0, 0].tolist() == pytest.approx(levels)
    found = read_image(tiff(path, 12, 1, bytes([0x33, 0x3F, 0xFF]))).pixels  # 819 and 4095 of 4095
    assert found[0, 0].tolist() == pytest.approx([0.2, 1])
    for bits, sample_format, numbers in (
        (32, 1, struct.pack("<2I", 0, 255)),
        (32, 2, struct.pack("<2i", 0, 255)),
        (16, 2, struct.pack("<2h", -5, 255)),
        (8, 2, struct.pack("<2b", -128, 127)),
        (32, 3, struct.pack("<2f", 0, 1)),
    ):
        with pytest.raises(RequestError, match=r"a\.tiff has .* range is unknown; save it with 8 or 16 bits"):
            read_image(tiff(path, bits, sample_format, numbers))


def test_sixteen_bits_of_a_portable_map(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 13107, 65535))
    assert read_image(path).pixels[0, 0].tolist() == pytest.approx([0.2, 1])


def test_sixteen_bits_held_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.array([[0, 13107], [26214, 65535]], np.uint16)
    found = read_image(saved(Image.fromarray(grey), tmp_path / "a.png", exif=exif)).pixels
    torch.testing.assert_close(found[0], torch.from_numpy(np.rot90(grey, -1).astype(np.float32).copy() / 65535))


def test_cmyk_of_a_jpeg(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = read_image(saved(image, tmp_path / "a.jpg", quality=95)).pixels
    assert found[:, 4, 4].tolist() == pytest.approx([1, 0, 0], abs=0.03)


def test_a_palette_with_several_transparencies(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    found = read_image(saved(image, tmp_path / "a.png", transparency=bytes([255, 51])))
    assert found.pixels[:, 0].T.flatten().tolist() == pytest.approx([1, 0, 0, 0.8, 0.8, 1])


def test_palettes_are_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS).quantize(6)
    found = read_image(saved(image, tmp_path / "a.png"))
    assert torch.equal(found.pixels, expected(np.asarray(image.convert("RGB"))))
    assert found.notes == ()


def test_transparency_is_shown_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51))
    found = read_image(saved(image, tmp_path / "a.png"))
    assert found.notes == (TRANSPARENT,)
    assert found.pixels[:, 0, 0].tolist() == [1, 0, 0]
    assert found.pixels[:, 0, 1].tolist() == pytest.approx([0.8, 0.8, 0.8])
    grey = Image.new("LA", (1, 1), (0, 0))
    assert read_image(saved(grey, tmp_path / "b.png")).pixels.min() == 1
    opaque = Image.new("RGBA", (1, 1), (0, 0, 255, 255))
    assert read_image(saved(opaque, tmp_path / "c.png")).notes == ()


def test_a_transparent_colour_of_a_palette(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    found = read_image(saved(image, tmp_path / "a.png", transparency=0))
    assert found.notes == (TRANSPARENT,)
    assert found.pixels[:, 0].T.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_other_colour_models_become_rgb(tmp_path: Path) -> None:
    found = read_image(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.tiff")).pixels
    assert found[:, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=0.02)


def test_the_camera_was_held_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    found = read_image(saved(Image.fromarray(COLOURS), tmp_path / "a.png", exif=exif)).pixels
    assert torch.equal(found, expected(np.rot90(COLOURS, -1).copy()))


def test_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    found = read_image(saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:]))
    assert found.notes == (ANIMATED,)
    assert found.pixels[:, 0, 0].tolist() == [1, 0, 0]


def test_notes_are_counted_and_said_once() -> None:
    said = say_notes([(TRANSPARENT,), (), (TRANSPARENT, ANIMATED)])
    assert said == [
        "Of 3 images, 2 transparent, shown on white.",
        "Of 3 images, 1 with several frames, of which the first counts.",
    ]
    assert say_notes([()]) == []


# Files that are no images.


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_and_damaged_files_are_sentences(tmp_path: Path, kind: str) -> None:
    whole = encoded(kind)
    random = np.random.default_rng(1)
    for cut in (1, 7, 30, len(whole) // 3, len(whole) - 40):
        path = tmp_path / "a.png"
        path.write_bytes(whole[:cut])
        with pytest.raises(RequestError, match=r"a\.png"):
            read_image(path)
    for _ in range(20):  # damage may go unnoticed; it must not come through as anything but a sentence
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 30):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            assert read_image(path).pixels.isfinite().all()
        except RequestError as error:
            assert "a.png" in str(error)


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    (tmp_path / "figure.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF", encoding="utf-8")
    for name, reason in {
        "empty.png": "is empty",
        "text.png": "is not a readable image",
        "figure.eps": "is not a readable image",
        "missing.png": "There is no image",
        ".": "cannot be read",
    }.items():
        with pytest.raises(RequestError, match=reason):
            read_image(tmp_path / name)
    assert "EPS" not in formats()


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(Image.new("L", (20, 20)), tmp_path / "a.png")
    for limit in (399, 100):  # where Pillow warns, and where it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(RequestError, match=f"more than {limit} pixels"):
            read_image(path)


# Folders.


def test_a_folders_images_in_natural_order(tmp_path: Path) -> None:
    for name in ("10.png", "2.PNG", "b1.jpg", "A3.webp", ".hidden.png", "notes.txt", "data.json"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["2.PNG", "10.png", "A3.webp", "b1.jpg"]
    assert natural_key(Path("a/x2.png")) < natural_key(Path("a/x10.png"))


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"contains no images\.$"):
        list_images(tmp_path)
    (tmp_path / "deeper").mkdir()
    with pytest.raises(RequestError, match="are not searched"):
        list_images(tmp_path)
    with pytest.raises(RequestError, match="There is no folder"):
        list_images(tmp_path / "missing")


# Files of prompts.


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("p.txt", "a cat\n\n# a remark\na dog\n", ["a cat", "a dog"]),
        ("p.json", '{"1.png": "a cat", "2.png": ""}', {"1.png": "a cat", "2.png": ""}),
        ("p.json", '["a cat", "a dog"]', ["a cat", "a dog"]),
        ("p.json", '[{"file_name": "1.png", "text": "a cat"}]', {"1.png": "a cat"}),
        ("p.json", '{"prompts": ["a cat"], "images": ["out/1.png"], "grid": "g.png"}', {"out/1.png": "a cat"}),
        ("p.json", '{"images": [{"file": "1.png", "prompt": "a cat", "scores": {}}]}', {"1.png": "a cat"}),
        ("p.jsonl", '{"image": "1.png", "caption": "a cat"}\n\n', {"1.png": "a cat"}),
        ("p.csv", 'File,Prompt\n1.png,"a cat, red"\n', {"1.png": "a cat, red"}),
        ("p.csv", "\ufeff1.png,a cat\n2.png,a dog\n", {"1.png": "a cat", "2.png": "a dog"}),
        ("p.tsv", "prompt\tseed\tfile_name\na cat, red\t3\t1.png\n", {"1.png": "a cat, red"}),
        ("p.tsv", 'prompt\n"a cat" in quotes\nsix " wide\n', ['"a cat" in quotes', 'six " wide']),
        ("p.csv", 'id,prompt\n7,"a ""red"" cat"\n9,"two\nlines"\n', ['a "red" cat', "two\nlines"]),
        ("p.csv", "prompt,seed\r\na cat,3\r\n\r\na dog,4\r\n", ["a cat", "a dog"]),
        ("p.csv", "\n\nprompt\ra cat\ra dog", ["a cat", "a dog"]),
        ("p.json", '{"prompt": "a cat", "id": "3"}', ["a cat"]),
        ("p.jsonl", '{"prompt":\r"a cat"}\n"a dog"', ["a cat", "a dog"]),
    ],
)
def test_prompts_are_read(tmp_path: Path, name: str, text: str, found: object) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    prompts = read_prompts(str(tmp_path / name))
    by_name = any(prompt.file for prompt in prompts)
    read = {prompt.file: prompt.text for prompt in prompts} if by_name else [prompt.text for prompt in prompts]
    assert read == found
    # What trains reads the same texts, without the empty ones, which say nothing to draw.
    trained = list(texts(load_prompts(str(tmp_path / name))))
    assert trained == [text for text in (read.values() if isinstance(read, dict) else read) if text]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.json", b"{", "is not valid JSON"),
        ("p.json", b"3", "is not a list of prompts"),
        ("p.json", b"{}", "is not a list of prompts"),
        ("p.json", b'{"1.png": 3}', "is not a list of prompts"),
        ("p.json", b'["a", {}]', "row 2 has the fields none"),
        ("p.json", b'[{"file": "1.png"}]', "row 1 has the fields file; expected one of prompt"),
        ("p.json", b'[{"file": "1.png", "prompt": "a"}, {"file": "1.png", "prompt": "b"}]', "two prompts"),
        ("p.json", b"\xff\xfe\x00", "not UTF-8"),
        ("p.json", b"[" * 100000, "is not valid JSON"),
        ("p.jsonl", b"not json", "line 1, is not valid JSON"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 3}', "row 2: 'prompt' is 3; expected a text"),
        ("p.csv", b"a,b,c\n", "holds no prompt"),
        ("p.csv", b"a,b,c\n1,2,3\n", "row 1 has the fields a, b, c"),
        ("p.csv", b"file,seed\na.png,3\n", "row 1 has the fields file, seed"),
        ("p.csv", b'"open', "is not a table: unexpected end of data"),
        ("p.csv", b'prompt\n"open\nnext\n', "is not a table: unexpected end of data"),
        ("p.csv", b"", "holds no prompt"),
        ("p.txt", b"\n", "holds no prompt"),
    ],
)
def test_prompts_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=reason) as error:
        read_prompts(str(tmp_path / name))
    assert name in str(error.value)
    with pytest.raises(RequestError):
        read_prompts(str(tmp_path / f"missing-{name}"))
