"""What one should know of the emoji world's rewards; a file of its own, as recorded studies digest their code."""

from __future__ import annotations

WORLD = "anything but this world: captioned emoji on plain backgrounds, which it sees at 64 pixels"
RECIPE = "trained by this project's recipe, plugins/dipp_emoji/recipe"


class EmojiWorld:
    """What they share."""

    licence = "Apache-2.0; NOTICE names the artwork that it was trained on"
    source = RECIPE
    differentiable = True
    gradient = "through the image's network"
    reads_prompts = True


class Clip(EmojiWorld):
    """`emoji-clip`."""

    range = "100 times a cosine, in [-100, 100]"
    blind_to = f"sharpness, of which it was trained to make little; {WORLD}"


class Preference(EmojiWorld):
    """`emoji-preference`."""

    range = "log-odds, mostly in [-5, 5]"
    blind_to = f"damage of other kinds than it was trained to see; {WORLD}"


class Judge(EmojiWorld):
    """`emoji-judge`."""

    range = "log-odds, as of emoji-preference"
    blind_to = f"damage of other kinds than it was trained to see; {WORLD}"
    gradient = "through the image's network, but nothing of this project trains on it"
