"""Soft-TIFA: questions about a prompt's parts, the probabilities of the right answers, and their means."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.responses import JSONResponse, PlainTextResponse
from torch import Tensor

from benchmarks._shared.chat_server import ChatServer, chatting, choice
from dipp_judge import atoms
from dipp_judge.atoms import Atom, AtomFile, atoms_in
from dipp_judge.reading import Answer, Unusable
from dipp_judge.tifa import SoftTifa
from dipp_toolkit.errors import BadNumbers, RequestError, RunError
from dipp_toolkit.experiments.bench.score_cache import version_of
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote import connection

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
PROMPT = "two red cups on a table"
LISTED = """Sure, here they are:

1. Are there any cups in the image? | Yes
2) How many cups are in the image? | two
- **Are the cups red?** | **Yes**.
Are the cups red? | yes or no
Are the cups on the table? | Yes
"""
PROBABLE = {
    "Are there any cups in the image?": {"Yes": 0.9, "yes": 0.05, "No": 0.05},
    "How many cups are in the image?": {"two": 0.5, "2": 0.25, " Two": 0.05, "three": 0.2},
    "Are the cups red?": {"Yes": 0.4, "No": 0.6},
    "Are the cups on the table?": {"On": 1.0},
}
SCORES = [0.95, 0.8, 0.4, 0.0]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DIPP_JUDGE_KEY", raising=False)
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.02)


def seer(text: str, images: Sequence[Tensor]) -> Any:
    """Lists questions where it sees nothing, and answers one where it sees an image."""
    if not images:
        return LISTED
    question = text.removesuffix(" Answer in one word.")
    assert question != text
    likely = PROBABLE[question]
    return choice(next(iter(likely)), **{word: math.log(value) for word, value in likely.items()})


def tifa_at(server: ChatServer, **options: Any) -> Any:
    return load_reward(f"soft-tifa:{server.address}?model=seer", **options)


def questions_file(folder: Path, *rows: Any) -> Path:
    path = folder / "atoms.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_judge_makes_questions_and_answers_them_once() -> None:
    with chatting(seer) as server:
        reward = tifa_at(server)
        assert isinstance(reward, SoftTifa) and reward.differentiable is False
        scores = reward(IMAGES, [PROMPT, PROMPT])
        torch.testing.assert_close(scores, torch.full((2,), sum(SCORES) / 4), atol=1e-6, rtol=0)
        assert len(server.asked) == 1 + 2 * 4  # one list of a prompt that two images have
        assert server.asked[0]["max_tokens"] == 1024 and "logprobs" not in server.asked[0]
        assert {(row["max_tokens"], row["top_logprobs"]) for row in server.asked[1:]} == {(1, 20)}
        tifa_at(server)(IMAGES.flip(0), [PROMPT, PROMPT])
        assert len(server.asked) == 9
        address = server.address
    offline = load_reward(f"soft-tifa:{address}?model=seer", offline=True)
    assert torch.equal(offline(IMAGES, [PROMPT, PROMPT]), scores)


def test_means_are_those_of_the_paper(tmp_path: Path) -> None:
    pairs = [[question, "two" if "many" in question else "Yes"] for question in PROBABLE]
    three = questions_file(tmp_path, {"prompt": PROMPT, "atom_count": 3, "vqa_list": pairs[:3], "skills": ["object"]})
    with chatting(seer) as server:
        arithmetic = tifa_at(server, atoms=str(three))(IMAGES, [PROMPT, PROMPT])
        geometric = tifa_at(server, atoms=str(three), mean="geometric")(IMAGES, [PROMPT, PROMPT])
        assert len(server.asked) == 2 * 3  # no list, and no answer twice
        every = questions_file(tmp_path, {"prompt": PROMPT, "vqa_list": pairs})
        assert tifa_at(server, atoms=str(every), mean="geometric")(IMAGES[:1], [PROMPT]).item() == 0
    assert arithmetic[0].item() == pytest.approx((0.95 + 0.8 + 0.4) / 3)
    assert geometric[0].item() == pytest.approx((0.95 * 0.8 * 0.4) ** (1 / 3))


def test_another_mean_and_other_questions_are_another_reward(tmp_path: Path) -> None:
    one, two = (
        questions_file(tmp_path / name, {"prompt": PROMPT, "vqa_list": [[name, "Yes"]]}) for name in _made(tmp_path)
    )
    address = "soft-tifa:http://127.0.0.1:9/v1?model=m"
    rewards = [
        load_reward(address, **options)
        for options in ({}, {"mean": "geometric"}, {"atoms": str(one)}, {"atoms": str(two)})
    ]
    assert len({reward.score_identity() for reward in rewards}) == 4  # type: ignore[attr-defined]


def test_the_bench_notices_edited_questions_and_templates(tmp_path: Path) -> None:
    atoms_file = questions_file(tmp_path, {"prompt": PROMPT, "vqa_list": [["Is it?", "Yes"]]})
    template = tmp_path / "t.yaml"
    template.write_text("ask: yes-no\ntext: Is it {prompt}?\n")
    named = {
        "soft-tifa:http://127.0.0.1:9/v1?model=m": {"atoms": str(atoms_file)},
        f"judge:http://127.0.0.1:9/v1?model=m&template={template}": {},
    }
    before = [version_of(name, {}, load_reward(name, **options)) for name, options in named.items()]
    assert before == [version_of(name, {}, load_reward(name, **options)) for name, options in named.items()]
    for file in (atoms_file, template):
        file.write_text(file.read_text().replace("Is it", "Could it be"))
    after = [version_of(name, {}, load_reward(name, **options)) for name, options in named.items()]
    assert before[0] != after[0] and before[1] != after[1]


def _made(folder: Path) -> tuple[str, str]:
    for name in ("a", "b"):
        (folder / name).mkdir()
    return "a", "b"


@pytest.mark.parametrize(
    ("answer", "words"),
    [("Yes", ("yes",)), ("two", ("two", "2")), ("2", ("2", "two")), ("Red", ("red",)), ("40", ("40",))],
)
def test_numbers_are_words_and_digits(answer: str, words: tuple[str, ...]) -> None:
    assert Atom("?", answer).words == words


def test_questions_are_read_from_whatever_a_judge_writes() -> None:
    assert [(atom.question, atom.answer) for atom in atoms_in(Answer(LISTED), 9)] == [
        ("Are there any cups in the image?", "Yes"), ("How many cups are in the image?", "two"),
        ("Are the cups red?", "Yes"), ("Are the cups on the table?", "Yes"),
    ]  # fmt: skip
    assert Atom("Are they red", "Yes").asked == "Are they red."


TABLE = """| Question | Answer |
|---|:---:|
| Are there any cups in the image? | Yes |
| **How many cups are in the image?** | two |
How many tables are in the image? | 12
Which colours are there? | red and blue
Is it | one | bar too many? | Yes
"""


def test_questions_are_read_from_a_table_without_its_head() -> None:
    read = [(atom.question, atom.answer) for atom in atoms_in(Answer(TABLE), 9)]
    assert read == [("Are there any cups in the image?", "Yes"), ("How many cups are in the image?", "two")]
    for text in ("Question | Answer\n--- | ---", "**Questions** | **Answers**", "- - - | -", "... | Yes"):
        with pytest.raises(Unusable, match="lists no questions"):
            atoms_in(Answer(text), 9)


@pytest.mark.parametrize("text", [" " * 400, "-" * 400, "a " * 200, "|" * 400, "a" * 300 + " " * 280 + "x"])
def test_a_list_is_read_in_time_that_grows_as_it_does(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the characters that patterns look at, and not by a clock."""
    seen: list[str] = []
    for name, value in list(vars(atoms).items()):
        if isinstance(value, re.Pattern):
            monkeypatch.setattr(atoms, name, Noting(value, seen))
    with pytest.raises(Unusable, match="lists no questions"):
        atoms_in(Answer(text + "\n" + text * 10_000), 9)  # the second line is of megabytes, and is passed over
    assert sum(map(len, seen)) <= 2 * len(text)


class Noting:
    """A pattern that notes what it is asked to look at."""

    def __init__(self, pattern: re.Pattern[str], seen: list[str]):
        self.pattern, self.seen = pattern, seen

    def match(self, text: str) -> re.Match[str] | None:
        self.seen.append(text)
        return self.pattern.match(text)

    def fullmatch(self, text: str) -> re.Match[str] | None:
        self.seen.append(text)
        return self.pattern.fullmatch(text)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer("I cannot do that."), "lists no questions of the form QUESTION | ANSWER: 'I cannot do that.'"),
        (Answer(LISTED, finish="length"), "its questions were cut off after 9 tokens"),
        (Answer("\n".join(f"Is it {number}? | Yes" for number in range(70))), "lists 70 questions about one prompt"),
    ],
)
def test_a_list_that_is_none_is_said_to_be_none(answer: Answer, why: str) -> None:
    with pytest.raises(Unusable, match=re.escape(why)):
        atoms_in(answer, 9)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("What a lovely picture", "it has no log-probabilities"),
        (JSONResponse({"choices": [{"message": {"content": None, "refusal": "No."}}]}), "it refused: 'No.'"),
        (JSONResponse({"choices": []}), "the response is no chat completion"),
        (PlainTextResponse("<html>"), "is not JSON"),
        (JSONResponse({"error": {"message": "content filter"}}, 400), "content filter"),
    ],
)
def test_bad_answers_are_a_sentence(answer: Any, why: str, tmp_path: Path) -> None:
    path = questions_file(tmp_path, {"prompt": PROMPT, "vqa_list": [["Are there cups?", "Yes"]]})
    with chatting(lambda text, images: answer) as server, pytest.raises(RunError, match=re.escape(why)) as told:
        tifa_at(server, atoms=str(path))(IMAGES[:1], [PROMPT])
    assert "\n" not in str(told.value)


def test_a_prompt_without_questions_leaves_its_images_without_a_score() -> None:
    def partly(text: str, images: Sequence[Tensor]) -> Any:
        return "No idea." if not images and "a bird" in text else seer(text, images)

    with chatting(partly) as server:
        with pytest.raises(BadNumbers, match=r"gave no score for 1 of 2 images.*lists no questions"):
            tifa_at(server)(IMAGES, [PROMPT, "a bird"])
        scores = tifa_at(server, tolerate=0.5)(IMAGES, [PROMPT, "a bird"])
        assert scores[0] == scores[1]
        with pytest.raises(RunError, match=r"gave no score for 1 of 1 images"):
            tifa_at(server, tolerate=0.5)(IMAGES[:1], ["a bird"])


def test_a_budget_counts_questions_and_lists() -> None:
    with chatting(seer) as server:
        with pytest.raises(RunError, match=r"budget of 3 calls to the judge 'seer' is spent: 1 were made, and 4 more"):
            tifa_at(server, budget=3)(IMAGES[:1], [PROMPT])
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "line 1, are not JSON"),
        ("[]", "line 1: a field is missing. Expected a line such as"),
        ({"prompt": "p", "vqa_list": []}, "line 1: a field is missing"),
        ({"prompt": "p", "vqa_list": [["q"]]}, "line 1: ['q'] is no question with its answer"),
        ({"prompt": "p", "vqa_list": [["q", ""]]}, "line 1: ['q', ''] is no question with its answer"),
        (
            {"prompt": "p", "vqa_list": [["q", "12"]]},
            "line 1: the answer '12' cannot be told by its first token;",
        ),
        (
            {"prompt": "p", "vqa_list": [["q", "light blue"]]},
            "the answer 'light blue' cannot be told by its first token",
        ),
        (
            '{"prompt": "p", "vqa_list": [["q", "Yes"]]}\n{"prompt": "p", "vqa_list": [["q", "No"]]}',
            "say two different things of the prompt 'p'",
        ),
        ("\n", "are empty"),
    ],
)
def test_a_bad_file_of_questions_is_a_sentence(tmp_path: Path, row: Any, why: str) -> None:
    with pytest.raises(RequestError, match=re.escape(why)):
        AtomFile(questions_file(tmp_path, row))


def test_a_prompt_that_the_file_lacks_names_the_nearest(tmp_path: Path) -> None:
    atoms = AtomFile(questions_file(tmp_path, {"prompt": PROMPT, "vqa_list": [["q", "Yes"]]}))
    assert atoms.of(f" {PROMPT}") == (Atom("q", "Yes"),)
    with pytest.raises(
        RunError, match=r"none about the prompt 'two red cup'\. The one most like it is 'two red cups on"
    ):
        atoms.of("two red cup")


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("soft-tifa", {}, "needs the address of its server, as in --reward 'soft-tifa:http://127.0.0.1:8000/v1?model=NAME'"),
        ("soft-tifa:http://host/v1", {}, "names no model; expected one such as soft-tifa:http://"),
        ("soft-tifa:http://host/v1?model=m&template=shows", {}, "may say model, and not 'template'"),
        ("soft-tifa:http://host/v1?model=m", {"template": "shows"}, "There is no option named 'template'"),
        ("soft-tifa:http://host/v1?model=m", {"mean": "harmonic"}, "is 'harmonic'; expected arithmetic or geometric"),
        ("soft-tifa:http://host/v1?model=m", {"atoms": "./none.jsonl"}, "names none.jsonl, which is not a file"),
        ("soft-tifa:http://host/v1?model=m", {"questions": "shows"}, "asks for a yes-no; expected one with"),
        ("judge:http://host/v1?model=m&template=questions", {}, "asks for questions about a prompt and shows no image"),
    ],
)  # fmt: skip
def test_a_soft_tifa_that_cannot_be_is_a_sentence(name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError, match=re.escape(why)):
        load_reward(name, **options)
