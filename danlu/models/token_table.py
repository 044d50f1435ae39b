"""Vectors of tokens: one of the word itself and, where the data spell words, those of its character n-grams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

UNKNOWN = 1
"""The id of a word that is not known, in every kind of data that has words."""


class TokenTable(nn.Module):
    """tokens (B, T) [and grams (B, T, P)] -> (B, T, D): the word's vector plus the sum of its n-grams' over the root of
    how many they are, so that long words are no longer vectors (after Bojanowski et al. 2017)."""

    def __init__(self, features: Mapping[str, Any], width: int, drop: float, std: float) -> None:
        super().__init__()
        n_grams = int(features.get("grams", 0))
        self.drop = drop
        self.words = nn.Embedding(int(features["vocab_size"]), width)
        nn.init.normal_(self.words.weight, std=std)
        self.grams = nn.EmbeddingBag(n_grams + 1, width, mode="sum", padding_idx=0) if n_grams else None
        if self.grams is not None:
            nn.init.normal_(self.grams.weight, std=std)

    def forward(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """In training a token is read as unknown, without its n-grams, with chance `drop` (Iyyer et al. 2015)."""
        tokens, grams = tensors["tokens"], tensors.get("grams")
        if self.training and self.drop:
            dropped = torch.rand(tokens.shape, device=tokens.device) < self.drop
            tokens = tokens.masked_fill(dropped, UNKNOWN)
            grams = None if grams is None else grams.masked_fill(dropped[..., None], 0)
        x: Tensor = self.words(tokens)
        if self.grams is None or grams is None:
            return x
        n_found = (grams > 0).sum(-1, keepdim=True).clamp_min(1)
        return x + self.grams(grams.flatten(0, 1)).view_as(x) * n_found.to(x.dtype).rsqrt()  # type: ignore[no-any-return]
