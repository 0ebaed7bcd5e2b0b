"""Captions as PixArt-alpha's stock pipeline reads them by default: cleaned, as in DeepFloyd IF.

URLs, markup, numbers of six digits, hashtags, names of files and much more is taken out, and brackets become spaces.
The stock pipeline does it with beautifulsoup4 and ftfy; where they are missing it warns and leaves captions as they
are. Here that is an error: a network's input does not depend on what happens to be installed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.packages import how_to_install, missing_of

PLAIN = re.compile(r"[a-z]+( [a-z]+)*|")
REMOVED = re.compile(r"shipping|download|click|png|jpe?g|bmp|webp|eps|pdf|apk")
"""What is taken out of plain words as well, or may be."""


def cleaned(pipeline: Any, captions: Sequence[str]) -> list[str]:
    """The captions in lower case, cleaned as the stock pipeline's own call cleans them.

    Args:
        pipeline: a `PixArtAlphaPipeline`.
        captions: any texts.

    Raises:
        RequestError: one needs cleaning, and a package for it is missing.
    """
    lower = [caption.lower().strip() for caption in captions]
    if all(map(is_plain, lower)):
        return lower
    missing = missing_of(["bs4", "ftfy"])
    if missing:
        caption = next(caption for caption in captions if not is_plain(caption.lower().strip()))
        raise RequestError(
            f"PixArt's pipelines clean their captions, and for '{caption[:60]}' that takes {' and '.join(missing)}, "
            f"which is missing. Install it with: {how_to_install(missing)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a caption that looks like a file or an address
        texts: list[str] = pipeline._text_preprocessing(list(captions), clean_caption=True)
    return texts


def is_plain(caption: str) -> bool:
    """Whether a caption in lower case is words alone, of which cleaning takes nothing."""
    return PLAIN.fullmatch(caption) is not None and REMOVED.search(caption) is None
