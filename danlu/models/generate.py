"""Text from a model: a batch of prompts, a key-value cache, and pieces of text as they become certain.

for piece in stream(model, codec, ["def walk(tree):"], Sampling(temperature=0.8)):
    print(piece.text, end="", flush=True)

Prompts of different lengths go together without padding: all rows stand at the same position, and a row whose
prompt is longer takes its own next token there instead of a generated one. When the text outgrows the model's
context, the oldest half of the window is dropped and the rest is encoded again (`window_start`), so the model
always sees between half a context and a whole one.
"""

# B prompts, T positions, V tokens

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from danlu.base.errors import GateError, UserError
from danlu.models.sampling import Draws, Sampling, picked

Ended = Literal["stop", "document end", "length"]
INCOMPLETE = "�"
"""What decoding gives for bytes that are no whole character (yet)."""


class Codec(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without a document end."""

    def decode(self, tokens: list[int]) -> str:
        """Text of tokens; bytes that form no character become U+FFFD."""


class Decodes(Protocol):
    """A model that scores the next token from a cache."""

    def new_cache(self, batch_size: int) -> Any:
        """An empty cache."""

    def decode(self, tokens_BT: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Scores (B, V) float32 of what follows the last token, and the cache with these tokens in it."""


@dataclass(frozen=True)
class Limits:
    """What a model can do: the longest window it was trained on, and the token that ends a document."""

    context: int
    document_end: int | None = None

    def first_tokens(self, codec: Codec, prompt: str) -> list[int]:
        """The prompt's tokens; an empty prompt begins a new document."""
        tokens = list(codec.encode(prompt))
        if not tokens and self.document_end is None:
            raise UserError("prompt", "must have at least one character (this model has no document-end token)", got="")
        return tokens or [self.document_end or 0]


@dataclass(frozen=True)
class Piece:
    """Newly certain text of one prompt; the last piece of a row says why it ended."""

    row: int
    text: str
    ended: Ended | None = None


@dataclass(frozen=True)
class Continuation:
    """A whole continuation."""

    prompt: str
    text: str
    ended: Ended


def window_start(n_tokens: int, context: int) -> int:
    """First token that is shown to the model when n_tokens are known: a pure function, so that a cache is only a
    shortcut. It moves by half a context at a time."""
    hop = max(1, context // 2)
    return 0 if n_tokens <= context else -(-(n_tokens - context) // hop) * hop


class TextStream:
    """Turns tokens into text as they come: never half a character, nothing of a stop text."""

    def __init__(self, codec: Codec, prompt: list[int], stop: Sequence[str]) -> None:
        self._codec, self._stop = codec, tuple(stop)
        self._tokens = prompt[-8:]  # some tokenizers decode a first token differently
        self._sent = codec.decode(self._tokens)
        self._settled = len(self._tokens)
        self._pending = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Text that has become certain with this token."""
        self._tokens.append(token)
        text = self._codec.decode(self._tokens)
        certain = text.removesuffix(INCOMPLETE)
        new, self._sent = certain[len(self._sent) :], max(certain, self._sent, key=len)
        if certain == text:
            self._tokens = self._tokens[self._settled :]
            self._settled = len(self._tokens)
            self._sent = self._codec.decode(self._tokens)
        return self._passed(new)

    def finish(self) -> str:
        """The rest, when no more tokens come."""
        if self.stopped:
            return ""
        return self._passed(self._codec.decode(self._tokens)[len(self._sent) :], last=True)

    def _passed(self, new: str, last: bool = False) -> str:
        text = self._pending + new
        cuts = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if cuts:
            self.stopped, self._pending = True, ""
            return text[: min(cuts)]
        n_held = 0 if last else max((overlap(text, stop) for stop in self._stop), default=0)
        self._pending = text[len(text) - n_held :]
        return text[: len(text) - n_held]


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` without being all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class Window:
    """What the model has been shown: a cache over the tokens from `window_start` on."""

    def __init__(self, model: Any, context: int) -> None:
        self._model, self._context = model, context
        self._device = next(model.parameters()).device
        self._cache: Any = None
        self._start = self._n_shown = 0

    def scores(self, known_BT: list[list[int]], n_tokens: int) -> Tensor:
        """Scores of the token after the first n_tokens of each row. (B, V) float32."""
        scores_BV: Tensor
        start = window_start(n_tokens, self._context)
        with torch.no_grad():
            if self._cache is None or start != self._start:
                self._cache = self._model.new_cache(len(known_BT))
                self._start = self._n_shown = start
            fresh = torch.tensor([row[self._n_shown : n_tokens] for row in known_BT], device=self._device)
            scores_BV, self._cache = self._model.decode(fresh, self._cache)
        self._n_shown = n_tokens
        if not torch.isfinite(scores_BV.amax(-1)).all():
            raise GateError("The model's scores are not numbers: its weights have diverged. Fix: train it again.")
        return scores_BV


def stream(model: Any, codec: Codec, prompts: Sequence[str], sampling: Sampling, limits: Limits) -> Iterator[Piece]:
    """Pieces of text for each prompt as they become certain. The prompt itself is not repeated.

    The model must be in eval mode (no dropout); it follows `Decodes`.
    """
    known = [limits.first_tokens(codec, prompt) for prompt in prompts]
    n_prompt = [len(row) for row in known]
    texts = [TextStream(codec, row, sampling.stop) for row in known]
    draws = Draws(sampling.seed, len(prompts))
    window = Window(model, limits.context)
    open_rows = set(range(len(prompts)))
    n_tokens = min(n_prompt, default=0)
    while open_rows:
        scores_BV = window.scores(known, n_tokens)
        drawing = sorted(row for row in open_rows if n_prompt[row] <= n_tokens)
        tokens = picked(scores_BV[drawing], sampling, draws.next(drawing)).tolist()
        for row, token in zip(drawing, tokens, strict=True):
            known[row].append(token)
            piece = grown(row, token, texts[row], len(known[row]) - n_prompt[row], sampling, limits)
            if piece.ended:
                open_rows.discard(row)
            if piece.text or piece.ended:
                yield piece
        n_tokens += 1
        for row in range(len(prompts)):
            if len(known[row]) < n_tokens:  # ended: keeps its place in the batch
                known[row].append(known[row][-1])


def grown(row: int, token: int, text: TextStream, n_new: int, sampling: Sampling, limits: Limits) -> Piece:
    """What a new token adds to its row's text, and whether it ends it."""
    if token == limits.document_end:
        return Piece(row, text.finish(), "document end")
    added = text.push(token)
    if not text.stopped and n_new == sampling.max_new_tokens:
        added += text.finish()
        return Piece(row, added, "stop" if text.stopped else "length")
    return Piece(row, added, "stop" if text.stopped else None)


def generate(
    model: Any, codec: Codec, prompts: Sequence[str], sampling: Sampling, limits: Limits
) -> list[Continuation]:
    """Whole continuations, in the order of the prompts."""
    texts, ends = [""] * len(prompts), ["length"] * len(prompts)
    for piece in stream(model, codec, prompts, sampling, limits):
        texts[piece.row] += piece.text
        ends[piece.row] = piece.ended or ends[piece.row]
    return [Continuation(*row) for row in zip(prompts, texts, ends, strict=True)]  # type: ignore[arg-type]
