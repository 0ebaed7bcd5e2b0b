"""Votes in a folder: an append-only SQLite file, and the images that were voted on.

Every image is written as the PNG of the 8-bit pixels that rewards are given, so that people and rewards look at the
same picture; its file is called by the digest of its pixels. A vote is on the disk when `vote` returns
(`synchronous=FULL`), and a row is never changed or removed: a vote that is taken back stays, with a row that says so.
Several processes may use one folder.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError, RunError
from ..utils.disk_errors import AGAIN, reason_of, way_on
from ..utils.images import save_image, to_uint8
from ..utils.messages import quoted
from ..utils.paths import user_path
from .pair import OUTCOMES, Candidate, Comparison, PictureFile

FILE, IMAGES = "votes.sqlite", "images"
APPLICATION = 0x64697070  # "dipp"
VERSION = 1
PATIENCE = 30.0
"""Seconds that a look or a write waits for other processes."""
VOTED, UNDONE = "voted", "undone"
LONGEST_NAME = 80
TOGETHER = 32
"""Images of one write: a disk takes a hundredth of a second for each."""

TABLES = {
    "images": """
        id INTEGER PRIMARY KEY, prompt TEXT NOT NULL, category TEXT NOT NULL, maker TEXT NOT NULL,
        digest TEXT NOT NULL, UNIQUE (prompt, maker, digest)""",
    "showings": """
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, voter TEXT NOT NULL,
        first INTEGER NOT NULL REFERENCES images, second INTEGER NOT NULL REFERENCES images,
        repeat_of TEXT NOT NULL, redo_of TEXT NOT NULL, at TEXT NOT NULL""",
    "votes": """
        number INTEGER PRIMARY KEY AUTOINCREMENT, showing TEXT NOT NULL UNIQUE REFERENCES showings (id),
        choice TEXT NOT NULL, at TEXT NOT NULL""",
    "undone": """
        number INTEGER PRIMARY KEY AUTOINCREMENT, showing TEXT NOT NULL UNIQUE REFERENCES votes (showing),
        at TEXT NOT NULL""",
}
STANDING = "SELECT * FROM votes WHERE showing NOT IN (SELECT showing FROM undone)"


@dataclass(frozen=True)
class NewCandidate:
    """An image to be voted on.

    Attributes:
        prompt: what it was made for.
        maker: what made it.
        pixels: in [0, 1].
        category: of its prompt.
    """

    prompt: str
    maker: str
    pixels: Float[Tensor, "3 height width"]
    category: str = ""


@dataclass(frozen=True)
class Showing:
    """Two images as they are shown to a voter.

    Attributes:
        id: random; says nothing of what is shown.
        voter: to whom.
        first: the left image.
        second: the right image.
        repeat_of: the voter's earlier showing of the same pair; empty where there was none.
    """

    id: str
    voter: str
    first: Candidate
    second: Candidate
    repeat_of: str = ""

    @property
    def pair(self) -> frozenset[int]:
        """The two images' ids, in no order."""
        return frozenset((self.first.id, self.second.id))


class VoteFile:
    """The votes in a folder; see `VoteFile.open`.

    Attributes:
        folder: that holds `votes.sqlite` and `images/`.
    """

    def __init__(self, folder: Path, file: sqlite3.Connection):
        self.folder = folder
        self._file = file
        self._lock = threading.RLock()
        self._known: dict[int, Candidate] = {}

    @classmethod
    def open(cls, place: str | Path, *, create: bool = False) -> VoteFile:
        """Open a folder of votes.

        Args:
            place: the folder, or the `votes.sqlite` in it.
            create: make it where there is none.

        Raises:
            RequestError: there is none, or it is something else.
        """
        folder = user_path(place)
        if folder.name == FILE and (folder.is_file() or not folder.exists()):
            folder = folder.parent
        path = folder / FILE
        if not create and not path.is_file():
            missing = f"There are no votes in {folder}" if folder.is_dir() else f"There is no folder {folder}"
            raise RequestError(
                f"{missing}. A page to vote on is started by: dipp vote {shlex.quote(str(folder))} --generators NAMES "
                "--prompts SET"
            )
        try:
            (folder / IMAGES).mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            _prepare(file, path)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise RequestError(f"{path} cannot be used as a file of votes: {reason.rstrip('.')}.") from error
        return cls(folder, file)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> VoteFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The file, for one thread at a time.

        Raises:
            RunError: it cannot be read or written.
        """
        with self._lock:
            try:
                yield self._file
            except (sqlite3.Error, OSError) as error:
                reason = reason_of(error) if isinstance(error, OSError) else str(error)
                then = way_on(error, AGAIN) if isinstance(error, OSError) else AGAIN
                path = self.folder / FILE
                raise RunError(
                    f"The votes in {path} cannot be read or written: {reason.rstrip('.')}. {then}"
                ) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The file in a transaction of its own: all of it is on the disk afterwards, or nothing.

        Raises:
            RunError: it cannot be written.
        """
        with self._reading() as file:
            file.execute("BEGIN IMMEDIATE")
            try:
                yield file
                file.execute("COMMIT")
            except BaseException:
                # Where a commit fails the transaction is still open, and votes would be said to be kept that are in it;
                # where a disk is full SQLite may have ended it by itself.
                if file.in_transaction:
                    file.execute("ROLLBACK")
                raise

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Everything that is shown and voted inside is on the disk afterwards, or nothing of it; nothing else may be
        written inside.

        Raises:
            RunError: the file cannot be written.
        """
        with self._writing():
            yield

    def add(self, images: Iterable[NewCandidate]) -> int:
        """Add images; one of the same prompt, maker and pixels is there once.

        Returns:
            How many were new.

        Raises:
            RunError: the disk is full or the file cannot be written.
        """
        images, new = iter(images), 0
        while some := list(islice(images, TOGETHER)):
            with self._writing() as file:
                for image in some:  # the file first: a row never names one that was not written
                    name = digest_of(image.pixels)
                    path = self.folder / IMAGES / f"{name}.png"
                    if not path.is_file():
                        save_image(image.pixels, path)
                    row = (image.prompt, image.category, image.maker, name)
                    told = "INSERT OR IGNORE INTO images (prompt, category, maker, digest) VALUES (?, ?, ?, ?)"
                    new += file.execute(told, row).rowcount
        return new

    def candidates(self) -> list[Candidate]:
        """All images, in the order in which they were added."""
        return list(self._candidates().values())

    def _candidates(self) -> Mapping[int, Candidate]:
        with self._reading() as file:
            last = next(reversed(self._known), 0)  # they were read in this order
            rows = file.execute(
                "SELECT id, prompt, category, maker, digest FROM images WHERE id > ? ORDER BY id", (last,)
            )
            for number, prompt, category, maker, digest in rows:
                picture = PictureFile(self.folder / IMAGES / f"{digest}.png")
                self._known[number] = Candidate(number, prompt, maker, picture, category)
            return self._known

    def show(self, voter: str, first: int, second: int, repeat_of: str = "") -> Showing:
        """Note that two images are shown to a voter.

        Args:
            voter: who looks.
            first: the left image's id.
            second: the right image's id.
            repeat_of: the earlier showing, where the voter is asked again.

        Raises:
            RequestError: an image is not there, they are one, or of two prompts; or the voter has no name.
        """
        voter = voter_name(voter)
        candidates = self._candidates()
        for number in (first, second):
            if number not in candidates:
                raise RequestError(f"There is no image number {number} among the {len(candidates)} in {self.folder}.")
        if first == second or candidates[first].prompt != candidates[second].prompt:
            raise RequestError("A vote is between two images of one prompt.")
        return self._show(voter, first, second, repeat_of)

    def _show(self, voter: str, first: int, second: int, repeat_of: str = "", redo_of: str = "") -> Showing:
        name = secrets.token_hex(8)
        told = "INSERT INTO showings (id, voter, first, second, repeat_of, redo_of, at) VALUES (?, ?, ?, ?, ?, ?, ?)"
        with self._reading() as file:
            file.execute(told, (name, voter, first, second, repeat_of, redo_of, _now()))
        return Showing(name, voter, self._known[first], self._known[second], repeat_of)

    def showing(self, name: str) -> Showing | None:
        """A showing by its id; None where there is none."""
        candidates = self._candidates()
        with self._reading() as file:
            row = file.execute(
                "SELECT id, voter, first, second, repeat_of FROM showings WHERE id = ?", (name,)
            ).fetchone()
        return None if row is None else Showing(row[0], row[1], candidates[row[2]], candidates[row[3]], row[4])

    def open_showings(self, voter: str) -> list[Showing]:
        """What a voter was shown and has not voted on: a pair that was taken back first, then in their order."""
        candidates = self._candidates()
        asked = (
            "SELECT id, voter, first, second, repeat_of FROM showings WHERE voter = ? AND id NOT IN "
            "(SELECT showing FROM votes) ORDER BY redo_of = '', CASE redo_of WHEN '' THEN number ELSE -number END"
        )
        with self._reading() as file:
            rows = file.execute(asked, (voter,)).fetchall()
        return [Showing(row[0], row[1], candidates[row[2]], candidates[row[3]], row[4]) for row in rows]

    def open_showing(self, voter: str) -> Showing | None:
        """The first of `open_showings`: what a page that is loaded again shows; None where all was voted on."""
        return next(iter(self.open_showings(voter)), None)

    def vote(self, showing: str, choice: str) -> bool:
        """Keep a vote; it is on the disk when this returns.

        Args:
            showing: its id.
            choice: `first`, `second` or `equal`.

        Returns:
            Whether it counts: a showing is voted on once, and what is sent again changes nothing.

        Raises:
            RequestError: there is no such showing or choice.
        """
        if choice not in OUTCOMES:
            raise RequestError(f"A vote is first, second or equal, not {quoted(choice)}.")
        if self.showing(showing) is None:
            raise RequestError(f"There is no question {quoted(showing)} in {self.folder}.")
        told = "INSERT OR IGNORE INTO votes (showing, choice, at) VALUES (?, ?, ?)"
        with self._reading() as file:
            return file.execute(told, (showing, choice, _now())).rowcount == 1

    def undo(self, voter: str, showing: str = "") -> Showing | None:
        """Take a voter's last vote back, and ask about its pair again, under a new showing.

        Args:
            voter: whose.
            showing: the one that is meant; where it is not the last that stands, nothing is taken back, so that a
                request that is sent twice takes one vote back.

        Returns:
            The new showing; None where nothing was taken back.
        """
        asked = (
            "SELECT id, first, second, repeat_of FROM showings WHERE voter = ? AND id IN "
            f"(SELECT showing FROM ({STANDING})) ORDER BY (SELECT number FROM votes WHERE showing = id) DESC LIMIT 1"
        )
        self._candidates()
        with self._writing() as file:
            row = file.execute(asked, (voter,)).fetchone()
            if row is None or showing not in ("", row[0]):
                return None
            file.execute("INSERT INTO undone (showing, at) VALUES (?, ?)", (row[0], _now()))
            return self._show(voter, row[1], row[2], row[3], redo_of=row[0])

    def comparisons(self) -> list[Comparison]:
        """All votes that stand, in the order in which they were given."""
        candidates = self._candidates()
        asked = (
            f"SELECT first, second, choice, voter, repeat_of FROM ({STANDING}) AS given JOIN showings ON showing = id "
            "ORDER BY given.number"
        )
        with self._reading() as file:
            rows = file.execute(asked).fetchall()
        return [
            Comparison(candidates[first], candidates[second], OUTCOMES[choice], voter, bool(repeat))
            for first, second, choice, voter, repeat in rows
        ]

    def votes_of(self, voter: str) -> list[tuple[Showing, str]]:
        """A voter's showings that were voted on, with the choices that stand, in order."""
        candidates = self._candidates()
        asked = (
            f"SELECT id, first, second, repeat_of, choice FROM ({STANDING}) AS given JOIN showings ON showing = id "
            "WHERE voter = ? ORDER BY given.number"
        )
        with self._reading() as file:
            rows = file.execute(asked, (voter,)).fetchall()
        return [(Showing(row[0], voter, candidates[row[1]], candidates[row[2]], row[3]), row[4]) for row in rows]


def digest_of(pixels: Float[Tensor, "3 height width"]) -> str:
    """What an image's file is called: a digest of its 8-bit pixels.

    Args:
        pixels: in [0, 1].
    """
    content = str(tuple(pixels.shape)).encode() + to_uint8(pixels[None]).tobytes()
    return hashlib.sha256(content).hexdigest()[:32]


def voter_name(name: str) -> str:
    """A voter's name as it is kept.

    Raises:
        RequestError: it is empty, too long, or has what no name has.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise RequestError(f"A voter's name has 1 to {LONGEST_NAME} printable characters; got {quoted(name)}.")
    return name


def _prepare(file: sqlite3.Connection, path: Path) -> None:
    """Make the tables where there are none, and see to it that what is written lasts and is never changed.

    Raises:
        RequestError: the file is another program's, or of a later version.
        sqlite3.Error: it is none of SQLite, or cannot be written.
    """
    file.execute("PRAGMA synchronous=FULL")
    file.execute("PRAGMA foreign_keys=ON")
    if _kind(file) == (APPLICATION, VERSION):
        return  # whoever only reads writes nothing, so that votes may lie where nothing can be written
    # One file and no others beside it, so that a copy of it is whole; and on the disk before a vote is confirmed.
    file.execute("PRAGMA journal_mode=DELETE")
    file.execute("BEGIN IMMEDIATE")
    application, version = _kind(file)
    (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version) != (APPLICATION, VERSION) and tables:
        file.execute("ROLLBACK")
        if application == APPLICATION:
            raise RequestError(f"{path} holds votes in a form that this version of the toolkit does not know.")
        raise RequestError(f"{path} is an SQLite file of something else than votes; name another folder.")
    for table, columns in TABLES.items():
        file.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        for change in ("UPDATE", "DELETE"):
            file.execute(
                f"CREATE TRIGGER IF NOT EXISTS no_{change}_of_{table} BEFORE {change} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'votes are only added'); END"
            )
    file.execute(f"PRAGMA application_id={APPLICATION}")
    file.execute(f"PRAGMA user_version={VERSION}")
    file.execute("COMMIT")


def _kind(file: sqlite3.Connection) -> tuple[int, int]:
    """Whose file it is, and of which version; zeros of a new one."""
    (application,) = file.execute("PRAGMA application_id").fetchone()
    (version,) = file.execute("PRAGMA user_version").fetchone()
    return application, version


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
