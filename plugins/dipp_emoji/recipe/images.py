"""Stage `images`: the sprite sheet, from the PNGs of the npm package `emoji-datasource-google`."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from PIL import Image

from ..captions import emoji
from ..compose import SHEET_COLUMNS, SIZE

PACKAGE = "emoji-datasource-google@16.0.0"


def find_package(work: Path) -> Path:
    """The package's tarball in `work`, fetched with `npm pack` where it is missing."""
    name = PACKAGE.replace("@", "-") + ".tgz"
    if not (work / name).exists():
        subprocess.run(["npm", "pack", PACKAGE], cwd=work, check=True, capture_output=True)
    return work / name


def build_sheet(package: Path, target: Path) -> None:
    """Write the sprite sheet: one 64x64 RGBA tile an emoji, 12 to a row, in the order of `names.tsv`."""
    rows = -(-len(emoji()) // SHEET_COLUMNS)
    sheet = Image.new("RGBA", (SHEET_COLUMNS * SIZE, rows * SIZE))
    with tarfile.open(package) as archive:
        for index, entry in enumerate(emoji()):
            member = archive.extractfile(f"package/img/google/64/{entry.image}")
            if member is None:
                raise FileNotFoundError(f"{package} holds no package/img/google/64/{entry.image}.")
            tile = Image.open(io.BytesIO(member.read())).convert("RGBA")
            sheet.paste(tile, (index % SHEET_COLUMNS * SIZE, index // SHEET_COLUMNS * SIZE))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, optimize=True)
