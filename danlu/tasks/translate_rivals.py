"""What a translation must beat, fitted on the training pairs: a copy, the nearest known sentence, a dictionary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
WORD = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]")
MOST_PAIRS, MOST_LINKS = 200_000, 8_000_000
"""Training pairs, and pairs of words in them, that are looked at."""
N_ROUNDS = 5


def words(text: str) -> list[str]:
    """Words and marks, each with the space before it."""
    return WORD.findall(f" {text}")


class Nearest:
    """The translation of the training sentence whose words are most alike: cosine of tf-idf vectors (Salton 1975)."""

    def __init__(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        self.targets = list(targets)
        documents = [Counter(w.strip().lower() for w in words(text)) for text in sources[:MOST_PAIRS]]
        found = Counter(chain.from_iterable(documents))
        self.number = {word: i for i, word in enumerate(found)}
        self.rarity = np.log((1 + len(documents)) / (1 + np.array(list(found.values()), float))) + 1e-3
        terms = np.array([self.number[w] for d in documents for w in d], np.int64)
        counts = np.array([n for d in documents for n in d.values()], float)
        of = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
        weights = counts * self.rarity[terms]
        norms = np.sqrt(np.bincount(of, weights**2, len(documents)))
        order = np.argsort(terms, kind="stable")
        self.documents, self.weights = of[order], (weights / np.maximum(norms[of], 1e-12))[order]
        self.starts = np.searchsorted(terms[order], np.arange(len(self.number) + 1))

    def translate(self, text: str) -> str:
        """Of the nearest."""
        likeness = np.zeros(min(len(self.targets), MOST_PAIRS))
        for word, n in Counter(w.strip().lower() for w in words(text)).items():
            i = self.number.get(word)
            if i is not None:
                part = slice(self.starts[i], self.starts[i + 1])
                likeness[self.documents[part]] += n * self.rarity[i] * self.weights[part]
        return self.targets[int(likeness.argmax())]


class Dictionary:
    """Word for word, each by its likeliest translation under IBM Model 1 (Brown et al. 1993), in the source's order."""

    def __init__(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        left, right, place, known = links(sources, targets)
        n = max(1, len(known[1]))
        keys, link = np.unique(left * n + right, return_inverse=True)
        owner, share = keys // n, np.ones(len(keys))
        for _ in range(N_ROUNDS):
            chance = share[link]
            chance /= np.bincount(place, chance)[place]  # each target word is made by one word of the source
            counted = np.bincount(link, chance, len(keys))
            share = counted / np.bincount(owner, counted)[owner]
        order = np.lexsort((share, owner))
        last = order[np.flatnonzero(np.diff(owner[order], append=-1))]
        self.best = {known[0][keys[i] // n]: known[1][keys[i] % n] for i in last.tolist()}

    def translate(self, text: str) -> str:
        """Unknown words stay as they are."""
        return "".join(self.best.get(word, word) for word in words(text)).strip()


def links(sources: Sequence[str], targets: Sequence[str]) -> tuple[Ids, Ids, Ids, tuple[list[str], list[str]]]:
    """(source words, target words, place of the target word, the words by number): each target word with each word of
    its source, and with no word at all, which is written ""."""
    numbers: tuple[dict[str, int], dict[str, int]] = {"": 0}, {}
    left, right, place = [], [], []
    n_links = n_places = 0
    for source, target in zip(sources[:MOST_PAIRS], targets, strict=False):
        given, made = (
            np.array([number.setdefault(word, len(number)) for word in found], np.int64)
            for number, found in zip(numbers, (["", *words(source)], words(target)), strict=True)
        )
        left.append(np.tile(given, len(made)))
        right.append(np.repeat(made, len(given)))
        place.append(np.repeat(np.arange(n_places, n_places + len(made)), len(given)))
        n_links, n_places = n_links + len(given) * len(made), n_places + len(made)
        if n_links > MOST_LINKS:
            break
    known = list(numbers[0]), list(numbers[1])
    return np.concatenate(left), np.concatenate(right), np.concatenate(place), known
