"""Text to token ids and back, exactly: bytes, characters, trained byte-level BPE or unigram, or a loaded one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from danlu.base.settings import Chosen, Settings
from danlu.base.units import BytesSetting, CountSetting


class Bytes(Settings):
    """One token per UTF-8 byte: nothing to train, nothing unknown; sequences are long."""

    kind: Literal["bytes"] = "bytes"
    """256 byte tokens."""


class Characters(Settings):
    """One token per character that the training text holds, in code point order."""

    kind: Literal["characters"] = "characters"
    """The characters of the training text."""
    unseen: Literal["refuse", "replace"] = "refuse"
    """A character outside the training text: stop and say how many there are, or replace it by one unknown token."""


class Trained(Settings):
    """Shared by bpe and unigram: byte-level, so that any text round-trips exactly; trained on the train split only."""

    vocab_size: Annotated[CountSetting, Field(ge=257)] = 8192
    """Tokens wanted; a small text may give fewer."""
    train_bytes: BytesSetting = 50_000_000
    """Most bytes of training text to learn the vocabulary from, spread evenly over the split."""


class Bpe(Trained):
    """Byte-pair encoding (Sennrich et al. 2016) over bytes, words cut as in GPT-2 (Radford et al. 2019)."""

    kind: Literal["bpe"] = "bpe"
    """Byte-pair encoding, trained."""


class Unigram(Trained):
    """Unigram language model over pieces (Kudo 2018), on bytes."""

    kind: Literal["unigram"] = "unigram"
    """Unigram pieces, trained."""


class Loaded(Settings):
    """A tokenizer.json made before, by danlu or by Hugging Face tokenizers."""

    kind: Literal["loaded"] = "loaded"
    """From a tokenizer.json."""
    path: str
    """The tokenizer.json file."""


TOKENIZERS: dict[str, type[Settings]] = {
    "bytes": Bytes,
    "characters": Characters,
    "bpe": Bpe,
    "unigram": Unigram,
    "loaded": Loaded,
}
"""The tokenizers a recipe can name."""
TokenizerSetting = Annotated[Settings, Chosen(TOKENIZERS, default="bpe")]
