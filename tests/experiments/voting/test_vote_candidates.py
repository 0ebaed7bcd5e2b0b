"""Images to be voted on: from folders with their prompts, from generators on the bench's noises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.experiments.bench.run import Silent
from dipp_toolkit.experiments.voting.candidates import Folders, from_generators, noises, parse_folders, sample
from dipp_toolkit.prompts.loading import load_prompts
from dipp_toolkit.utils.images import save_image


def pictures(folder: Path, prompts: dict[str, str]) -> Path:
    for number, name in enumerate(prompts):
        save_image(torch.full((3, 4, 4), number / 8), folder / name)
    (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    return folder


def test_folders_with_prompts_beside_their_images(tmp_path: Path) -> None:
    one = pictures(tmp_path / "one", {"b.png": "a fox", "a.png": "a cat"})
    other = pictures(tmp_path / "two", {"x.png": "a cat", "y.png": "a fox", "z.png": "a cat"})
    folders = Folders(parse_folders(f"{one},after={other}"))
    assert {prompt.text for prompt in folders.prompts} == {"a fox", "a cat"}
    read = [(image.maker, image.prompt) for image in folders.read(folders.prompts, Silent())]
    assert read == [
        ("one", "a cat"), ("one", "a fox"), ("after", "a cat"), ("after", "a fox"), ("after", "a cat"),
    ]  # fmt: skip
    assert [notice for notice in folders.notices if "prompts.json" in notice] == folders.notices
    fox = [prompt for prompt in folders.prompts if prompt.text == "a fox"]
    assert [image.maker for image in folders.read(fox, Silent())] == ["one", "after"]


def test_one_prompt_for_all(tmp_path: Path) -> None:
    folders = Folders(parse_folders(str(pictures(tmp_path / "one", {"1.png": "a", "2.png": "b"}))), prompt="a red fox")
    assert [prompt.text for prompt in folders.prompts] == ["a red fox"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nowhere", "There is no folder of images nowhere: nothing is there."),
        ("file", "it is a file"),
        (",", "No folder is named"),
        ("=one", "expected FOLDER or LABEL=FOLDER"),
        ("a=one,a=two", "Two folders are called 'a'; label them, as in --images a=one,b=two"),
    ],
)
def test_names_of_folders_that_cannot_be_meant(
    text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        pictures(Path(name), {"1.png": "a"})
    Path("file").touch()
    with pytest.raises(RequestError) as told:
        parse_folders(text)
    assert sentence in str(told.value)


def test_an_empty_folder_and_images_without_prompts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="contains no images"):
        Folders(parse_folders(str(tmp_path / "empty")))
    save_image(torch.zeros(3, 4, 4), tmp_path / "bare" / "a.png")
    with pytest.raises(RequestError, match="There are no prompts for the images of"):
        Folders(parse_folders(str(tmp_path / "bare")))


def test_generators_draw_the_benchs_noises_and_nothing_depends_on_the_batch() -> None:
    prompts = load_prompts("emoji-heldout").prompts[:3]
    (entry,) = parse_entries("mine=emoji-onestep", {})

    def drawn(batch: int) -> list[torch.Tensor]:
        made = list(from_generators([entry], prompts, noises(2, 0), batch=batch, device="cpu", listener=Silent()))
        assert [(image.maker, image.prompt) for image in made] == [
            ("mine", prompt.text) for prompt in prompts for _ in range(2)
        ]
        return [image.pixels for image in made]

    expected = entry.source(torch.device("cpu")).images([prompts[1].text], [2])
    for batch in (1, 6):
        torch.testing.assert_close(drawn(batch)[3], expected[0], atol=1e-4, rtol=0)


def test_noises_of_two_seeds_share_none() -> None:
    assert noises(2, 0) == (1, 2)
    assert not set(noises(1000, 0)) & set(noises(1000, 1))
    for per_prompt, seed in ((0, 0), (1001, 0), (1, -1)):
        with pytest.raises(RequestError, match=r"--(per-prompt|seed) is "):
            noises(per_prompt, seed)


def test_a_sample_is_the_one_that_a_prompt_set_gives() -> None:
    whole = load_prompts("emoji-heldout").prompts
    assert list(sample(whole, 5, 3)) == list(load_prompts("emoji-heldout", count=5, seed=3).prompts)
    assert sample(whole, None, 3) is whole
