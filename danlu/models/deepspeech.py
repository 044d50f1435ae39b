"""Deep Speech 2. B sounds, T frames, F bins, C channels, H width, D directions, G gates, K scores.

What lies behind the end of a sound never touches it: padding is left out of the norms, is 0 before each convolution, and
the way back starts at each sound's own end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.deepspeech_settings import Deepspeech
from danlu.models.scan import GruScan

CUT = 20.0
"""Where the paper's ReLU ends."""
N_GATES = {"rnn": 1, "gru": 3, "lstm": 4}


class Inside:
    """Which frames of a batch are sound: (B, T) from lengths (B,)."""

    def __init__(self, lengths: Tensor, n_frames: int) -> None:
        self.lengths = lengths
        self.mask = torch.arange(n_frames, device=lengths.device) < lengths[:, None]
        self.is_full = bool(self.mask.all())


class SequenceNorm(nn.BatchNorm1d):
    """Batch norm over all frames of all sounds (section 3.2)."""

    def normed(self, x: Tensor, inside: Inside) -> Tensor:
        """(B, T, C) or (B, T, C, F); what is outside stays what it is, or is 0."""
        flat = x.flatten(0, 1)
        if inside.is_full or not self.training:
            whole: Tensor = self(flat)
            return whole.view_as(x)
        rows = inside.mask.flatten().nonzero()[:, 0]
        found: Tensor = self(flat.index_select(0, rows))
        return torch.zeros_like(flat, dtype=found.dtype).index_copy(0, rows, found).view_as(x)


class Convolution(nn.Module):
    """Convolution over frames and bins, norm, ReLU cut at 20."""

    def __init__(
        self, sizes: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], whole: bool, norm: bool
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, 0 if whole else kernel[1] // 2)
        self.stride = stride[0]
        self.convolution = nn.Conv2d(*sizes, kernel, stride, padding, bias=not norm)
        self.norm = SequenceNorm(sizes[1]) if norm else None

    def forward(self, x: Tensor, inside: Inside) -> tuple[Tensor, Inside]:
        """(B, C, T, F) -> (B, C', T / stride, F')."""
        x = self.convolution(x)
        inside = Inside((inside.lengths + self.stride - 1) // self.stride, x.shape[2])
        if self.norm is not None:
            x = self.norm.normed(x.transpose(1, 2), inside).transpose(1, 2)
        x = F.hardtanh(x, 0.0, CUT)
        return x if inside.is_full else x * inside.mask[:, None, :, None], inside


class Scan(nn.Module):
    """A recurrent layer: the input's product, normed, then step by step in all directions at once."""

    def __init__(self, settings: Deepspeech, d_in: int) -> None:
        super().__init__()
        self.cell, self.width = settings.cell, settings.width
        n_gates, n_directions = N_GATES[settings.cell], 1 + (settings.directions == "both")
        self.product = nn.Linear(d_in, n_gates * settings.width, bias=not settings.batch_norm)
        self.norm = SequenceNorm(n_gates * settings.width) if settings.batch_norm else None
        self.state = nn.Parameter(torch.empty(n_directions, settings.width, n_gates * settings.width))
        for matrix in self.state.data.chunk(n_gates, 2):
            for direction in matrix:
                nn.init.orthogonal_(direction)
        if settings.cell == "lstm":  # remember, at first (Gers et al. 2000)
            bias = self.norm.bias if self.norm is not None else self.product.bias
            nn.init.ones_(bias.data[settings.width : 2 * settings.width])

    def forward(self, x: Tensor, inside: Inside) -> Tensor:
        """(B, T, N) -> (B, T, H): the sum of the directions."""
        x = self.product(x)
        if self.norm is not None:
            x = self.norm.normed(x, inside)
        both = len(self.state) == 2
        ways, held = two_ways(x.transpose(0, 1), both), None
        if not inside.is_full:
            held = two_ways(inside.mask.T[..., None].to(x.dtype), both)
        state = self.state.to(ways.dtype)
        if self.cell == "gru":
            found: Tensor = GruScan.apply(ways, state, held)  # type: ignore[no-untyped-call]
        else:
            found = torch.stack(self.steps(ways, state, held))
        found = found[:, 0] + found[:, 1].flip(0) if both else found[:, 0]
        return found.transpose(0, 1)

    def steps(self, inputs: Tensor, state: Tensor, held: Tensor | None) -> list[Tensor]:
        """(T, D, B, G H) -> T times (D, B, H). What is not held, (T, D, B, 1), is set back to 0: so the way back starts at
        each sound's own end."""
        width = self.width
        h = inputs.new_zeros(*inputs.shape[1:3], width)
        memory, states = h, []
        for t, x in enumerate(inputs):
            if self.cell == "rnn":
                h = torch.baddbmm(x, h, state).clamp(0, CUT)
            elif self.cell == "gru":  # in words; GruScan does the same faster
                own = torch.bmm(h, state)
                gates = torch.sigmoid(x[..., : 2 * width] + own[..., : 2 * width])
                new = torch.tanh(x[..., 2 * width :] + gates[..., :width] * own[..., 2 * width :])
                h = torch.lerp(new, h, gates[..., width:])
            else:
                gates = torch.baddbmm(x, h, state)
                into, keep, out = torch.sigmoid(gates[..., : 3 * width]).chunk(3, 2)
                memory = keep * memory + into * torch.tanh(gates[..., 3 * width :])
                memory = memory if held is None else memory * held[t]
                h = out * torch.tanh(memory)
            h = h if held is None else h * held[t]
            states.append(h)
        return states


def two_ways(x: Tensor, both: bool) -> Tensor:
    """(T, B, N) -> (T, D, B, N): and from its end."""
    return torch.stack([x, x.flip(0)], 1) if both else x[:, None].contiguous()


class Dense(nn.Module):
    """A full layer on each frame, norm, ReLU cut at 20."""

    def __init__(self, d_in: int, width: int, norm: bool) -> None:
        super().__init__()
        self.product = nn.Linear(d_in, width, bias=not norm)
        self.norm = SequenceNorm(width) if norm else None

    def forward(self, x: Tensor, inside: Inside) -> Tensor:
        """(B, T, N) -> (B, T, H)."""
        x = self.product(x)
        return F.hardtanh(x if self.norm is None else self.norm.normed(x, inside), 0.0, CUT)


class Lookahead(nn.Module):
    """Row convolution: each number of a frame with its own weights over the frames ahead (section 3.7)."""

    def __init__(self, width: int, n_ahead: int) -> None:
        super().__init__()
        self.n_ahead = n_ahead
        self.weights = nn.Conv1d(width, width, n_ahead + 1, groups=width, bias=False)

    def forward(self, x: Tensor, inside: Inside) -> Tensor:
        """(B, T, H) -> (B, T, H)."""
        held = (x * inside.mask[..., None]).transpose(1, 2)
        return F.relu(self.weights(F.pad(held, (0, self.n_ahead))).transpose(1, 2)).clamp(max=CUT)


class DeepspeechModel(nn.Module):
    """frames (B, T, F) -> scores (B, T', K) with lengths (B,), or, pooled, scores (B, K)."""

    def __init__(self, settings: Deepspeech, n_bins: int, n_outputs: int, seed: int, pooled: bool) -> None:
        super().__init__()
        self.settings, self.pooled = settings, pooled
        norm, width = settings.batch_norm, settings.width
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            convolutions, before = [], 1
            for channels, kernel, stride in zip(settings.channels, settings.kernels, settings.strides, strict=True):
                whole = kernel[1] == 0
                kernel, stride = ((kernel[0], n_bins), (stride[0], 1)) if whole else (kernel, stride)
                convolutions.append(Convolution((before, channels), kernel, stride, whole, norm))
                before, n_bins = channels, 1 if whole else (n_bins - 1) // stride[1] + 1
            self.convolutions = nn.ModuleList(convolutions)
            d_in = before * n_bins
            self.scans = nn.ModuleList(Scan(settings, width if i else d_in) for i in range(settings.n_layers))
            d_in = width if settings.n_layers else d_in
            self.lookahead = Lookahead(d_in, settings.lookahead) if settings.lookahead else None
            self.dense = nn.ModuleList(Dense(width if i else d_in, width, norm) for i in range(settings.n_dense))
            self.head = nn.Linear(width if settings.n_dense else d_in, n_outputs)

    def dropped(self, x: Tensor) -> Tensor:
        """(B, T, N) or (B, N) with the same numbers dropped in all frames of a sound (Gal and Ghahramani 2016)."""
        if not self.settings.dropout or not self.training:
            return x
        ones = torch.ones_like(x[:, :1] if x.dim() == 3 else x)
        return x * F.dropout(ones, self.settings.dropout)

    def forward(self, batch: Batch) -> Output:
        """Scores of each frame, or of each sound."""
        x = batch.tensors["frames"][:, None]
        inside = Inside(batch.tensors["lengths"], x.shape[2])
        for convolution in self.convolutions:
            x, inside = convolution(x, inside)
        x = x.transpose(1, 2).flatten(2)
        for scan in self.scans:
            x = scan(self.dropped(x), inside)
        if self.lookahead is not None:
            x = self.lookahead(x, inside)
        for dense in self.dense:
            x = dense(x, inside)
        if self.pooled:
            x = (x * inside.mask[..., None]).sum(1) / inside.lengths.clamp_min(1)[:, None]
            return Output(scores=self.head(self.dropped(x)))
        return Output(scores=self.head(self.dropped(x)), lengths=inside.lengths)
