"""What `dipp export` does: open the run, write the files, read them back, and say what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.paths import user_path

from ..terminal.output import print_json, print_line, quiet_stdout

if TYPE_CHECKING:
    from dipp_toolkit.experiments.exports.result import Export

FORMS = ("lora", "single-file", "comfyui")
PRECISIONS = ("fp32", "fp16", "bf16")
FILE = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The words of the command line; None for what was not given."""

    run: str
    to: str
    out: Path | None
    dtype: str
    rank: int | None
    base: str | None
    check: bool

    @property
    def name(self) -> str:
        """What the files are called: the run's folder."""
        return user_path(self.run).resolve().name or "generator"

    @property
    def place(self) -> Path:
        """Where the files go."""
        if self.out is not None:
            return user_path(self.out)
        return Path(f"{self.name}{FILE}" if self.to == "single-file" else f"{self.name}-{self.to}")

    def refuse(self) -> None:
        """Refuse what cannot be done, before anything is loaded.

        Raises:
            RequestError: as a sentence.
        """
        if self.to not in FORMS:
            raise RequestError(f"--to {self.to} is unknown; expected {', '.join(FORMS[:-1])} or {FORMS[-1]}.")
        if self.dtype not in PRECISIONS:
            raise RequestError(f"--dtype {self.dtype} is unknown; expected {', '.join(PRECISIONS)}.")
        if self.rank is not None and self.to != "lora":
            raise RequestError("--rank is for --to lora.")
        if self.rank is not None and self.rank < 1:
            raise RequestError(f"--rank is {self.rank}; expected at least 1.")
        if self.to == "single-file" and self.place.suffix != FILE:
            raise RequestError(f"--out {self.place} is not a {FILE} file, which --to single-file writes.")
        if self.place.is_symlink() or (self.place.exists() and (not self.place.is_dir() or any(self.place.iterdir()))):
            raise RequestError(f"{self.place} exists; name another place with --out, or remove it.")
        if self.to == "single-file" and self.place.is_dir():
            raise RequestError(f"{self.place} is a folder; name a new {FILE} file with --out.")


def write(request: ExportRequest, as_json: bool) -> int:
    """Write the files, and say where they are and how they compare.

    Returns:
        The exit code: 1 where the round trip makes another image than it may.

    Raises:
        RequestError: the run cannot be exported in this form.
    """
    with quiet_stdout():
        done = _exported(request)
    if as_json:
        print_json({"to": request.to, **done.as_dict()})
    else:
        for path, what in done.files.items():
            print_line(f"{path}  {what}")
        for note in done.notes:
            print_line(note)
        if done.check is not None:
            print_line(done.check.text)
    return int(done.check is not None and done.check.failed)


def _exported(request: ExportRequest) -> Export:
    from dipp_toolkit.experiments.exports.comfyui import export_comfyui
    from dipp_toolkit.experiments.exports.lora import export_lora
    from dipp_toolkit.experiments.exports.single_file import export_single_file
    from dipp_toolkit.experiments.exports.subject import ExportSubject
    from dipp_toolkit.utils.precision import DTYPES

    subject, dtype = ExportSubject.open(request.run, request.base), DTYPES[request.dtype]
    place = request.place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"Cannot write {place}: {error.strerror or error}.") from error
    if request.to == "lora":
        return export_lora(subject, place, dtype, rank=request.rank, check=request.check)
    if request.to == "single-file":
        return export_single_file(subject, place, dtype, check=request.check)
    return export_comfyui(subject, place, dtype, name=request.name, check=request.check)
