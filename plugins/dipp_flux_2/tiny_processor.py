"""A processor of Mistral 3's published class with a vocabulary made here: nothing is downloaded."""

from __future__ import annotations

from typing import Any

from dipp_toolkit.models.tiny_tokenizers import WORDS, byte_symbols, merged_model

MISTRAL_TOKENS = 131_072
UNKNOWN, START, END, ASK, ASKED = "<unk>", "<s>", "</s>", "[INST]", "[/INST]"
IMAGE, PAD, IMAGE_ROW_END, IMAGE_END = "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"
SYSTEM, SYSTEM_END = "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"
SPECIAL = (UNKNOWN, START, END, ASK, ASKED, IMAGE, PAD, IMAGE_ROW_END, IMAGE_END, SYSTEM, SYSTEM_END)
"""The first tokens of the vocabulary."""

CHAT_TEMPLATE = f"""\
{{{{- bos_token -}}}}
{{%- for message in messages -%}}
{{%- if message.role == "system" -%}}
{SYSTEM}{{{{ message.content[0].text }}}}{SYSTEM_END}
{{%- else -%}}
{ASK}{{{{ message.content[0].text }}}}{ASKED}
{{%- endif -%}}
{{%- endfor -%}}
"""
"""What Mistral's own makes of messages of one text each, from the system and a user."""


def tiny_mistral_processor(max_tokens: int = MISTRAL_TOKENS) -> Any:
    """A `PixtralProcessor` whose tokenizer spells bytes; a word of `WORDS` is one token behind a space.

    It puts `<s>` before a text and pads on the left, as published.

    Args:
        max_tokens: the tokenizer's `model_max_length`.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
    from transformers import PixtralImageProcessor, PixtralProcessor, PreTrainedTokenizerFast

    space = "\u0120"  # the symbol of the byte 32
    tokenizer = Tokenizer(merged_model([*SPECIAL, *byte_symbols()], [space + word for word in WORDS]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, SPECIAL.index(START))]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_tokens, padding_side="left",
        unk_token=UNKNOWN, bos_token=START, eos_token=END, pad_token=PAD,
    )  # fmt: skip
    return PixtralProcessor(
        PixtralImageProcessor(), fast, patch_size=14, spatial_merge_size=2, chat_template=CHAT_TEMPLATE
    )
