"""The vote page's server: what it answers, to whom, and what it never tells."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from test_vote_session import AnyPair, filled

from dipp_toolkit.errors import RunError
from dipp_toolkit.experiments.voting.server import build_page
from dipp_toolkit.experiments.voting.session import Session
from dipp_toolkit.rewards.remote import serve

TOKEN = "a-token-of-this-test-000"
HOME = "http://127.0.0.1:8701"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    votes = filled(tmp_path, makers=("maker-one", "maker-two", "maker-three"))
    return Session(votes, AnyPair, goal=4, repeats=0)


@pytest.fixture
def client(session: Session) -> TestClient:
    return TestClient(build_page(session, TOKEN), base_url=HOME, raise_server_exceptions=False)


def post(client: TestClient, action: str, **given: Any) -> dict[str, Any]:
    answer = client.post(f"/{TOKEN}/{action}", json={"voter": "ann", **given})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_vote_from_the_page_to_the_file(client: TestClient, session: Session) -> None:
    asked = post(client, "question")
    assert (asked["votes"], asked["goal"], asked["done"], asked["last"]) == (0, 4, False, "")
    assert post(client, "question") == asked
    for side in ("left", "right"):
        image = client.get(f"/{TOKEN}/{asked['question'][side]}")
        assert (image.status_code, image.headers["content-type"]) == (200, "image/png")
        assert image.content.startswith(b"\x89PNG")
    ahead = post(client, "ahead")["images"]
    after = post(client, "vote", showing=asked["question"]["id"], choice="second")
    assert after["votes"] == 1
    assert [after["question"]["left"], after["question"]["right"]] == ahead
    assert post(client, "vote", showing=asked["question"]["id"], choice="second") == after, "sent twice, counted once"
    (kept,) = session.votes.comparisons()
    assert (kept.voter, kept.outcome) == ("ann", 0.0)
    back = post(client, "undo", showing=after["last"])
    assert (back["votes"], back["question"]["left"]) == (0, asked["question"]["left"])
    assert post(client, "undo", showing=after["last"]) == back
    assert session.votes.comparisons() == []


def test_the_end_and_going_on(client: TestClient) -> None:
    told = post(client, "question")
    for _ in range(4):
        told = post(client, "vote", showing=told["question"]["id"], choice="equal")
    assert (told["done"], told["question"]) == (True, None)
    assert not post(client, "question", voter="bob")["done"]
    more = post(client, "more")
    assert (more["done"], more["goal"]) == (False, 8)


def test_nothing_that_is_sent_tells_who_made_an_image(client: TestClient, session: Session) -> None:
    told = [client.get(f"/{TOKEN}/{name}") for name in ("", "page.css", "page.js")]
    asked = post(client, "question")
    told.append(client.post(f"/{TOKEN}/question", json={"voter": "ann"}))
    told += [client.get(f"/{TOKEN}/{asked['question'][side]}") for side in ("left", "right")]
    for answer in told:
        assert answer.status_code == 200
        for text in (answer.content.decode("latin-1"), str(answer.headers)):
            assert "maker-" not in text
    names = {asked["question"][side] for side in ("left", "right")}
    assert all(re.fullmatch(r"image/[0-9a-f]{32}", name) for name in names)
    digests = {image.picture.path.stem for image in session.votes.candidates()}  # type: ignore[attr-defined]
    assert not any(name.removeprefix("image/") in digests for name in names)


@pytest.mark.parametrize("path", ["/", "/page.js", "/question", f"/{TOKEN[:-1]}/", f"/{TOKEN}x/", f"//{TOKEN}/", "/é/"])
def test_without_the_token_there_is_a_page_that_says_so(client: TestClient, session: Session, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 403
    assert "Open the link that <code>dipp vote</code> or <code>dipp align</code> printed" in answer.text
    assert TOKEN not in answer.text
    assert client.post(path, json={"voter": "ann"}).status_code == 403
    assert session.votes.open_showings("ann") == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8701", "127.0.0.1.evil.example", "192.168.1.7", "", "["]
)
def test_under_another_name_nothing_is_answered(client: TestClient, host: str) -> None:
    answer = client.get(f"/{TOKEN}/", headers={"host": host})
    assert answer.status_code == 403
    assert "127.0.0.1 and localhost" in answer.text


@pytest.mark.parametrize("host", ["localhost:8701", "127.0.0.1:9", "[::1]:8701", "127.0.0.1"])
def test_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9000"},
                {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}],
)  # fmt: skip
def test_a_strangers_page_cannot_vote(client: TestClient, session: Session, headers: dict[str, str]) -> None:
    asked = post(client, "question")
    vote = {"voter": "ann", "showing": asked["question"]["id"], "choice": "first"}
    assert client.post(f"/{TOKEN}/vote", json=vote, headers=headers).status_code == 403
    assert session.votes.comparisons() == []
    own = {"origin": HOME, "sec-fetch-site": "same-origin"}
    assert client.post(f"/{TOKEN}/vote", json=vote, headers=own).status_code == 200


@pytest.mark.parametrize("path", [f"/{TOKEN}/", f"/{TOKEN}/page.js", "/", f"/{TOKEN}/nothing"])
def test_every_answer_keeps_others_out(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_page_has_no_inline_script_or_style_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get(f"/{TOKEN}/").text
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert not re.search(r"<style|\bstyle=|\bon[a-z]+=", page)
    for name in ("", "page.css", "page.js", "../"):
        text = client.get(f"/{TOKEN}/{name}").text
        assert not re.search(r"https?://|url\(|@import", text), name


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "not JSON"), (b"[1]", 400, "not a JSON object"), (b"\xff", 400, "not JSON"),
        (b"[" * 9000, 400, "not JSON"), (b'{"voter": 3}', 400, "'voter' is not a text"),
        (b"x" * 20_000, 413, "too large"),
        (b'{"voter": ""}', 400, "A voter's name has"), (b'{"voter": "a\\u0000"}', 400, "A voter's name has"),
        (b'{"voter": "' + b"a" * 81 + b'"}', 400, "A voter's name has"), (b"{}", 400, "A voter's name has"),
    ],
)  # fmt: skip
def test_bodies_that_are_no_requests(client: TestClient, body: bytes, status: int, sentence: str) -> None:
    answer = client.post(f"/{TOKEN}/question", content=body)
    assert (answer.status_code, sentence in answer.json()["error"]) == (status, True), answer.text


def test_votes_on_what_was_not_asked(client: TestClient) -> None:
    asked = post(client, "question")
    for given in (
        {"voter": "bob", "showing": asked["question"]["id"], "choice": "first"},
        {"voter": "ann", "showing": "nothing", "choice": "first"},
        {"voter": "ann", "showing": asked["question"]["id"], "choice": "third"},
    ):
        answer = client.post(f"/{TOKEN}/vote", json=given)
        assert answer.status_code == 400
        assert answer.json()["error"].endswith((".", "!"))


def test_half_a_character_is_refused_and_not_asked_for_again(client: TestClient) -> None:
    vote = b'{"voter": "ann", "showing": "\\ud800", "choice": "first"}'
    answer = client.post(f"/{TOKEN}/vote", content=vote)
    assert (answer.status_code, answer.json()["error"]) == (400, "'showing' is not a text.")


def test_an_image_that_goes_missing_is_said_and_passed_over(client: TestClient, session: Session) -> None:
    asked = post(client, "question")
    showing = session.votes.open_showing("ann")
    assert showing is not None
    showing.first.picture.path.unlink()  # type: ignore[attr-defined]
    gone = client.get(f"/{TOKEN}/{asked['question']['left']}")
    assert gone.status_code == 404
    assert "passed over" in gone.json()["error"]
    after = post(client, "question")
    assert after["question"]["id"] != asked["question"]["id"]
    assert after["notice"] == "1 image cannot be shown; their pairs are passed over."
    assert client.get(f"/{TOKEN}/image/{'0' * 32}").status_code == 404


def test_addresses_of_images_outlive_the_server(client: TestClient, session: Session) -> None:
    asked = post(client, "question")
    again = TestClient(build_page(session, TOKEN), base_url=HOME)
    assert again.get(f"/{TOKEN}/{asked['question']['left']}").status_code == 200
    other = TestClient(build_page(session, TOKEN[::-1]), base_url=HOME)
    assert other.get(f"/{TOKEN[::-1]}/{asked['question']['left']}").status_code == 404


def test_a_browsers_question_for_an_icon_is_no_error(client: TestClient) -> None:
    assert client.get("/favicon.ico").status_code == 204


def test_where_the_file_is_in_use_it_is_asked_again_whether_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([RunError("The votes cannot be read: database is locked."), True, True])

    def done() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(server: Any, sockets: object) -> None:
        for _ in range(500):
            if server.should_exit:
                return
            time.sleep(0.01)
        raise AssertionError("it serves for ever")

    monkeypatch.setattr(serve, "ASKED_EVERY", 0.01)
    monkeypatch.setattr("uvicorn.Server.run", run)
    serve.serve_until_stopped(None, serve.listen("127.0.0.1", 0, None), done)
