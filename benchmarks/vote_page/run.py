"""Two people vote in two browsers at once while the server is killed: is every vote kept, once, the right way round?

    python benchmarks/vote_page/run.py [--votes 60] [--shots FOLDER]

Needs Chromium with its driver, and selenium (`pip install selenium`); says so and ends where one is missing.

`dipp vote` makes images of two generators of the emoji worlds and serves the page. Ann begins by her name and votes by
keys, by clicks on images and by buttons; Bob has a link with his name and a browser of his own. In between Ann loads
the page again, takes a vote back, and kills the server (SIGKILL) at three moments: between two votes, in the middle of
one, and with a vote waiting in a browser that is then closed; each time the server is started again at the same
address. Afterwards the file of votes is held against what was pressed: how many votes, in which order, about which
images, with the left one first. Exits with 1 where anything differs. With --shots, screenshots at 1280 and 390 pixels
are written there. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from benchmarks._shared.measuring import ran_on, write_results
from dipp_toolkit.experiments.voting.server import image_name
from dipp_toolkit.preferences.vote_file import VoteFile

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
SOURCES = ("--generators", "emoji-onestep,emoji-unet-onestep", "--prompts", "emoji-heldout", "--count", "24",
           "--per-prompt", "2")  # fmt: skip
BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)
PATIENCE = 120.0
SIZES = {1280: 800, 390: 844}
KEYS = {"first": "\ue012", "second": "\ue014", "equal": "\ue015"}
"""Selenium's arrows: left, right, down."""


def missing() -> str:
    """A sentence where something is not there; empty otherwise."""
    if not any(map(shutil.which, BROWSERS)) or not any(map(shutil.which, DRIVERS)):
        return "Chromium and chromedriver are needed and not both on the PATH."
    try:
        import selenium  # noqa: F401 -- whether it is there
    except ImportError:
        return "selenium is needed: pip install selenium"
    return ""


@dataclass
class Server:
    """`dipp vote` as a process, always at the same port."""

    folder: Path
    port: int
    goal: int
    process: subprocess.Popen[str] | None = None
    kills: int = 0

    def start(self, *words: str) -> str:
        """Start it, and wait until it says where."""
        command = [sys.executable, "-m", "dipp_cli", "vote", str(self.folder), *words, "--port", str(self.port)]
        paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "cli"), str(CHECKOUT / "plugins")])
        self.process = subprocess.Popen(
            [*command, "--json", "--quiet", "--goal", str(self.goal)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline())["url"])

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@contextmanager
def browser(profile: Path, width: int = 1280) -> Iterator[Any]:
    """Headless Chromium with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, BROWSERS)))
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which(DRIVERS[0])))
    try:
        resize(driver, width)
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, width: int) -> None:
    """The window's inner size; narrow ones are a telephone's."""
    size = {"width": width, "height": SIZES[width], "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@dataclass
class Person:
    """Somebody in front of a browser.

    Attributes:
        name: of the voter.
        driver: the browser.
        pressed: prompt, address of the left image, of the right one, and the choice, of every vote that should stand.
    """

    name: str
    driver: Any
    pressed: list[tuple[str, str, str, str]] = field(default_factory=list)

    def until(self, what: str, true: Callable[[], Any]) -> Any:
        """Wait for something."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = true()
            if found:
                return found
            time.sleep(0.02)
        raise TimeoutError(f"{self.name} waited in vain for {what}; the page says: {self.text('body')}")

    def element(self, name: str) -> Any:
        return (
            self.driver.find_element("id", name) if name != "body" else self.driver.find_element("css selector", name)
        )

    def text(self, name: str) -> str:
        return str(self.element(name).text)

    @property
    def counted(self) -> int:
        """Votes, as the page says."""
        return int((self.text("count") or "-1").split()[0])

    def asked(self) -> tuple[str, str, str]:
        """The question, once both images are to be seen."""
        script = (
            "const ask = document.getElementById('ask'), images = [...ask.querySelectorAll('img')];"
            "if (ask.hidden || ask.classList.contains('waiting') || busy) return null;"
            "if (!images.every((one) => one.complete && one.naturalWidth)) return null;"
            "return [document.getElementById('prompt').textContent, ...images.map((one) => one.getAttribute('src'))];"
        )
        prompt, left, right = self.until("two images", lambda: self.driver.execute_script(script))
        return prompt, left, right

    def press(self, choice: str, way: int) -> None:
        """Vote by an arrow, by a click on an image, or by a button."""
        if way == 1 and choice != "equal":
            self.element({"first": "left", "second": "right"}[choice]).click()
        elif way == 2:
            self.driver.find_element("css selector", f"#choices [data-choice={choice}]").click()
        else:
            self.driver.switch_to.active_element.send_keys(" " if (choice, way) == ("equal", 1) else KEYS[choice])

    def vote(self, choice: str, way: int, *, between: Callable[[], None] | None = None) -> None:
        """Vote, have something happen before the server answers, and wait for the next question."""
        question = self.asked()
        count = self.counted
        self.pressed.append((*question, choice))
        self.press(choice, way)
        if between is not None:
            between()
        self.until(f"vote {count + 1}", lambda: self.counted == count + 1)


def choice_of(number: int) -> str:
    return ("first", "second", "first", "equal", "second")[number % 5]


def ann_votes(ann: Person, server: Server, address: str, votes: int, profile: Path, shots: Path | None) -> list[str]:
    """All that Ann does; what was noted on the way."""
    noted = []
    ann.driver.get(address)
    field_of_name = ann.element("voter")
    ann.until("the form", field_of_name.is_displayed)
    snap(ann.driver, shots, "name")
    field_of_name.clear()
    field_of_name.send_keys(ann.name + "\ue007")
    for number in range(votes):
        choice, way = choice_of(number), number % 3
        if number == votes // 6:
            before = ann.asked()
            ann.driver.refresh()
            noted.append(
                f"loaded again after {number} votes: the pair {'came' if ann.asked() == before else 'DID NOT COME'}"
            )
            snap(ann.driver, shots, "ask")
        if number == votes // 3:
            ann.asked()
            server.kill()
            ann.vote(choice, way, between=lambda: (seen_lost(ann, noted, shots), server.start()))  # type: ignore[func-returns-value]
            noted.append(
                f"killed between votes {number} and {number + 1}: the vote pressed meanwhile was sent afterwards"
            )
            continue
        if number == votes // 2:
            ann.vote(choice, way, between=lambda: (server.kill(), server.start()))  # type: ignore[func-returns-value]
            noted.append(f"killed while vote {number + 1} was on its way")
            continue
        if number == 2 * votes // 3:
            wrong = ann.asked()
            ann.vote(choice, way)
            ann.pressed.pop()
            count = ann.counted
            ann.driver.switch_to.active_element.send_keys("u")
            ann.until("the undo", lambda count=count: ann.counted == count - 1)
            noted.append(f"took vote {count} back: its pair {'came' if ann.asked() == wrong else 'DID NOT COME'} again")
        ann.vote(choice, way)
    return noted


def seen_lost(person: Person, noted: list[str], shots: Path | None) -> None:
    said = person.until("the banner", lambda: person.text("banner"))
    noted.append(f"the page said: {said}")
    snap(person.driver, shots, "lost")


def closes_with_a_vote(ann: Person, server: Server, address: str, profile: Path, noted: list[str]) -> None:
    """The server dies, a vote is pressed, the browser is closed; a new one sends the vote."""
    question = ann.asked()
    count = ann.counted
    server.kill()
    ann.pressed.append((*question, "first"))
    ann.press("first", 0)
    ann.until("the banner", lambda: ann.text("banner"))
    ann.driver.quit()
    server.start()
    with browser(profile) as driver:
        ann.driver = driver
        driver.get(f"{address}?voter={ann.name}")
        ann.until("the vote that waited", lambda: ann.counted > count)
        noted.append(f"closed with a vote waiting: {ann.counted - count} vote was sent when the page was opened again")


def snap(driver: Any, shots: Path | None, name: str) -> None:
    """Screenshots at both sizes."""
    if shots is None:
        return
    for width in SIZES:
        resize(driver, width)
        time.sleep(0.3)
        driver.save_screenshot(str(shots / f"{name}-{width}.png"))
    resize(driver, next(iter(SIZES)))


def bob_votes(bob: Person, address: str, votes: int) -> None:
    bob.driver.get(f"{address}?voter={bob.name}")
    for number in range(votes):
        bob.vote(choice_of(number + 2), (number + 1) % 3)


def compare(person: Person, folder: Path, token: str) -> list[str]:
    """What differs between the votes that were pressed and those that are kept."""
    with VoteFile.open(folder) as votes:
        kept = [one for one in votes.comparisons() if one.voter == person.name]
    outcomes = {"first": 1.0, "equal": 0.5, "second": 0.0}
    differ = (
        []
        if len(kept) == len(person.pressed)
        else [f"{person.name} pressed {len(person.pressed)} and {len(kept)} are kept"]
    )
    for number, (one, (prompt, left, right, choice)) in enumerate(zip(kept, person.pressed, strict=False), 1):
        shown = [f"image/{image_name(token, image.id)}" for image in (one.first, one.second)]
        if (one.first.prompt, *shown, one.outcome) != (prompt, left, right, outcomes[choice]):
            differ.append(f"vote {number} of {person.name} is not what was pressed")
    return differ


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def drive(votes: int, shots: Path | None, scratch: Path) -> dict[str, Any]:
    """All of it; what was counted."""
    folder = scratch / "votes"
    server = Server(folder, free_port(), votes)
    address = server.start(*SOURCES)
    token = address.rstrip("/").rpartition("/")[2]
    noted: list[str] = []
    failures: list[BaseException] = []
    try:
        with browser(scratch / "ann") as first, browser(scratch / "bob") as second:
            ann, bob = Person("Ann", first), Person("Bob", second)

            def guarded() -> None:
                try:
                    bob_votes(bob, address, votes)
                except BaseException as error:  # noqa: BLE001 -- it is raised in the main thread
                    failures.append(error)

            beside = threading.Thread(target=guarded)
            beside.start()
            noted += ann_votes(ann, server, address, votes - 1, scratch / "ann", shots)
            makers = [word for word in ("emoji-onestep", "emoji-unet-onestep") if word in first.page_source]
            beside.join()
            if failures:
                raise failures[0]
            closes_with_a_vote(ann, server, address, scratch / "ann", noted)
            with browser(scratch / "ann") as again:
                again.get(f"{address}?voter=Ann")
                Person("Ann", again).until("the end", lambda: again.find_element("id", "end").is_displayed())
                snap(again, shots, "end")
            console = [line["message"] for line in second.get_log("browser") if "ERR_CONNECTION" not in line["message"]]
        code = server.stop()
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
    differ = compare(ann, folder, token) + compare(bob, folder, token)
    with VoteFile.open(folder) as kept:
        comparisons = kept.comparisons()
    return {
        "pressed": {person.name: len(person.pressed) for person in (ann, bob)},
        "kept": {person.name: sum(one.voter == person.name for one in comparisons) for person in (ann, bob)},
        "repeats": sum(one.repeat for one in comparisons),
        "left first": sum(one.first.id < one.second.id for one in comparisons),
        "kills": server.kills,
        "noted": noted,
        "differ": differ,
        "makers on the page": makers,
        "console": console,
        "exit code after Ctrl-C": code,
    }


def failed(result: dict[str, Any]) -> bool:
    shouted = any("DID NOT" in line for line in result["noted"])
    return (
        bool(result["differ"] or result["makers on the page"] or result["console"] or shouted)
        or result["exit code after Ctrl-C"] != 0
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--votes", type=int, default=60)
    parser.add_argument("--shots", type=Path)
    given = parser.parse_args()
    if missing():
        print(missing())
        return 0
    if given.shots is not None:
        given.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        result = drive(given.votes, given.shots, Path(scratch))
    lines = [
        f"pressed: {result['pressed']}; kept: {result['kept']}; {result['repeats']} of them repeats",
        f"{result['kills']} kills; {len(result['differ'])} votes differ from what was pressed",
        f"exit code after Ctrl-C: {result['exit code after Ctrl-C']}",
        f"lines in the browser's console: {len(result['console'])}",
        *result["noted"],
        *result["differ"],
        *result["console"],
    ]
    print("\n".join(lines))
    page = (
        "# Votes in two browsers\n\n" + "".join(f"- {line}\n" for line in lines) + f"\n{ran_on(torch.device('cpu'))}\n"
    )
    write_results(HERE, result, page)
    return int(failed(result))


if __name__ == "__main__":
    sys.exit(main())
