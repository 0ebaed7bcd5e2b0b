"""DeQA-Score (You et al. 2025, arXiv 2501.11561): mPLUG-Owl2 7B, by its own package in an environment of its own."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Licence, Origin


@hookimpl
def dipp_register_environments(register: Register) -> None:
    register(
        "deqa",
        "dipp_deqa.original:environment",
        summary="the original package DeQA-Score, for --reward deqa@isolated",
        origin=Origin(
            "zhiyuanyou/DeQA-Score-Mix3",
            Licence("mit", licences.MIT.link, note="as the authors' repository, zhiyuanyou/DeQA-Score, says"),
        ),
    )
