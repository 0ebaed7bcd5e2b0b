"""Judges behind an OpenAI-style server: read rightly, asked once, replayed to the bit, and a sentence a fault."""

from __future__ import annotations

import json
import math
import random
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse, PlainTextResponse, Response
from torch import Tensor

from benchmarks._shared.chat_server import ChatServer, chatting, choice
from dipp_judge.address import split_address
from dipp_judge.answers import Answers
from dipp_judge.question import Question
from dipp_judge.reading import Answer, Unusable, answer_of, score_of
from dipp_judge.reward import Judge
from dipp_judge.template import load_template, template_names
from dipp_toolkit import TrainConfig
from dipp_toolkit.errors import BadNumbers, DippError, RequestError, RunError, without_secrets
from dipp_toolkit.protocols import Reward
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote import connection
from dipp_toolkit.training.run import train
from dipp_toolkit.utils.assignments import parse_assignments, parse_floors, parse_rewards
from dipp_toolkit.utils.images import save_image
from tiny_runs import tiny_world

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
PROMPTS = ["a cat", "a dog", "a fox on blue", "braces {like} {these}"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DIPP_JUDGE_KEY", raising=False)
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.02)


def brightness(text: str, images: Sequence[Tensor]) -> dict[str, Any]:
    """Yes as likely as the image is bright."""
    bright = float(images[0].double().mean().clamp(1e-6, 1 - 1e-6))
    return choice("Yes", Yes=math.log(bright), No=math.log(1 - bright))


def judge_at(server: ChatServer, query: str = "", **options: Any) -> Reward:
    return load_reward(f"judge:{server.address}?model=seer{query}", **options)


def seen(images: Tensor) -> Tensor:
    """The brightness of images as they are sent."""
    return images.mul(255).round().div(255).mean((1, 2, 3))


def test_a_yes_is_its_probability_and_is_asked_for_once() -> None:
    with chatting(brightness) as server:
        judge = judge_at(server)
        assert judge.differentiable is False
        torch.testing.assert_close(judge(IMAGES, PROMPTS), seen(IMAGES), atol=1e-6, rtol=0)
        assert len(server.asked) == 4
        again = judge_at(server)(IMAGES.flip(0), PROMPTS[::-1])
        torch.testing.assert_close(again, seen(IMAGES).flip(0), atol=1e-6, rtol=0)
        assert len(server.asked) == 4  # in the file of answers, whatever the order
        judge(IMAGES[:1].expand(3, -1, -1, -1), PROMPTS[:1] * 3)
        judge(IMAGES[:1], ["another prompt"])
        assert len(server.asked) == 5
    request = server.asked[0]
    assert (request["temperature"], request["max_tokens"], request["top_logprobs"]) == (0, 1, 20)
    assert {row["messages"][0]["content"][1]["text"] for row in server.asked} == {
        f'Does this figure show "{prompt}"? Please answer yes or no.' for prompt in [*PROMPTS, "another prompt"]
    }


def test_without_the_server_the_same_bits() -> None:
    with chatting(brightness) as server:
        before = judge_at(server)(IMAGES, PROMPTS)
        address = server.address
    judge = load_reward(f"judge:{address}?model=seer", retries=0)
    assert torch.equal(judge(IMAGES, PROMPTS), before)
    with pytest.raises(
        RunError, match=r"The judge is unavailable: The server http://127.0.0.1:\d+/v1 cannot be reache"
    ):
        judge(1 - IMAGES, PROMPTS)
    offline = load_reward(f"judge:{address}?model=seer", offline=True)
    with pytest.raises(RunError, match=r"is offline, and 4 answers are not in .*answers.sqlite"):
        offline(1 - IMAGES, PROMPTS)


def test_another_model_or_another_template_is_another_judge() -> None:
    with chatting(lambda text, images: "Score: 7.5" if "Score:" in text else brightness(text, images)) as server:
        judge_at(server)(IMAGES, PROMPTS)
        assert torch.equal(judge_at(server, "&template=rating")(IMAGES, PROMPTS), torch.full((4,), 7.5))
        assert len(server.asked) == 8
        load_reward(f"judge:{server.address}?model=other")(IMAGES, PROMPTS)
        assert len(server.asked) == 12
        identities = {judge_at(server, query).score_identity() for query in ("", "&template=rating")}  # type: ignore[attr-defined]
        assert len(identities) == 2


def test_answers_outlive_whatever_ends_a_call() -> None:
    """The third answer is garbage: those that came are kept, and only the rest is asked for again."""
    count = 0

    def fails_once(text: str, images: Sequence[Tensor]) -> Any:
        nonlocal count
        count += 1
        return PlainTextResponse("not JSON") if count == 3 else brightness(text, images)

    with chatting(fails_once) as server:
        judge = judge_at(server, concurrency=1)
        with pytest.raises(RunError, match=r"sent a response that is not JSON; is it an OpenAI-style server"):
            judge(IMAGES, PROMPTS)
        torch.testing.assert_close(judge(IMAGES, PROMPTS), seen(IMAGES), atol=1e-6, rtol=0)
        assert len(server.asked) == 3 + 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    count = 0

    def busy(text: str, images: Sequence[Tensor]) -> Any:
        nonlocal count
        count += 1
        return JSONResponse({"error": {"message": "later"}}, status) if count % 2 else brightness(text, images)

    with chatting(busy) as server:
        torch.testing.assert_close(judge_at(server, concurrency=1)(IMAGES, PROMPTS), seen(IMAGES), atol=1e-6, rtol=0)
        assert len(server.asked) == 8


def test_a_budget_holds_over_runs_and_what_it_advises_works() -> None:
    with chatting(brightness) as server:
        judge_at(server, budget=4)(IMAGES, PROMPTS)
        judge = judge_at(server, "&template=shows", budget=6)
        judge(IMAGES, PROMPTS)  # nothing is asked
        with pytest.raises(
            RunError, match=r"budget of 6 calls to the judge 'seer' is spent: 4 were made, and 4 more"
        ) as told:
            judge(1 - IMAGES, PROMPTS)
        (advised,) = shlex.split(str(told.value).split("--set ")[1])
        options = parse_assignments([advised])["reward_options"]
        load_reward(*options, **next(iter(options.values())))(1 - IMAGES, PROMPTS)
        assert len(server.asked) == 8


def test_another_model_behind_the_address_is_noticed() -> None:
    with chatting(brightness) as server:
        judge = judge_at(server)
        judge(IMAGES, PROMPTS)
        server.model = "cheaper"
        with pytest.raises(RunError, match=r"is by 'cheaper', and those in .*answers.sqlite are by 'seer'"):
            judge(1 - IMAGES, PROMPTS)
        with pytest.raises(RunError, match=r"is by 'cheaper'"):
            judge_at(server)(1 - IMAGES, PROMPTS)  # in another process as well
        server.model = "seer"
        torch.testing.assert_close(judge(1 - IMAGES, PROMPTS), seen(1 - IMAGES), atol=1e-6, rtol=0)


def test_a_comparison_is_asked_in_both_orders(tmp_path: Path) -> None:
    folder = tmp_path / "start"
    for number, image in enumerate(IMAGES):
        save_image(1 - image, folder / f"{number}.png")
    names = {f"{number}.png": prompt for number, prompt in enumerate(PROMPTS)}
    (folder / "prompts.json").write_text(json.dumps(names))

    def first_is_better_if_brighter(text: str, images: Sequence[Tensor]) -> str:
        first, second = (float(image.mean()) for image in images)
        return "I think: Image 1 is better." if first > second else "Image 2 is better."

    with chatting(first_is_better_if_brighter) as server:
        judge = judge_at(server, "&template=comparison", against=str(folder))
        assert torch.equal(judge(IMAGES, PROMPTS), (seen(IMAGES) > seen(1 - IMAGES)).float())
        assert len(server.asked) == 8
        with pytest.raises(RunError, match=r"has no image of the prompt 'a bird' to compare with"):
            judge(IMAGES[:1], ["a bird"])
        server.says = lambda text, images: "Image 1 is better."  # whatever it sees: a preference for the place
        assert torch.equal(judge(IMAGES * 0.5, PROMPTS), torch.full((4,), 0.5))


SCORES = [
    ("unified-reward", "cat (object): 1\nFinal Score: 3.75", 3.75),
    ("unified-reward", "assign a score after 'Final Score:'. Well.\n**Final Score:** 4.", 4.0),
    ("unified-reward", "Final Score (1-5): 2.5 of 5", 2.5),
    ("unified-reward", "final score: [1]", 1.0),
    ("rating", "Score: 8.5/10", 8.5),
    ("unified-reward-pair", "Image 1 is better than Image 2? No: Image 2 is better than Image 1.", 0.0),
    ("unified-reward-pair", "Both images are equally good.", 0.5),
    (
        "rational-rewards",
        "1. Text Faithfulness:\n## Score A: 4.0\n## Score B: 2.0\n2. Physical and Visual Quality:\n## Score A: 3\n"
        "## Score B: 3\n3. Text Rendering:\n## Score A: N/A\n## Score B: N/A\n# Summary: A",
        0.5 + 1.0 / 6,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "score"), SCORES)
def test_answers_of_published_judges_are_read(name: str, text: str, score: float) -> None:
    assert score_of(load_template(name), Answer(text)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("rating", "I cannot rate this.", "no number after 'Score'"),
        ("rating", "Score: 11", "has the number 11; expected 1 to 10"),
        ("rating", "Score: __import__('os')", "no number after 'Score'"),
        ("comparison", "Both have merits.", "says of neither image that it is better"),
        ("rational-rewards", "## Score A: 4.0", "no number after 'Score B'"),
        ("rating", "This is underscore 3", "no number after 'Score'"),
        ("shows", "Yes", "has no log-probabilities"),
    ],
)
def test_what_holds_no_score_is_said_to_hold_none(name: str, text: str, why: str) -> None:
    with pytest.raises(Unusable, match=re.escape(why)):
        score_of(load_template(name), Answer(text))


def test_an_answer_that_was_cut_off_holds_none() -> None:
    text = "Score: 1 is worst, Score: 10 is best"
    assert score_of(load_template("rating"), Answer(text)) == 10
    with pytest.raises(Unusable, match=r"cut off after 64 tokens"):
        score_of(load_template("rating"), Answer(text, finish="length"))


def test_yes_in_any_case_counts_together() -> None:
    first = {"Yes": math.log(0.3), " yes": math.log(0.2), "No": math.log(0.1), "YES.": math.log(0.05), "maybe": -1.0}
    assert score_of(load_template("shows"), Answer("Yes", first=first)) == pytest.approx(0.55 / 0.65)


def test_every_template_is_whole_and_puts_the_prompt_in() -> None:
    assert {"shows", "rating", "comparison", "unified-reward", "rational-rewards"} <= set(template_names())
    for name in template_names():
        template = load_template(name)
        pieces = template.pieces("a {prompt} of {image}s")
        assert pieces.count(None) == template.images
        assert "a {prompt} of {image}s" in "".join(piece or "" for piece in pieces)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[1]", "is no mapping"),
        ("ask: rating\ntext: 'is {prompt} good?'", "a rating needs labels"),
        ("ask: rating\ntext: good?\nlabels: [Score]", "its text has no {prompt}"),
        ("ask: shout\ntext: '{prompt}'", "ask: Input should be"),
        ("ask: yes-no\ntext: '{prompt}'\nlevel: 3", "level: Extra inputs"),
        ("ask: yes-no\ntext: '{prompt}'\nyes: []", "yes: "),
        ("ask: yes-no\ntext: '{image} {image} {prompt}'", "has {image} 2 times, and a question shows 1"),
    ],
)
def test_a_template_that_is_none_is_a_sentence(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(RequestError, match=re.escape(why)):
        load_template(str(path))


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("judge", {}, "needs the address of its server"),
        ("judge:http://host/v1", {}, "names no model; expected one such as judge:http://127.0.0.1:8000/v1?model=NAME"),
        ("judge:http://host/v1?model=m", {"model": "n"}, "model is given twice"),
        ("judge:http://host/v1?model=m&key=secret", {}, "and not 'key'"),
        ("judge:http://me:secret@host/v1?model=m", {}, "contains a user name"),
        ("judge:http://host/v1?model=m", {"template": "show"}, "Did you mean 'shows'?"),
        ("judge:http://host/v1?model=m&template=comparison", {}, "against=FOLDER"),
        ("judge:http://host/v1?model=m", {"against": "."}, "leave against out"),
        ("judge:http://host/v1?model=m", {"concurency": 2}, "Did you mean 'concurrency'?"),
        ("judge:http://host/v1?model=m", {"tolerate": 1}, "expected a share in [0, 1)"),
        ("judge:http://host:port/v1?model=m", {}, "The address of a judge is invalid"),
        ("clip:http://host/v1?model=m", {}, "The reward 'clip' asks no server"),
        ("juge:http://host/v1?model=m", {}, "Did you mean 'judge'?"),
    ],
)
def test_a_judge_that_cannot_be_is_a_sentence(name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError, match=re.escape(why)) as told:
        load_reward(name, **options)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (JSONResponse({"error": {"message": "No model."}}, 404), "No model. It has the model, so the address"),
        (JSONResponse({"error": {"message": "no: sk-123-456"}}, 401), "Put its token in the environment variable"),
        (JSONResponse({"choices": []}), "the response is no chat completion"),
        (JSONResponse({"choices": [{"message": {"content": None, "refusal": "No."}}]}), "it refused: 'No.'"),
        (JSONResponse([1]), "the response is no chat completion"),
        (PlainTextResponse("data: {}", 200), "is not JSON"),
        ("What a lovely picture", "it has no log-probabilities"),
        (choice("A", A=-0.1, The=-3.0), "neither yes nor no is likely as its first word: 'A'"),
    ],
)  # fmt: skip
def test_what_a_server_says_instead_is_a_sentence(
    answer: Response | str | dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIPP_JUDGE_KEY", "sk-123-456")
    with chatting(lambda text, images: answer) as server:
        with pytest.raises(RunError, match=re.escape(why)) as told:
            judge_at(server)(IMAGES[:1], PROMPTS[:1])
        assert server.keys == ["Bearer sk-123-456"] * len(server.keys) and server.keys
    assert "sk-123-456" not in str(told.value) and "\n" not in str(told.value)
    kept = [path.read_bytes() for path in tmp_path.rglob("answers.sqlite*")]
    assert kept and not any(b"sk-123-456" in content for content in kept)


def test_a_few_unusable_answers_are_tolerated_where_that_is_asked_for() -> None:
    def shy(text: str, images: Sequence[Tensor]) -> Any:
        return "A picture." if "a cat" in text else brightness(text, images)

    with chatting(shy) as server:
        with pytest.raises(BadNumbers, match=r"gave no score for 1 of 4 images.* With its option tolerate=0.25 such"):
            judge_at(server)(IMAGES, PROMPTS)  # an update with it is skipped
        scores = judge_at(server, tolerate=0.25)(IMAGES, PROMPTS)
    torch.testing.assert_close(scores[1:], seen(IMAGES)[1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(scores[0], scores[1:].mean())


def test_yes_may_be_said_in_another_language(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("ask: yes-no\ntext: 'Zeigt das Bild {prompt}?'\nyes: [ja]\nno: [nein]", encoding="utf-8")
    answer = Answer("Ja", first={"Ja": math.log(0.6), "Nein": math.log(0.2), "Yes": math.log(0.1)})
    assert score_of(load_template(str(path)), answer) == pytest.approx(0.75)


def test_a_question_that_is_refused_is_one_image_without_a_score() -> None:
    def filtered(text: str, images: Sequence[Tensor]) -> Any:
        refusal = JSONResponse({"error": {"message": "content filter"}}, 400)
        return refusal if "a cat" in text else brightness(text, images)

    with chatting(filtered) as server:
        scores = judge_at(server, tolerate=0.25)(IMAGES, PROMPTS)
    torch.testing.assert_close(scores[1:], seen(IMAGES)[1:], atol=1e-6, rtol=0)


def test_every_attempt_counts_against_the_budget() -> None:
    with chatting(lambda text, images: JSONResponse({"error": "later"}, 503)) as server:
        with pytest.raises(RunError, match=r"The budget of 6 calls .* is spent: 6 were made, and 1 more"):
            judge_at(server, budget=6, retries=9, concurrency=2)(IMAGES, PROMPTS)
        assert len(server.asked) == 6


def test_several_threads_and_processes_share_one_file(tmp_path: Path) -> None:
    with chatting(brightness) as server:
        judge = judge_at(server)
        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(judge(IMAGES, PROMPTS)))
        thread.start()
        thread.join()
        torch.testing.assert_close(found[0], seen(IMAGES), atol=1e-6, rtol=0)
    program = """
import sys
from pathlib import Path
from dipp_judge.answers import Answers
from dipp_judge.reading import Answer
answers = Answers(Path(sys.argv[1]))
for number in range(20):
    assert answers.count_call("m", 0)
    answers.keep(f"{sys.argv[2]}-{number}", "m", Answer("Yes", "seer"))
"""
    path = tmp_path / "shared.sqlite"
    started = [subprocess.Popen([sys.executable, "-c", program, str(path), str(number)]) for number in range(3)]
    assert [process.wait() for process in started] == [0] * 3
    assert Answers(path).calls("m") == 60


def test_two_that_ask_the_same_at_once_score_by_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    moods = iter((0.3, 0.6))  # a server need not say the same twice

    def moody(text: str, images: Sequence[Tensor]) -> dict[str, Any]:
        likely = next(moods)
        return choice("Yes", Yes=math.log(likely), No=math.log(1 - likely))

    with chatting(moody) as server:
        slow, fast = (cast(Judge, judge_at(server)) for _ in range(2))
        ask, faster = slow.server.ask, []

        def ask_slowly(question: Question) -> Answer:
            answer = ask(question)
            faster.append(fast(IMAGES[:1], PROMPTS[:1]))  # asks and keeps while the first answer is on its way
            return answer

        monkeypatch.setattr(slow.server, "ask", ask_slowly)
        scores = slow(IMAGES[:1], PROMPTS[:1])
        assert len(server.asked) == 2 and torch.equal(scores, faster[0])
        assert torch.equal(judge_at(server, offline=True)(IMAGES[:1], PROMPTS[:1]), scores)


def test_a_key_in_an_address_is_not_shown_and_a_plus_is_no_blank() -> None:
    for address in ("http://host:sk-secret/v1?model=m", "http://[sk-secret/v1?model=m"):
        with pytest.raises(RequestError, match="address of a judge is invalid; expected one such as") as told:
            split_address(address, {"model": None})
        assert "sk-secret" not in "".join(traceback.format_exception(told.value))
    assert split_address("http://host/v1?model=a+b%20c", {"model": None})[1] == {"model": "a+b c"}


def test_an_interrupt_does_not_wait_for_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers after the test has ended: whoever waits for it waits until then."""
    let_go = threading.Event()

    def silent(text: str, images: Sequence[Tensor]) -> str:
        let_go.wait(60)
        return "late"

    def interrupted(*_arguments: Any, **_named: Any) -> Any:
        raise KeyboardInterrupt

    with chatting(silent) as server:
        judge = judge_at(server, timeout=50)
        monkeypatch.setattr("dipp_judge.reward.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            judge(IMAGES, PROMPTS)
        assert not let_go.is_set()
        let_go.set()


@pytest.mark.parametrize("secret", ["#access_token=hush", ";key=hush", "?key=hush", "&key=hush"])
def test_what_may_be_secret_in_an_address_is_not_shown(secret: str) -> None:
    assert "hush" not in without_secrets(f"cannot use judge:http://h/v1?model=x{secret} today")
    assert "model=x&template=rating" in without_secrets("judge:http://h/v1?model=x&template=rating")


def test_500_fuzzed_answers_are_scores_or_sentences() -> None:
    draw = random.Random(5)
    good = json.dumps({"model": "seer", "choices": [brightness("", IMAGES[:1])]})
    names = ["shows", "rating", "rational-rewards"]

    def garbage(text: str, images: Sequence[Tensor]) -> Response:
        letters = list(good)
        for _ in range(draw.randint(1, 12)):
            place = draw.randrange(len(letters))
            letters[place : place + draw.randint(0, 30)] = draw.choices(
                list('{}[]":,0123456789.eE-nulltrue \\'), k=draw.randint(0, 4)
            )
        return Response("".join(letters), draw.choice([200] * 9 + [400]), media_type="application/json")

    with chatting(garbage) as server:
        judges = [
            judge_at(server, f"&template={name}", retries=0) if name != "rational-rewards" else None for name in names
        ]
        told = 0
        for number in range(500):
            judge = judges[number % 2]
            assert judge is not None
            try:
                score = judge(torch.full((1, 3, 2, 2), number / 500), ["a cat"])
            except DippError as error:
                told += 1
                assert re.match(r"^[^\n]{10,900}$", str(error))
            else:
                assert bool(torch.isfinite(score).all())
        assert len(server.asked) == 500 and told > 100


@given(st.text(max_size=200), st.sampled_from(["rating", "comparison", "rational-rewards", "unified-reward"]))
@settings(max_examples=300, deadline=None)
def test_no_text_whatever_does_harm(text: str, name: str) -> None:
    template = load_template(name)
    try:
        score = score_of(template, Answer(text + "Score: " + text))
    except Unusable:
        return
    assert template.range[0] <= score <= template.range[1]


PARTS = st.sampled_from(["choices", "message", "content", "logprobs", "token", "logprob", "top_logprobs"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS, inner, max_size=4),
    max_leaves=20,
)


@given(ANY_JSON)
@settings(max_examples=200, deadline=None)
def test_no_json_whatever_does_harm(content: Any) -> None:
    try:
        answer = answer_of(content)
    except Unusable:
        return
    assert all(math.exp(value) <= 1.001 for value in answer.first.values())


def test_a_weight_stands_behind_the_address() -> None:
    name = "judge:http://h:8000/v1?model=a/b-7b&template=rating"
    assert parse_rewards(f"{name}=0.5,hps") == {name: 0.5, "hps": 1.0}
    assert parse_rewards("judge:https://h/v1?model=7") == {"judge:https://h/v1?model=7": 1.0}
    assert parse_floors("judge:https://h/v1?model=m=0.5") == {"judge:https://h/v1?model=m": 0.5}
    with pytest.raises(RequestError, match="has no level"):
        parse_floors("judge:https://h/v1?model=m")
    with pytest.raises(RequestError, match="weight of the reward"):
        parse_rewards("judge:https://h/v1?model=m=much")
    assert parse_assignments([f"reward.{name}.budget=50", "steps=3"]) == {
        "reward_options": {name: {"budget": 50}}, "steps": 3,
    }  # fmt: skip


def test_a_damaged_file_of_answers_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with (
        chatting(brightness) as server,
        pytest.raises(RequestError, match=r"cannot be kept in .*: file is not a database"),
    ):
        judge_at(server, cache=str(path))


def test_a_run_that_lost_its_judge_goes_on_and_is_replayed_without_it(tmp_path: Path) -> None:
    """The server dies half-way: the state is saved, and nothing that was answered is asked for again."""
    world = tiny_world(tmp_path)

    def run(place: str, name: str, **changes: Any) -> Path:
        shared = {"judge": None, "eval_count": 2, "reference_steps": 1, "monitor_every": 0, "diagnose_every": 0}
        settings = world | shared | {"steps": 3, "batch_size": 4, "checkpoint_every": 1, "rewards": {name: 1.0}}
        train(TrainConfig(**settings, out=tmp_path / place, **changes))
        return tmp_path / place

    with chatting(brightness) as server:
        name = f"judge:{server.address}?model=seer"
        first = run("whole", name)
        whole = {json.dumps(row, sort_keys=True) for row in server.asked}
        assert len(whole) == len(server.asked) > 0  # each question once
    replayed = run("replayed", name, reward_options={name: {"retries": 0}})

    def dies(text: str, images: Sequence[Tensor]) -> Any:
        return Response("", 500) if len(server.asked) > len(whole) // 2 else brightness(text, images)

    cache = tmp_path / "other.sqlite"
    port = int(server.address.rpartition(":")[2].partition("/")[0])
    with chatting(dies, port) as server, pytest.raises(RunError, match=r"status 500"):
        run("cut", name, reward_options={name: {"cache": str(cache), "budget": 5000}})
    with sqlite3.connect(cache) as file:
        (kept,) = file.execute("SELECT count(*) FROM answers").fetchone()
    with chatting(brightness, port) as server:
        ways = {"cache": str(cache), "budget": 9000}  # how it is asked may change
        resumed = run("cut", name, resume=True, reward_options={name: ways})
        assert len(server.asked) == len(whole) - kept
    weights = [next((folder / "final").rglob("transformer/*.safetensors")) for folder in (first, replayed, resumed)]
    assert len({path.read_bytes() for path in weights}) == 1
