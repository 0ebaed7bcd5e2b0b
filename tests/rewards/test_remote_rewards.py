"""Rewards behind HTTP: equal to the same reward here, guarded, patient, and a sentence for every way they can fail."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import DippError, RequestError, RunError
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote import connection as remote_connection
from dipp_toolkit.rewards.remote import wire
from dipp_toolkit.rewards.remote.address import is_loopback, parse_addresses, read_token
from dipp_toolkit.rewards.remote.limits import Limits
from dipp_toolkit.rewards.remote.serve import address_of, listen, public_names, server_config

PROMPTS = ["a cat", "a dog"]
IMAGES = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(2))
TOKEN = "open-sesame"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_connection, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(remote_connection, "LONGEST_PAUSE", 0.05)
    monkeypatch.delenv("DIPP_REWARD_TOKEN", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # of no concern to loopback


GUARD = 120.0
"""Seconds after which what a test waits for is given up."""


class Slow:
    """Waits until it is let go where the first prompt says so, or fails."""

    differentiable = False
    let_go = threading.Event()

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        if prompts[0] == "raise":
            raise KeyError("a bad\nprompt")
        if prompts[0] == "wait":
            self.let_go.wait(GUARD)
        return images.mean((1, 2, 3))


@contextmanager
def serving(rewards: dict[str, Any], **options: Any) -> Iterator[str]:
    """Our server in a thread; gives its address."""
    listening = listen("127.0.0.1", 0, None)
    server = uvicorn.Server(server_config(rewards, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join(5)
        listening.close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that wants a token and takes small requests."""
    rewards = {"colourfulness": load_reward("colourfulness"), "sharpness": load_reward("sharpness"), "slow": Slow()}
    with serving(rewards, token=TOKEN, limits=Limits(megabytes=0.1)) as address:
        yield address


@pytest.fixture(scope="module")
def impatient() -> Iterator[str]:
    """A server with little patience."""
    with serving({"slow": Slow()}, token=TOKEN, limits=Limits(timeout=0.4)) as address:
        yield address


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What lets go of the rewards that wait, as the test's end does."""
    Slow.let_go.clear()
    yield Slow.let_go
    Slow.let_go.set()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPP_REWARD_TOKEN", TOKEN)


@pytest.mark.parametrize("name", ["colourfulness", "sharpness"])
@pytest.mark.parametrize("batch", [0, 1])
def test_scores_and_gradients_are_those_of_the_same_reward_here(
    server: str, token: None, name: str, batch: int
) -> None:
    there, here = load_reward(f"{server}/{name}", batch=batch), load_reward(name)
    assert there.differentiable is True
    weights = torch.tensor([1.0, -3.0])
    results = []
    for reward in (there, here):
        images = IMAGES.clone().requires_grad_(True)
        scores = reward(images, PROMPTS)
        results.append((scores.detach(), torch.autograd.grad((scores * weights).sum(), images)[0]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(there(IMAGES, PROMPTS), results[1][0], rtol=1e-6, atol=1e-6)


def test_a_black_box_gives_scores_alone(server: str, token: None) -> None:
    reward = load_reward(f"{server}/slow")
    assert reward.differentiable is False
    scores = reward(IMAGES.clone().requires_grad_(True), ["", ""])
    assert not scores.requires_grad
    torch.testing.assert_close(scores, IMAGES.mean((1, 2, 3)))


STARTS = {
    "no token": ("/colourfulness", {"token_env": "NO_SUCH"}, "Access refused: no token.*DIPP_REWARD_TOKEN"),
    "unknown reward": ("/colorfulness", {}, r"no reward named 'colorfulness'\. Did you mean 'colourfulness'\? Known"),
    "no reward": ("/", {}, "does not name a reward of a server"),
    "missing token file": ("/slow", {"token_file": "/nowhere"}, "Cannot read the token file /nowhere: No such file"),
    "token as an option": ("/slow", {"token": "x"}, "takes no such option.*'token_env'"),
    "timeout": ("/slow", {"timeout": -1}, "option timeout of the reward .* is -1; expected a positive number"),
    "retries": ("/slow", {"retries": -1}, "is -1; expected a whole number, 0 or more"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "options", "sentence"), STARTS.values(), ids=STARTS)
def test_a_reward_that_cannot_be_had_is_a_wrong_request(
    server: str, token: None, path: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        load_reward(f"{server}{path}", **options)


def test_a_token_may_be_in_a_file_and_a_wrong_one_is_refused_and_not_quoted(server: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    load_reward(f"{server}/sharpness", token_file=str(file))(IMAGES, PROMPTS)
    for wrong in ("guess", f"{TOKEN}x"):
        file.write_text(wrong)
        with pytest.raises(RequestError, match="refuses access: Access refused: wrong token") as caught:
            load_reward(f"{server}/sharpness", token_file=str(file))
        assert wrong not in str(caught.value)
    file.write_text("two words")
    with pytest.raises(RequestError, match="does not hold a token; expected printable ASCII"):
        read_token(file=file)


def test_a_token_that_changes_during_the_run_ends_it(server: str, token: None) -> None:
    reward = load_reward(f"{server}/sharpness")
    reward.scorer.replicas[0].connection._client.headers["authorization"] = "Bearer other"
    with pytest.raises(RunError, match="refuses access: Access refused: wrong token"):
        reward(torch.rand(2, 3, 40, 40), PROMPTS)


def test_a_reward_that_fails_gets_a_sentence(server: str, token: None) -> None:
    with pytest.raises(RunError, match=r"says: The reward 'slow' failed with KeyError: 'a bad.*prompt'"):
        load_reward(f"{server}/slow", retries=0)(IMAGES, ["raise", ""])


def test_a_reward_that_takes_long_gets_a_sentence(impatient: str, token: None, held: threading.Event) -> None:
    reward = load_reward(f"{impatient}/slow", retries=0)
    sooner_or_later(reward, "wait", r"is unavailable: .*says: The reward 'slow' took longer than 0\.4 s\.")
    sooner_or_later(reward, "", r"is unavailable: .*says: The reward 'slow' was busy for 0\.4 s\.")
    held.set()
    sooner_or_later(reward, "", "scored")


def sooner_or_later(reward: Any, prompt: str, outcome: str) -> None:
    """A call ends like this, whatever other calls do whose request took as long as the server waits for any."""
    until, outcomes = time.monotonic() + GUARD, [""]
    while not re.search(outcome, outcomes[-1]) and time.monotonic() < until:
        try:
            torch.testing.assert_close(reward(IMAGES, [prompt, ""]), IMAGES.mean((1, 2, 3)))
            outcomes.append("scored")
        except RunError as error:
            outcomes.append(str(error))
    assert re.search(outcome, outcomes[-1]), set(outcomes)


def test_a_client_that_is_less_patient_says_so(server: str, token: None, held: threading.Event) -> None:
    reward = load_reward(f"{server}/slow")
    for replica in reward.scorer.replicas:
        replica.connection.timeout = 0.1
    with pytest.raises(RunError, match=r"did not answer within 0\.1 s\. .*slow\.timeout=SECONDS"):
        reward(IMAGES, ["wait", ""])


def test_too_large_a_request_is_refused_and_smaller_ones_are_not(server: str, token: None) -> None:
    images = torch.rand(4, 3, 64, 64)
    with pytest.raises(RunError, match=r"says: The request has more than 0\.1 MB; send fewer images"):
        load_reward(f"{server}/sharpness")(images, [""] * 4)
    assert load_reward(f"{server}/sharpness", batch=1)(images, [""] * 4).shape == (4,)
    with pytest.raises(RunError, match="more than max_megabytes allows"):
        load_reward(f"{server}/sharpness", max_megabytes=5e-4)(IMAGES.clone().requires_grad_(True), PROMPTS)


def test_a_body_without_an_announced_length_is_counted(server: str) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(2**14)

    headers = {"authorization": f"Bearer {TOKEN}"}
    try:
        answer = httpx.post(f"{server}/sharpness", content=endless(), headers=headers, trust_env=False)
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the server hung up first: it may


def test_the_server_has_nothing_but_its_rewards(server: str) -> None:
    good = {"authorization": f"Bearer {TOKEN}"}
    found = {}
    with httpx.Client(base_url=server, trust_env=False) as client:
        for method, path, headers in [
            ("GET", "/", {}), ("POST", "/sharpness", {}), ("GET", "/", {"authorization": "Basic b3Blbg=="}),
            ("GET", "/", {"authorization": "Bearer"}), ("GET", "/", {"authorization": "Bearer \u00e9"}),
            ("GET", "/", good),
            ("GET", "/sharpness", good), ("POST", "/", good), ("POST", "/nothing", good), ("GET", "/docs", good),
            ("POST", "/..%2f..%2fetc%2fpasswd", good), ("POST", "/a/b", good), ("POST", "/sharpness", good),
        ]:  # fmt: skip
            encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
            answer = client.request(method, path, headers=encoded)
            found[method, path, str(headers)] = answer.status_code
            content = answer.json()
            if answer.status_code != 200:
                assert list(content) == ["error"] and isinstance(content["error"], str)
            else:
                assert content["protocol"] == 1 and set(content["rewards"]) == {"colourfulness", "sharpness", "slow"}
    assert list(found.values()) == [401, 401, 401, 401, 401, 200, 405, 405, 404, 405, 404, 404, 400]


def test_a_body_that_does_not_come_is_not_waited_for(impatient: str) -> None:
    host, port = impatient.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        lines = ["POST /slow HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKEN}", "Content-Length: 9", "", "ab"]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def test_others_need_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(RequestError, match=rf"Others can reach {host}, so a token is needed"):
            listen(host, 0, None)
    with pytest.raises(RequestError, match=r"guess the token, which has 11 characters; expected 16 or more"):
        listen("0.0.0.0", 0, TOKEN)
    listen("0.0.0.0", 0, 2 * TOKEN).close()
    assert all(is_loopback(text) for text in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))


def test_a_taken_port_is_a_sentence() -> None:
    with listen("127.0.0.1", 0, None) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=rf"Cannot listen on 127.0.0.1, port {port}: Address already in use"):
            listen("127.0.0.1", port, None)


def test_what_rewards_are_called_in_addresses() -> None:
    names = ["hps", "imagereward@isolated", "./my/mine.py:blue", "package.module:f@mine", "other.py"]
    assert list(public_names(names)) == ["hps", "imagereward", "blue", "f", "other"]
    with pytest.raises(RequestError, match="'hps' and 'hps@isolated' would both be served as 'hps'"):
        public_names(["hps", "hps@isolated"])
    with pytest.raises(RequestError, match="cannot be part of an address"):
        public_names(["a b"])


ADDRESSES = {
    "http://a:8700/hps": [("http://a:8700", "hps")],
    "http://a:8700/hps+http://b/hps": [("http://a:8700", "hps"), ("http://b", "hps")],
    "https://a/behind/a%20proxy/hps": [("https://a/behind/a%20proxy", "hps")],
    "http://[::1]:87/x+y": [("http://[::1]:87", "x+y")],
}


@pytest.mark.parametrize(("text", "expected"), ADDRESSES.items())
def test_addresses(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(address.base, address.reward) for address in parse_addresses(text)] == expected


@pytest.mark.parametrize(
    "text", ["http://", "http:///hps", "http://a", "http://a:x/hps", "http://a:99999/hps", "http://a/hps?x=1",
             "http://a/hps#x", "http://[a/hps", "http://a/ hps", "http://a/hps+http://b"]
)  # fmt: skip
def test_what_is_no_address_gets_a_sentence(text: str) -> None:
    with pytest.raises(RequestError, match="address"):
        load_reward(text)


def test_a_password_in_an_address_is_refused_and_not_quoted() -> None:
    with pytest.raises(RequestError, match="DIPP_REWARD_TOKEN") as caught:
        load_reward("http://me:secret@127.0.0.1:1/hps")
    assert "secret" not in str(caught.value)
    as_port = "http://127.0.0.1:secret/hps"
    with pytest.raises(RequestError, match="address of a reward is invalid; expected one such as") as caught:
        load_reward(as_port)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


Answer = tuple[int, dict[str, str], bytes]
DESCRIPTION = json.dumps({"protocol": 1, "rewards": {"r": {"differentiable": True}}}).encode()
GOOD: Answer = (200, {}, wire.encode_scores(torch.ones(2), IMAGES))


@contextmanager
def pretending(answer: Callable[[int], Answer], description: Answer = (200, {}, DESCRIPTION)) -> Iterator[Any]:
    """A server that answers the first, second, ... request for scores with `answer(0)`, `answer(1)`, ..."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.reply(description)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            server.asked += 1
            self.reply(answer(server.asked - 1))

        def reply(self, what: Answer) -> None:
            status, headers, body = what
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body)), "Connection": "close"} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *words: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        asked = 0
        daemon_threads = True

        def handle_error(self, *words: Any) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{server.server_address[1]}/r"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def dead() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"http://127.0.0.1:{one.getsockname()[1]}/r"


def test_a_dead_server_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match=r"The server http://127.0.0.1:\d+ cannot be reached: .*refused"):
        load_reward(dead())


BAD_DESCRIPTIONS = {
    "no json": (200, {}, b"<html>"),
    "deep": (200, {}, b"[" * 100_000),
    "a list": (200, {}, b"[1]"),
    "other version": (200, {}, b'{"protocol": 2, "rewards": {"r": {}}}'),
    "rewards as a list": (200, {}, b'{"protocol": 1, "rewards": ["r"]}'),
    "a strange reward": (200, {}, b'{"protocol": 1, "rewards": {"r": 3}}'),
    "differentiable as text": (200, {}, b'{"protocol": 1, "rewards": {"r": {"differentiable": "yes"}}}'),
    "huge": (200, {}, b" " * 2**21),
    "moved": (301, {"Location": "http://127.0.0.1:1/"}, b""),
    "lost": (404, {}, b'{"error": "nothing\\nhere"}'),
    "compressed": (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"),
    "always busy": (503, {"Retry-After": "9"}, b"\xff\x00 busy"),
}  # fmt: skip


@pytest.mark.parametrize("description", BAD_DESCRIPTIONS.values(), ids=BAD_DESCRIPTIONS)
def test_a_server_that_is_none_of_ours_is_a_wrong_request(description: Answer) -> None:
    with pretending(lambda _: GOOD, description) as server, pytest.raises(RequestError) as caught:
        load_reward(server.address)
    assert server.server_address and re.match(r"^The server http://127[^\n\x00]{20,300}$", str(caught.value))


BAD_ANSWERS = {
    "1 GB announced": ((200, {"Content-Length": str(2**30)}, b""), "a response of 1024.0 MB or more; expected 1.0"),
    "no end": ((200, {"Content-Length": str(10**30)}, b"x" * 2**22), r"a response of 4?\d?\.\d MB or more|reached"),
    "unannounced": ((200, {"Content-Length": "-"}, b"x" * 2**22), "is unavailable|or more"),
    "garbage": ((200, {}, b"garbage"), "an invalid response: .*not in the safetensors format"),
    "an empty answer": ((200, {}, b""), "an invalid response"),
    "pickle": ((200, {}, b"\x80\x04."), "an invalid response"),
    "wrong shape": ((200, {}, wire.encode_scores(torch.ones(3), None)), r"shape \(3,\) as scores"),
    "no gradient": ((200, {}, wire.encode_scores(torch.ones(2), None)), "returned no gradient; expected one"),
    "an error": ((200, {}, wire.encode_error("no luck")), "says: no luck"),
    "a page": ((500, {}, b"<html>\x00oops"), r"says: <html> oops\."),
    "moved": ((307, {"Location": "http://127.0.0.1:1/"}, b""), "redirects elsewhere"),
    "half": ((200, {"Content-Length": "500"}, b"half"), "is unavailable: .*cannot be reached"),
    "compressed": ((200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"), "in the encoding 'gzip'"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "sentence"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_gets_a_sentence(answer: Answer, sentence: str) -> None:
    with pretending(lambda _: answer) as server:
        reward = load_reward(server.address, retries=1)
        with pytest.raises(RunError, match=sentence) as caught:
            reward(IMAGES.clone().requires_grad_(True), PROMPTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "gradients", "explained"),
    [
        ([1.0, float("nan")], IMAGES, "a score that is not finite for 1 of 2 images"),
        ([1.0, 1.0], IMAGES / 0, "the gradient of the reward 'r' is not finite"),
    ],
)
def test_bad_numbers_are_for_the_run_to_skip(scores: list[float], gradients: torch.Tensor, explained: str) -> None:
    answer = (200, {}, wire.encode_scores(torch.tensor(scores), gradients))
    with pretending(lambda _: answer) as server:
        term = RewardTerm("r", load_reward(server.address), lambda latents: latents)
        sample = Sample(IMAGES, Condition(tuple(PROMPTS), {}), IMAGES, torch.Generator())
        result = term(sample)
        assert not bool(torch.isfinite(result.value).all() & torch.isfinite(result.grad).all())
        assert explained in term.explain(sample, result)


def test_fuzzed_answers_are_a_sentence_each() -> None:
    draw = random.Random(2)

    def answer(_: int) -> Answer:
        data = bytearray(GOOD[2])
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(320)] = draw.randrange(256)
        return (200, {}, bytes(data[: draw.choice([len(data), draw.randrange(len(data))])]))

    refused = 0
    with pretending(answer) as server:
        reward = load_reward(server.address)
        for _ in range(220):
            try:
                reward(IMAGES.clone().requires_grad_(True), PROMPTS)
            except DippError as error:
                refused += 1
                assert re.match(r"^[^\n]{10,700}$", str(error))
    assert refused > 180


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_pauses_that_grow(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(remote_connection.time, "sleep", pauses.append)
    busy = (status, {}, b'{"error": "later"}')
    with pretending(lambda count: GOOD if count == 3 else busy) as server:
        reward = load_reward(server.address, retries=3)
        assert torch.equal(reward(IMAGES, PROMPTS), torch.ones(2))
        assert server.asked == 4
        waits = [pause for pause in pauses if pause > 0]
        assert len(waits) == 3 and waits[0] < waits[1] < waits[2] <= 0.05
        with pytest.raises(RunError, match=r"is unavailable: .* says: later"):
            reward(IMAGES, PROMPTS)
        assert server.asked == 8


def test_what_a_server_refuses_for_good_is_not_asked_again() -> None:
    with pretending(lambda _: (400, {}, b'{"error": "bad"}')) as server:
        with pytest.raises(RunError, match=r"says: bad\."):
            load_reward(server.address)(IMAGES, PROMPTS)
        assert server.asked == 1


def test_replicas_are_asked_in_turn_and_a_dead_one_is_passed_over() -> None:
    with pretending(lambda _: GOOD) as first, pretending(lambda _: GOOD) as second:
        reward = load_reward(f"{first.address}+{dead()}+{second.address}")
        first.asked = second.asked = 0
        for _ in range(9):
            assert torch.equal(reward(IMAGES, PROMPTS), torch.ones(2))
        assert first.asked + second.asked == 9 and abs(first.asked - second.asked) <= 4 and second.asked >= 3


def test_replicas_that_die_one_after_the_other() -> None:
    with pretending(lambda _: GOOD) as second:
        with pretending(lambda _: GOOD) as first:
            reward = load_reward(f"{first.address}+{second.address}")
        for _ in range(4):
            reward(IMAGES, PROMPTS)
        assert second.asked >= 4
    with pytest.raises(RunError, match=r"is unavailable: The server http://127.* cannot be reached"):
        reward(IMAGES, PROMPTS)


def test_a_replica_that_comes_late_is_met_then() -> None:
    with pretending(lambda _: GOOD) as first:
        address = dead()
        reward = load_reward(f"{first.address}+{address}")
        late = next(replica for replica in reward.scorer.replicas if not replica.met)
        with pretending(lambda _: GOOD) as second:
            late.address = parse_addresses(second.address)[0]
            late.connection.base = late.address.base
            for _ in range(9):
                reward(IMAGES, PROMPTS)
                time.sleep(0.01)
            assert second.asked >= 3 and late.met


def test_replicas_of_different_rewards_are_refused() -> None:
    other = json.dumps({"protocol": 1, "rewards": {"r": {"differentiable": False}}}).encode()
    with (
        pretending(lambda _: GOOD) as first,
        pretending(lambda _: GOOD, (200, {}, other)) as second,
        pytest.raises(RequestError, match="disagree on whether the reward 'r' is differentiable"),
    ):
        load_reward(f"{first.address}+{second.address}")


def describing(identity: str) -> Answer:
    return (200, {}, json.dumps({"protocol": 1, "rewards": {"r": {"identity": identity}}}).encode())


def scoring(*scores: float, identity: str = "") -> Callable[[int], Answer]:
    return lambda _: (200, {}, wire.encode_scores(torch.tensor(scores), None, identity))


@pytest.mark.parametrize(
    ("descriptions", "answers", "sentence"),
    [
        (("a", "a"), ((0.5, 1.0), (0.5, 1.1)), "disagree: one scores the same two images 0.5, 1 and the other 0.5, 1"),
        (("", ""), ((0.5, 1.0), (0.5, float("nan"))), "disagree: .*must serve the same reward"),
        (("a", "b"), ((0.5, 1.0), (-0.5, -1.0)), "disagree: "),
        (("a", "b"), ((1.0,), (1.0,)), "serve rewards of different code or weights; they must serve the same one"),
    ],
)
def test_replicas_that_disagree_are_refused(
    descriptions: tuple[str, str], answers: tuple[tuple[float, ...], tuple[float, ...]], sentence: str
) -> None:
    with (
        pretending(scoring(*answers[0]), describing(descriptions[0])) as first,
        pretending(scoring(*answers[1]), describing(descriptions[1])) as second,
        pytest.raises(RequestError, match=sentence),
    ):
        load_reward(f"{first.address}+{second.address}")


def test_replicas_of_other_code_with_like_scores_are_told() -> None:
    with (
        pretending(scoring(0.5, 1.0), describing("a")) as first,
        pretending(scoring(0.5, 1.001), describing("b")) as second,
        pytest.warns(RuntimeWarning, match="different code or weights, though their scores of two images agree to 2%"),
    ):
        load_reward(f"{first.address}+{second.address}")


def test_a_replica_that_comes_late_with_another_reward_is_refused_then() -> None:
    with pretending(scoring(0.5, 1.0), describing("a")) as first:
        reward = load_reward(f"{first.address}+{dead()}", retries=1)
        late = next(replica for replica in reward.scorer.replicas if not replica.met)
        with pretending(scoring(5.0, 1.0), describing("b")) as second:
            late.address = parse_addresses(second.address)[0]
            late.connection.base = late.address.base
            with pytest.raises(RequestError, match="disagree"):
                for _ in range(9):
                    reward(IMAGES, PROMPTS)
                    time.sleep(0.01)


def test_a_server_that_changes_its_reward_is_noticed() -> None:
    with pretending(lambda count: scoring(0.5, 1.0, identity="ab"[min(count, 1)])(0), describing("a")) as server:
        reward = load_reward(server.address)
        assert torch.equal(reward(IMAGES, PROMPTS), torch.tensor([0.5, 1.0]))
        assert reward.identity() == "a"
        with pytest.raises(RunError, match="serves another reward 'r' now than at the start"):
            reward(IMAGES, PROMPTS)


def test_a_server_says_what_its_reward_is_and_one_that_does_not_is_told_by_its_scores(tmp_path: Path) -> None:
    identities = []
    for factor in ("2", "2", "3"):
        path = tmp_path / f"mine{len(identities)}.py"
        path.write_text(f"def f(images, prompts):\n    return images.mean((1, 2, 3)) * {factor}\n")
        with serving({"mine": load_reward(f"{path}:f")}) as address:
            reward = load_reward(f"{address}/mine")
            identities.append(reward.identity())
            assert reward(IMAGES, PROMPTS).shape == (2,)
    assert identities[0] == identities[1] != identities[2]
    with pretending(scoring(0.5, 1.0)) as first, pretending(scoring(0.5, 2.0)) as second:
        assert load_reward(first.address).identity() == "probe:0.5:1"
        assert load_reward(second.address).identity() == "probe:0.5:2"


def test_a_server_that_hangs_is_passed_over_once() -> None:
    over = threading.Event()

    def hang(_: int) -> Answer:
        over.wait(120)
        return GOOD

    with pretending(hang) as first, pretending(lambda _: GOOD) as second:
        reward = load_reward(f"{first.address}+{second.address}", timeout=4.0)
        hanging, patient = reward.scorer.replicas
        hanging.answered()  # it has rested, however quickly the other one was met
        patient.connection.timeout = GUARD
        try:
            assert torch.equal(reward(IMAGES, PROMPTS), torch.ones(2))
            assert (first.asked, second.asked) == (2, 2)  # once to see whether they agree
        finally:
            over.set()
