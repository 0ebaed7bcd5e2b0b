"""The reward server's doors: who may ask, how much, how fast; and a sentence for every body whatever."""

from __future__ import annotations

import ast
import asyncio
import http.client
import inspect
import json
import selectors
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from safetensors.torch import save

from bombs import write_bomb
from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.rewards.isolated.frames import STEP, receive_frame
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote import wire
from dipp_toolkit.rewards.remote.limits import Body, Crowd, CrowdedError, Limits
from dipp_toolkit.rewards.remote.serve import MOST_CALLERS, address_of, listen, run_server, server_config
from dipp_toolkit.rewards.remote.server import RewardService

TOKEN = "a-token-that-nobody-guesses"
GUARD = 120.0
"""Seconds after which a test that waits gives up; no limit of a server is anywhere near it."""
SMALL = {"megabytes": 1.0, "images": 4, "side": 64, "ratio": 8, "characters": 100, "crowd": 2.0}
PATIENT = Limits(**SMALL, timeout=GUARD, grace=GUARD, head=GUARD)
"""What is answered by such a server is not answered otherwise on a machine that stood still for a moment."""
HASTY_HEAD = Limits(**SMALL, timeout=GUARD, grace=GUARD, head=0.4)
HASTY_BODY = Limits(**SMALL, timeout=2.0, grace=0.5, head=GUARD)


@contextmanager
def serving(rewards: dict[str, Any] | None = None, **options: Any) -> Iterator[tuple[str, int]]:
    """A server as `dipp reward serve` makes it, in a thread; its address."""
    with running(rewards, **options) as (_, address):
        yield address


@contextmanager
def running(rewards: dict[str, Any] | None = None, **options: Any) -> Iterator[tuple[uvicorn.Server, tuple[str, int]]]:
    """Such a server itself, and its address."""
    listening = listen("127.0.0.1", 0, None)
    host, port = listening.getsockname()[:2]
    server = uvicorn.Server(server_config(rewards or {"sharpness": load_reward("sharpness")}, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield server, (host, port)
    finally:
        server.should_exit = True
        thread.join(5)
        listening.close()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with serving(token=TOKEN, limits=PATIENT) as address:
        yield address


@pytest.fixture(scope="module")
def hasty_head() -> Iterator[tuple[str, int]]:
    """A server that cuts off heads which are slow, and nothing else."""
    with serving(token=TOKEN, limits=HASTY_HEAD) as address:
        yield address


@pytest.fixture(scope="module")
def hasty_body() -> Iterator[tuple[str, int]]:
    """A server that cuts off bodies which are slow, and nothing else."""
    with serving(token=TOKEN, limits=HASTY_BODY) as address:
        yield address


def ask(address: tuple[str, int], body: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and sentence of a request for scores."""
    connection = http.client.HTTPConnection(*address, timeout=GUARD)
    try:
        connection.request("POST", "/sharpness", body, {"authorization": f"Bearer {TOKEN}", **(headers or {})})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content)["error"] if answer.status != 200 else ""
    finally:
        connection.close()


def request(count: int = 2, height: int = 6, width: int = 5, prompt: str = "a cat") -> bytes:
    return wire.encode_request(torch.rand(count, 3, height, width), [prompt] * count, False)


# Who may ask.


def test_the_command_listens_on_loopback_unless_told() -> None:
    from dipp_cli.commands.reward.serve import serve

    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"


def test_a_socket_that_others_reach_is_not_served_without_a_token() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening, pytest.raises(RequestError, match="so a token is needed"):
        run_server({"sharpness": load_reward("sharpness")}, listening)


def test_a_name_is_loopback_where_it_leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is whatever this machine's files say."""
    elsewhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **options: elsewhere)
    with pytest.raises(RequestError, match="Others can reach localhost, so a token is needed"):
        listen("localhost", 0, None)


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer \u00e9"]
)
def test_no_other_token_will_do(server: tuple[str, int], given: str) -> None:
    status, sentence = ask(server, request(), {"authorization": given})
    assert status == 401 and sentence.startswith("Access refused") and TOKEN not in sentence


def test_tokens_are_compared_in_constant_time() -> None:
    source = inspect.getsource(RewardService)
    compared = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare)]
    assert not any("self.token" in ast.unparse(item) for item in compared if not isinstance(item.ops[0], ast.Is))
    assert "hmac.compare_digest(presented.strip().encode(), self.token.encode())" in source


def test_without_a_token_a_page_in_a_browser_is_refused() -> None:
    """A stranger's page may call this machine by a name of its own; a browser says which."""
    with serving(limits=PATIENT) as address:
        for host in ("evil.example", "evil.example:8700", "127.0.0.1.evil.example", "[::2]:1", "10.0.0.1"):
            status, sentence = ask(address, request(), {"host": host})
            assert status == 403 and "answers only requests to 127.0.0.1" in sentence
        for host in ("127.0.0.1", "localhost:8700", "[::1]:8700"):
            assert ask(address, request(), {"host": host}) == (200, "")


# How much.


def test_what_is_within_the_limits_is_scored(server: tuple[str, int]) -> None:
    assert ask(server, request(4, 64, 8, "x" * 100)) == (200, "")


NOT_FINITE = wire.encode_request(torch.full((1, 3, 4, 4), float("nan")), [""], False)
TOO_MUCH = {
    "images": (request(5, 4, 4), 400, "has 5 images; expected 4 at most"),
    "pixels": (request(1, 65, 65), 400, "65 by 65 pixels; expected 64 a side at most"),
    "a ribbon": (request(1, 1, 9), 400, "no side more than 8 times the other"),
    "a prompt": (request(1, prompt="x" * 101), 400, "101 characters; expected 100 at most"),
    "half a character": (
        save({"message": torch.frombuffer(bytearray(
            b'{"kind": "score", "protocol": 1, "prompts": ["\\ud800"], "gradients": false}'), dtype=torch.uint8),
            "images": torch.rand(1, 3, 4, 4)}), 400, "not valid text: it contains half of a character"),
    "no numbers": (NOT_FINITE, 400, "that are not finite"),
    "wild numbers": (wire.encode_request(torch.full((1, 3, 4, 4), 1e30), [""], False), 400, "far from [0, 1]"),
    "a header": ((2**17).to_bytes(8, "little") + b" " * 2**17, 400, "header has 131072 bytes; expected 65536 at most"),
    "many tensors": (save({str(index): torch.zeros(1) for index in range(5000)}), 400, "header has"),
    "json": (save({"message": torch.zeros(2**10, dtype=torch.uint8)}), 400, "is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "part"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_more_than_that_is_refused(server: tuple[str, int], body: bytes, status: int, part: str) -> None:
    found, sentence = ask(server, body)
    assert found == status and part in sentence and "\n" not in sentence


def test_more_bytes_than_that_are_not_read(server: tuple[str, int]) -> None:
    head = f"POST /sharpness HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {{}}\r\n\r\n"
    for length in (2**20 + 1, 10**18, 10**30):
        with socket.create_connection(server, timeout=GUARD) as connection:
            connection.sendall(head.format(length).encode())
            said = b"".join(iter(lambda: connection.recv(4096), b""))
            assert said.startswith(b"HTTP/1.1 4") and (b"413" not in said[:20] or b"more than 1 MB" in said)
    with socket.create_connection(server, timeout=GUARD) as connection, suppress(OSError):  # it may hang up first
        connection.sendall(head.replace("Content-Length: {}", "Transfer-Encoding: chunked").encode())
        for _ in range(40):
            connection.sendall(b"10000\r\n" + bytes(2**16) + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_pickle_is_no_body(server: tuple[str, int], tmp_path: Path) -> None:
    for form in ("zip", "pickle", "legacy"):
        body = write_bomb(tmp_path / "body", tmp_path / "executed", form).read_bytes()
        status, sentence = ask(server, body)
        assert status == 400 and "is not in the safetensors format" in sentence
    assert not (tmp_path / "executed").exists()


def test_a_text_of_many_megabytes_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_TEXT", 100)
    with pytest.raises(wire.ProtocolError, match="has 101 bytes; expected 100 at most"):
        wire.decode(save({"message": torch.zeros(101, dtype=torch.uint8)}))


def test_all_callers_together_take_no_more_than_there_is() -> None:
    crowd = Crowd(10)
    crowd.take(6)
    with pytest.raises(CrowdedError):
        crowd.take(5)
    crowd.take(4)
    crowd.give_back(6)
    assert crowd.held == 4


UNFINISHED = (
    f"POST /sharpness HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1048576\r\n\r\n".encode()
    + bytes(2**20 - 1)
)


def test_bodies_that_wait_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two callers that never finish fill the room; a third is told to come again, and served once they have gone."""
    crowd = Crowd(2**21)
    monkeypatch.setattr("dipp_toolkit.rewards.remote.server.Crowd", lambda most: crowd)
    with serving(token=TOKEN, limits=PATIENT) as server:
        with socket.create_connection(server) as first, socket.create_connection(server) as second:
            for connection in (first, second):
                connection.sendall(UNFINISHED)
            until = time.monotonic() + GUARD
            # A third one that came before all of theirs is here would take room that one of them needs.
            while crowd.held < 2 * (2**20 - 1) and time.monotonic() < until:
                time.sleep(0.01)
            assert ask(server, request())[0] == 503
        assert answered(server, 200)


def test_bodies_that_are_cut_off_are_let_go(hasty_body: tuple[str, int]) -> None:
    """The room that two callers filled who are still there."""
    with socket.create_connection(hasty_body) as first, socket.create_connection(hasty_body) as second:
        for connection in (first, second):
            with suppress(OSError):  # it may be cut off before all is sent
                connection.sendall(UNFINISHED)
        assert answered(hasty_body, 200)


def answered(address: tuple[str, int], status: int) -> bool:
    """Whether a request is answered like this sooner or later."""
    until = time.monotonic() + GUARD
    while time.monotonic() < until:
        if ask(address, request())[0] == status:
            return True
    return False


def test_long_first_lines_are_refused(server: tuple[str, int]) -> None:
    for line in (b"GET /" + b"x" * 2**17 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\na: " + b"x" * 2**17 + b"\r\n\r\n"):
        with socket.create_connection(server, timeout=GUARD) as connection:
            connection.sendall(line[: 2**15])
            assert connection.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("head", [b"GET /%s HTTP/1.1\r\nhost: x", b"GET / HTTP/1.1\r\nhost: x\r\na: %s"])
def test_a_long_head_in_one_piece_is_refused_too(head: bytes) -> None:
    class Transport(asyncio.Transport):
        written, closed = b"", False

        def write(self, data: Any) -> None:
            self.written += data

        def close(self) -> None:
            self.closed = True

        def get_write_buffer_size(self) -> int:
            return 0

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

        def is_closing(self) -> bool:
            return self.closed

    async def answer_to(data: bytes) -> bytes:
        config = server_config({"sharpness": load_reward("sharpness")})
        config.load()
        transport = Transport()
        protocol = config.http_protocol_class(config=config, server_state=uvicorn.server.ServerState(), app_state={})
        protocol.connection_made(transport)
        protocol.data_received(data)
        for _ in range(20):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport.written

    rest = b"\r\nauthorization: Bearer none\r\n\r\n"
    assert asyncio.run(answer_to(head % (b"x" * 99_000) + rest)).startswith(b"HTTP/1.1 400")
    assert not asyncio.run(answer_to(head % (b"x" * 9_000) + rest)).startswith(b"HTTP/1.1 400")


def test_there_are_no_websockets(server: tuple[str, int]) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "x", "sec-websocket-version": "13"}
    connection = http.client.HTTPConnection(*server, timeout=GUARD)
    connection.request("GET", "/sharpness", headers=upgrade)
    assert connection.getresponse().status in (401, 405)
    connection.close()


# How fast.


def cut_off(address: tuple[str, int], first: bytes, drip: bytes, pause: float = 0.05) -> tuple[bool, bytes]:
    """Whether the server hangs up on somebody who sends a byte now and then, and what it said."""
    with socket.create_connection(address, timeout=GUARD) as connection:
        connection.settimeout(pause)
        until, said = time.monotonic() + GUARD, b""
        connection.sendall(first)
        while time.monotonic() < until:
            try:
                connection.sendall(drip)
                answer = connection.recv(4096)
                if not answer:
                    return True, said
                said += answer
            except TimeoutError:
                continue
            except OSError:
                return True, said
    return False, said


def test_a_head_that_comes_byte_by_byte_is_cut_off(hasty_head: tuple[str, int]) -> None:
    for first in (b"", b"POST /sharpness HTTP/1.1\r\nA: "):
        gone, _ = cut_off(hasty_head, first, b"G" if not first else b"x")
        assert gone


def test_a_connection_that_says_nothing_is_cut_off(hasty_head: tuple[str, int]) -> None:
    with socket.create_connection(hasty_head, timeout=GUARD) as connection:
        assert connection.recv(1) == b""


def test_the_next_head_on_a_connection_is_cut_off_too(hasty_head: tuple[str, int]) -> None:
    first = f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    until, said = time.monotonic() + GUARD, b""
    while not said and time.monotonic() < until:  # on a machine that stood still, the first one may be cut off itself
        gone, said = cut_off(hasty_head, first, b"G")
        assert gone
    assert said.startswith(b"HTTP/1.1 200")


def test_a_body_that_comes_byte_by_byte_is_cut_off(hasty_body: tuple[str, int]) -> None:
    head = f"POST /sharpness HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100000\r\n\r\n"
    gone, said = cut_off(hasty_body, head.encode(), b"x")
    assert gone and said.startswith(b"HTTP/1.1 408") and b"arrived too slowly" in said
    chunked = head.replace("Content-Length: 100000", "Transfer-Encoding: chunked")
    gone, said = cut_off(hasty_body, chunked.encode(), b"1\r\nx\r\n")
    assert gone and said.startswith(b"HTTP/1.1 408")


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop that does not wait: its clock jumps to whatever comes next."""

    def __init__(self) -> None:
        selector = selectors.SelectSelector()
        super().__init__(selector)
        self.seconds, select = 0.0, selector.select

        def hurry(timeout: float | None = None) -> Any:
            self.seconds += timeout or 0.0
            return select(0)

        selector.select = hurry  # type: ignore[method-assign]

    def time(self) -> float:
        return self.seconds


def received(limits: Limits, sizes: list[int], pause: float) -> tuple[float, int]:
    """Seconds, by the loop's clock, until a body is there or refused, and how much of it was taken by then."""
    body = Body(limits, Crowd(2**30))

    async def chunks() -> AsyncIterator[bytes]:
        for size in sizes:
            await asyncio.sleep(pause)
            yield bytes(size)

    loop = HurriedLoop()
    with closing(loop), suppress(TimeoutError):
        loop.run_until_complete(body.receive("", chunks()))
    return loop.seconds, body.size


def test_how_long_a_body_is_waited_for() -> None:
    """The grace, and what its bytes are worth at the slowest pace, within the timeout: by a clock of its own."""
    limits = Limits(timeout=100.0, grace=10.0, slowest=0.1)
    assert received(limits, [1] * 100, 0.6) == (pytest.approx(10.0, abs=1e-3), 16)  # its bytes are worth nothing
    assert received(limits, [], 0.0)[0] == pytest.approx(0.0, abs=1e-6)
    part = 2**20 // 5  # worth two seconds
    assert received(limits, [part] * 8, 2.9) == (pytest.approx(23.2, abs=1e-3), 8 * part)
    assert received(limits, [part] * 8, 3.9) == (pytest.approx(18.0, abs=1e-3), 4 * part)
    assert received(limits, [part] * 200, 1.1) == (pytest.approx(100.0, abs=1e-3), 90 * part)  # the timeout


def test_a_body_that_keeps_its_pace_is_waited_for() -> None:
    limits = Limits(megabytes=1.0, timeout=GUARD, grace=GUARD, slowest=0.1)
    body = request(4, 64, 64)
    head = f"POST /sharpness HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(limits=limits) as address, socket.create_connection(address, timeout=GUARD) as connection:
        connection.sendall(head.encode())
        for start in range(0, len(body), len(body) // 8 + 1):
            connection.sendall(body[start : start + len(body) // 8 + 1])
            time.sleep(0.12)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_an_answer_that_nobody_takes_is_not_kept_for_ever() -> None:
    limits = Limits(megabytes=64, timeout=3.0, grace=GUARD, slowest=64.0)
    images = torch.rand(4, 3, 512, 512)
    body = wire.encode_request(images, [""] * 4, True)
    head = f"POST /mean HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"

    class Mean:
        differentiable = True

        def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            return images.mean((1, 2, 3))

    with (
        running({"mean": Mean()}, limits=limits) as (server, address),
        socket.create_connection(address, timeout=GUARD) as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        taken, until = 0, time.monotonic() + GUARD
        with suppress(OSError):
            connection.sendall(head.encode() + body)
            while server.server_state.connections and time.monotonic() < until:
                time.sleep(0.05)
            assert not server.server_state.connections
            while part := connection.recv(2**20):
                taken += len(part)
    assert taken < len(body) // 2


def test_callers_have_a_number() -> None:
    config = server_config({"sharpness": load_reward("sharpness")})
    assert config.limit_concurrency == MOST_CALLERS and config.ws == "none" and not config.proxy_headers
    assert config.h11_max_incomplete_event_size == 2**14


def test_a_reward_that_wants_to_end_the_program_does_not() -> None:
    class Quitter:
        differentiable = False

        def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            raise SystemExit(3)

    with serving({"quitter": Quitter(), "sharpness": load_reward("sharpness")}, limits=PATIENT) as (host, port):
        address = f"http://{host}:{port}"
        with pytest.raises(RunError, match="tried to end the program"):
            load_reward(f"{address}/quitter")(torch.rand(1, 3, 4, 4), [""])
        assert load_reward(f"{address}/sharpness")(torch.rand(1, 3, 4, 4), [""]).shape == (1,)


# Frames of isolated workers.


def test_a_length_alone_takes_no_memory() -> None:
    """A worker takes messages of up to 64 GB, and eight bytes of garbage may announce as much."""
    import tracemalloc

    ours, theirs = socket.socketpair()
    theirs.sendall((2**36).to_bytes(8, "little") + b"x")
    theirs.close()
    tracemalloc.start()
    with pytest.raises(ConnectionResetError):
        receive_frame(ours, 2**36)
    assert tracemalloc.get_traced_memory()[1] < 4 * STEP
    tracemalloc.stop()
    ours.close()


def test_a_long_frame_comes_out_as_it_went_in() -> None:
    ours, theirs = socket.socketpair()
    data = torch.randint(0, 256, (2 * STEP + 5,), dtype=torch.uint8).numpy().tobytes()
    thread = threading.Thread(target=lambda: theirs.sendall(len(data).to_bytes(8, "little") + data))
    thread.start()
    assert receive_frame(ours, len(data)) == data
    thread.join()
    ours.close()
    theirs.close()


def test_addresses_say_where_it_is() -> None:
    with listen("127.0.0.1", 0, None) as listening:
        assert address_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"
