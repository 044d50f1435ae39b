"""Text to token ids and back, exactly: bytes, characters, trained byte-level BPE or unigram, or a loaded one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.durable import read_json, write_json, write_text
from danlu.base.errors import UserError
from danlu.base.settings import Chosen, Settings
from danlu.base.units import BytesSetting, CountSetting

if TYPE_CHECKING:
    from danlu.data.encoders import Tokenizer


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
    """Unigram language model over pieces (Kudo 2018), on bytes.

    The library's trainer goes through its words in a random order, so training twice gives slightly other scores;
    everything after it is exact. Keep the tokenizer.json and load it where two runs must be equal.
    """

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


KNOWN_ENDS = ("<|document_end|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>")
"""Tokens of loaded tokenizers that already mean the end of a document."""


def fit(settings: Settings, texts: Iterator[str], document_end: bool, folder: Path) -> dict[str, Any]:
    """Learn (or load) the tokenizer, write it to folder/tokenizer.json, return what `load` needs to have it again.

    `texts` gives the training split in pieces and is only read when there is something to learn.
    """
    card: dict[str, Any] = settings.model_dump(mode="json") | {"file": "tokenizer.json", "document_end": None}
    path = folder / "tokenizer.json"
    from danlu.data.encoders import trained_pieces

    if isinstance(settings, Bytes | Characters):
        content: dict[str, Any] = {"kind": settings.kind, "document_end": document_end}
        if isinstance(settings, Characters):
            content |= {"symbols": alphabet(texts), "unknown": settings.unseen == "replace"}
        write_json(path, content)
        return card
    import tokenizers

    if isinstance(settings, Bpe | Unigram):
        made = trained_pieces(settings.kind, settings.vocab_size - document_end, texts)
    elif isinstance(settings, Loaded):
        made = _read(Path(settings.path))
    else:
        raise UserError("data.tokenizer", f"has no tokenizer of class {type(settings).__name__}")
    if document_end:
        name = next((name for name in KNOWN_ENDS if made.token_to_id(name) is not None), KNOWN_ENDS[0])
        made.add_special_tokens([tokenizers.AddedToken(name, special=True)])
        card["document_end"] = made.token_to_id(name)
    write_text(path, made.to_str(pretty=False))
    return card


def load(card: DataCard | Mapping[str, Any], folder: Path) -> Tokenizer:
    """The tokenizer that a data folder was made with. `card`: the DataCard, or its `tokenizer` part."""
    from danlu.data.encoders import ByteTokenizer, CharacterTokenizer, PieceTokenizer

    described: Mapping[str, Any] = card.tokenizer if isinstance(card, DataCard) else card
    path = folder / described["file"]
    if described["kind"] not in ("bytes", "characters"):
        return PieceTokenizer(path, described["document_end"])
    content = read_json(path)
    if described["kind"] == "bytes":
        return ByteTokenizer(content["document_end"])
    return CharacterTokenizer(content["symbols"], content["unknown"], content["document_end"])


def alphabet(texts: Iterable[str]) -> str:
    """Every character that occurs, in code point order."""
    import numpy as np

    seen = np.zeros(0x110000, dtype=bool)
    for text in texts:
        seen[np.frombuffer(text.encode("utf-32-le"), dtype="<u4")] = True
    return "".join(map(chr, np.flatnonzero(seen).tolist()))


def _read(path: Path) -> Any:
    from danlu.data.encoders import PieceTokenizer

    if not path.is_file():
        raise UserError("data.tokenizer.path", "must be a tokenizer.json file", got=str(path), fix="check the path")
    return PieceTokenizer(path, None).inner
