"""The vision transformer. B images, C channels, H x W pixels, P pixels a patch's side, N = H W / P^2 patches, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.convnet import seeded
from danlu.models.transformer import Block, Dropout, Shape, stacked_rows, start_weights
from danlu.models.vit_settings import Vit

EPS = 1e-6
"""Of the norms, as in the published code."""


class VitModel(nn.Module):
    """Patches through one matrix, learned positions, pre-norm blocks, a last norm, one layer on a token or the mean."""

    def __init__(self, settings: Vit, shape: tuple[int, int, int], n_outputs: int, seed: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.patch, d = settings.patch, settings.width
        n_patches = (height // self.patch) * (width // self.patch)
        hidden = 4 * d if settings.hidden == "auto" else settings.hidden
        with seeded(seed):
            self.embed = nn.Linear(channels * self.patch**2, d)
            self.token = nn.Parameter(torch.zeros(d)) if settings.pool == "token" else None
            n_places = n_patches + (self.token is not None)
            self.positions = nn.Embedding(n_places, d)
            self.dropout = Dropout(settings.dropout)
            self.blocks = nn.ModuleList(
                Block(
                    Shape(
                        d, settings.n_heads, hidden, settings.dropout, settings.attention_dropout, eps=EPS,
                        drop_path=settings.drop_path * (i + 1) / settings.n_layers,
                    )
                )
                for i in range(settings.n_layers)
            )  # fmt: skip
            self.norm = nn.LayerNorm(d, EPS)
            self.head = nn.Linear(d, n_outputs)
            start_weights(self, 2 * settings.n_layers)
            nn.init.zeros_(self.head.weight)  # every class is as likely at the start, as in the published code

    def patches(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, C P P): patches row by row. Convolution of stride P is this and one matrix product."""
        B, C, H, W = image.shape
        P = self.patch
        cut = image.reshape(B, C, H // P, P, W // P, P).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(B, (H // P) * (W // P), C * P * P)

    def forward(self, batch: Batch) -> Output:
        """image (B, C, H, W) -> scores (B, n_outputs)."""
        x = self.embed(self.patches(batch.tensors["image"]))
        if self.token is not None:
            x = torch.cat([self.token.to(x.dtype).expand(len(x), 1, -1), x], 1)
        x = self.dropout(x + self.positions.weight)
        for block in self.blocks:
            x = block(x)
        pooled = self.norm(x)[:, 0] if self.token is not None else self.norm(x).mean(1)
        return Output(scores=self.head(pooled))

    def row_parts(self) -> dict[str, tuple[int, ...]]:
        """Query, key and value lie in one matrix."""
        return stacked_rows(self)
