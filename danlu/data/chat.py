"""Conversations: what the assistant says is learned, what others say is only read. An audit shows which tokens are which.

A turn is written as `<|role|>`, a newline, and its text. After an assistant's turn stands the document-end token, which
is supervised too: a model must learn to stop. A sample is one conversation, at most `context` tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, write_bytes, write_json
from danlu.base.errors import UserError
from danlu.data import tokenizer as tokenizers
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.tokenizer import Bpe, Loaded, TokenizerSetting

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Other names of the roles."""
KNOWN_ROLES = ("system", "user", "assistant", "tool")
N_EXAMPLES, N_AUDITED = 5, 3
Share = Annotated[float, Field(ge=0, lt=1)]


class Turn(NamedTuple):
    """Who said what."""

    role: str
    text: str


class Encoded(NamedTuple):
    """Tokens (T,) of a conversation, and which of them the assistant says."""

    tokens: NDArray[np.int64]
    said: NDArray[np.bool_]


class Chat(SampleSource):
    """Conversations in JSONL: {"messages": [{"role", "content"}]}, ShareGPT's or Alpaca's form; the assistant learns."""

    kind: Literal["chat"] = "chat"
    """Conversations."""
    path: str
    """A .jsonl file, a folder or a glob of them."""
    context: Annotated[int, Field(ge=8, le=1_048_576)] = 512
    """Most tokens of a conversation; model.context must be as large."""
    too_long: Literal["cut", "reject"] = "cut"
    """A longer conversation: keep its first tokens, or leave it out. Either is counted."""
    tokenizer: TokenizerSetting = Bpe()
    """Trained on the training conversations, or loaded: a model that goes on from another (train.start_from) needs its."""
    validation: Share = 0.1
    """Share of the conversations, by a hash of their text: equal ones are never on both sides."""
    test: Share = 0.0
    """The same for a test split."""

    def files(self) -> list[Path]:
        """The source files."""
        return source_files(self.path, (".jsonl",))

    def expected(self) -> dict[str, Any]:
        """The vocabulary's size as asked for."""
        size = getattr(self.tokenizer, "vocab_size", 257)
        if isinstance(self.tokenizer, Loaded):
            size = len(json.loads(Path(self.tokenizer.path).read_text(encoding="utf-8"))["model"]["vocab"])
        return {"vocab_size": size, "context": self.context}

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, split, fit the tokenizer on train, encode, audit."""
        reading = Reading()
        kept = [(name, turns) for path in self.files() for name, turns in conversations(path, reading)]
        labels = [self.side(turns, seed) for _, turns in kept]
        if "train" not in labels:
            got = ", ".join(f"{n} {why}" for why, n in reading.reasons.most_common(4)) or "none"
            raise UserError("data.path", "must give at least one training conversation", got=got)
        texts = (
            turn.text + "\n" for (_, turns), side in zip(kept, labels, strict=True) if side == "train" for turn in turns
        )
        described = tokenizers.fit(self.tokenizer, texts, True, folder)
        tokenizer = tokenizers.load(described, folder)
        splits: dict[str, list[tuple[str, Encoded]]] = {"train": [], "validation": [], "test": []}
        n_cut = 0
        for number, ((name, turns), side) in enumerate(zip(kept, labels, strict=True)):
            whole = encoded(turns, tokenizer)
            cut = Encoded(whole.tokens[: self.context + 1], whole.said[: self.context + 1])
            is_long = len(whole.tokens) > len(cut.tokens)
            if is_long and (self.too_long == "reject" or not cut.said[1:].any()):
                reading.reject(name, "too long for data.context", turns[0].text)
                continue
            n_cut += is_long
            splits[side].append((name, cut))
            progress("encode", number + 1, len(kept))
        write_bytes(folder / "token_bytes.bin", tokenizer.token_bytes.astype("<u2").tobytes())
        return self.finish(folder, reading, splits, tokenizer, described, n_cut)

    def side(self, turns: Sequence[Turn], seed: int) -> str:
        """The split of a conversation, by its text and the seed."""
        digest = hashlib.sha256(repr((seed, [tuple(t) for t in turns])).encode()).digest()
        at = int.from_bytes(digest[:8], "little") / 2**64
        return "test" if at < self.test else "validation" if at < self.test + self.validation else "train"

    def finish(
        self, folder: Path, reading: Reading, splits: dict[str, list[tuple[str, Encoded]]], tokenizer: Any,
        described: dict[str, Any], n_cut: int,
    ) -> DataCard:  # fmt: skip
        """Write arrays, rejected rows and the card."""
        cards, hashes = {}, []
        for side, rows in splits.items():
            if not rows:
                continue
            offsets = np.cumsum([0, *(len(e.tokens) for _, e in rows)])
            names = np.frombuffer("\n".join(name for name, _ in rows).encode(), np.uint8)
            arrays = {
                "tokens": np.concatenate([e.tokens for _, e in rows]).astype(np.uint32),
                "said": np.concatenate([e.said for _, e in rows]),
                "offsets": offsets,
                "names": names,
            }
            hashes.append(write_arrays(folder, side, arrays))
            n_targets = sum(int(e.said[1:].sum()) for _, e in rows)
            cards[side] = SplitCard(n_samples=len(rows), n_targets=n_targets)
        write_rejected(folder, reading.rejected)
        warnings = (f"{n_cut:,} conversations were longer than data.context and are cut.",) if n_cut else ()
        audit = [audited(e, tokenizer) for _, e in splits["train"][:N_AUDITED]]
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=reading.n_in, rows_used=sum(c.n_samples for c in cards.values()),
            rows_rejected=dict(reading.reasons), splits=cards, tokenizer=described, vocab_size=tokenizer.vocab_size,
            document_end=tokenizer.document_end, warnings=warnings, stations=(reading.card(),),
            features={"vocab_size": tokenizer.vocab_size, "context": self.context, "audit": audit},
            fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def open(self, folder: Path, card: DataCard, split: str) -> ChatSplit:
        """A prepared split."""
        found = read_arrays(folder, split)
        names = bytes(found["names"]).decode().split("\n")
        return ChatSplit(found["tokens"], np.asarray(found["said"]), np.asarray(found["offsets"]), names)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> ChatSplit:
        """Conversations: .jsonl paths, JSON lines, or dicts."""
        tokenizer, reading = tokenizers.load(card, folder), Reading()
        rows: list[tuple[str, list[Turn]]] = []
        for number, given in enumerate(inputs):
            if isinstance(given, str | Path) and str(given).endswith(".jsonl"):
                rows += conversations(Path(given), reading)
                continue
            try:
                value = json.loads(given) if isinstance(given, str) else given
                rows.append((f"input {number}", turns_of(value)))
            except ValueError as error:
                raise UserError(f"input {number}", f"is not a conversation ({error})", got=str(given)[:60]) from None
        made = [encoded(turns, tokenizer) for _, turns in rows]
        made = [Encoded(e.tokens[: self.context + 1], e.said[: self.context + 1]) for e in made]
        offsets = np.cumsum([0, *(len(e.tokens) for e in made)])
        empty = np.zeros(0, np.int64)
        tokens = np.concatenate([empty, *(e.tokens for e in made)])
        said = np.concatenate([empty.astype(bool), *(e.said for e in made)])
        return ChatSplit(tokens, said, offsets, [name for name, _ in rows])


class Reading:
    """What came in and what was left out, and why."""

    def __init__(self) -> None:
        self.n_in, self.reasons, self.rejected = 0, Counter[str](), list[dict[str, str]]()

    def reject(self, row: str, reason: str, text: str) -> None:
        """Leave a row out."""
        self.reasons[reason] += 1
        self.rejected.append({"row": row, "reason": reason, "text": text[:200]})

    def card(self) -> StationCard:
        """For the report."""
        return StationCard(
            name="read", n_in=self.n_in, n_dropped=dict(self.reasons), examples=tuple(self.rejected[:N_EXAMPLES])
        )


def conversations(path: Path, reading: Reading) -> Iterator[tuple[str, list[Turn]]]:
    """(row name, turns) of every line that is a conversation."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            reading.n_in += 1
            name = f"{path.name}:{number}"
            try:
                yield name, turns_of(json.loads(line.decode("utf-8-sig")))
            except ValueError as error:
                known = {json.JSONDecodeError: "not JSON", UnicodeDecodeError: "not UTF-8"}
                why = known.get(type(error), str(error))
                reading.reject(name, why, line.decode("utf-8", "replace"))


def turns_of(value: Any) -> list[Turn]:
    """The turns of one JSON object; ValueError says why there are none."""
    if not isinstance(value, Mapping):
        raise ValueError("not an object")
    if "instruction" in value and "output" in value:
        asked = "\n".join(str(value[k]) for k in ("instruction", "input") if value.get(k))
        listed: Any = [{"role": "user", "content": asked}, {"role": "assistant", "content": value["output"]}]
    elif "prompt" in value and "response" in value:
        listed = [{"role": "user", "content": value["prompt"]}, {"role": "assistant", "content": value["response"]}]
    else:
        listed = value.get("messages", value.get("conversations"))
    if not isinstance(listed, list) or not listed:
        raise ValueError("no messages")
    turns = []
    for message in listed:
        if not isinstance(message, Mapping):
            raise ValueError("a message that is no object")
        role, text = message.get("role", message.get("from")), message.get("content", message.get("value"))
        role = ROLES.get(str(role), str(role))
        if role not in KNOWN_ROLES:
            raise ValueError("unknown role")
        if not isinstance(text, str):
            raise ValueError("a message without text")
        turns.append(Turn(role, text))
    if not any(turn.role == "assistant" and turn.text.strip() for turn in turns):
        raise ValueError("nothing said by the assistant")
    return turns


def encoded(turns: Sequence[Turn], tokenizer: Any) -> Encoded:
    """Tokens, and which are the assistant's. Each turn is encoded alone, so no token spans two of them."""
    tokens: list[int] = []
    said: list[bool] = []
    for turn in turns:
        head, body = list(tokenizer.encode(f"<|{turn.role}|>\n")), list(tokenizer.encode(turn.text))
        is_said = turn.role == "assistant"
        body += [tokenizer.document_end] if is_said else list(tokenizer.encode("\n"))
        tokens += [*head, *body]
        said += [False] * len(head) + [is_said] * len(body)
    return Encoded(np.array(tokens, np.int64), np.array(said, bool))


def audited(conversation: Encoded, tokenizer: Any) -> list[list[Any]]:
    """[[text, supervised], ...]: runs of tokens of one conversation."""
    edges = np.flatnonzero(np.diff(conversation.said)) + 1
    runs = zip(np.split(conversation.tokens, edges), np.split(conversation.said, edges), strict=True)
    ends = tokenizer.document_end
    return [
        [tokenizer.decode([t for t in run.tolist() if t != ends]) + ("⏹" if ends in run else ""), bool(said[0])]
        for run, said in runs
    ]


class ChatSplit:
    """Conversations end to end, with where each starts."""

    def __init__(
        self, tokens: NDArray[Any], said: NDArray[np.bool_], offsets: NDArray[np.int64], names: list[str]
    ) -> None:
        self.tokens, self.said, self.offsets, self.names = tokens, said, offsets, names

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, rows: NDArray[np.int64], seeds: Any = None) -> Batch:
        """tokens, targets (B, T) int64, padded to the longest; only what the assistant says is a target."""
        import torch

        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        width = int((ends - starts).max()) - 1
        tokens = np.zeros((len(rows), width), np.int64)
        targets = np.full((len(rows), width), -1, np.int64)
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            ids, n = np.asarray(self.tokens[start:end], np.int64), end - start - 1
            tokens[i, :n] = ids[:-1]
            targets[i, :n] = np.where(self.said[start + 1 : end], ids[1:], -1)
        tensors = {"tokens": torch.from_numpy(tokens), "targets": torch.from_numpy(targets)}
        return Batch(tensors, int((targets >= 0).sum()))

    def name(self, row: int) -> str:
        """file.jsonl:12."""
        return self.names[row]
