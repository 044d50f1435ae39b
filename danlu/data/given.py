"""Arrays handed over in Python: inputs and targets that are there already, as `danlu.fit` takes them.

They are written into the run folder like any other data, so a run can be resumed, scored and looked at without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch, DataCard, Progress, SplitCard
from danlu.base.durable import fingerprint, write_json
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.samples import SampleSource

Array = NDArray[Any]
Pairs = Mapping[str, tuple[Array, Array]]
"""{"train": (inputs (N, ...), targets (N,) classes or (N, K) numbers), "validation": ..., "test": ...}"""


class Arrays(SampleSource):
    """Inputs and targets as arrays, given in Python (danlu.fit)."""

    kind: Literal["arrays"] = "arrays"
    path: str = "python"
    """Where they came from; always Python."""
    digest: str
    """Hash of all their bytes."""

    given: ClassVar[dict[str, Pairs]] = {}
    """Arrays of this process by digest."""

    @classmethod
    def of(cls, pairs: Pairs) -> Arrays:
        """Settings for arrays, which are kept until they are prepared."""
        checked = {split: (np.asarray(x), np.asarray(y)) for split, (x, y) in pairs.items()}
        if "train" not in checked:
            raise UserError("fit: data", 'must have a "train" entry', got=", ".join(checked) or "nothing")
        digest = hashlib.sha256()
        for split, (x, y) in sorted(checked.items()):
            if len(x) != len(y) or not len(x):
                raise UserError(
                    f"fit: data[{split!r}]", "needs as many targets as inputs", got=f"{len(y)} for {len(x)}"
                )
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                raise UserError(f"fit: data[{split!r}]", "must hold finite numbers", got="NaN or infinity")
            for array in (x, y):
                digest.update(f"{split}{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        made = cls(digest=digest.hexdigest()[:32])
        cls.given[made.digest] = checked
        return made

    def expected(self) -> dict[str, Any]:
        """Of the training arrays."""
        if self.digest not in self.given:
            fix = "call danlu.fit with the same arrays"
            raise UserError("data", "were given in Python, and this process has not been given them", fix=fix)
        pairs = self.given[self.digest]
        x, y = pairs["train"]
        found: dict[str, Any] = {"input_shape": list(x.shape[1:])}
        if y.dtype.kind == "f":
            k = y.shape[1] if y.ndim > 1 else 1
            plain = {"kind": "none", "mean": [0.0] * k, "std": [1.0] * k}
            return found | {"targets": [f"y{i}" for i in range(k)], "target_transform": plain}
        classes = np.unique(np.concatenate([np.unique(t) for _, t in pairs.values()]))
        return found | {"classes": [str(c) for c in classes.tolist()], "class_values": classes.tolist()}

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Write the arrays as they are."""
        features = self.expected()
        pairs, hashes, splits = self.given[self.digest], [], {}
        for split, (x, y) in pairs.items():
            inputs = x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.int64)
            targets = y.reshape(len(y), -1).astype(np.float32) if "targets" in features else classed(y, features)
            hashes.append(write_arrays(folder, split, {"inputs": inputs, "targets": targets}))
            n_targets = targets.size if "targets" in features else len(targets)
            splits[split] = SplitCard(n_samples=len(x), n_targets=n_targets)
        n = sum(len(x) for x, _ in pairs.values())
        card = DataCard(
            kind=self.kind, source="arrays given in Python", rows_in=n, rows_used=n, rows_rejected={}, splits=splits,
            features=features, fingerprint=fingerprint([hashes, self.digest]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def open(self, folder: Path, card: DataCard, split: str) -> ArraySplit:
        """A prepared split."""
        found = read_arrays(folder, split)
        return ArraySplit(np.asarray(found["inputs"]), np.asarray(found["targets"]), split)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> ArraySplit:
        """New inputs, one sample each."""
        shape = tuple(card.features["input_shape"])
        rows = [np.asarray(x) for x in inputs]
        for number, row in enumerate(rows):
            if row.shape != shape or row.dtype.kind not in "fiub":
                raise UserError(f"input {number}", f"must be an array of shape {shape}", got=str(row.shape))
        x = np.stack(rows) if rows else np.zeros((0, *shape), np.float32)
        x = x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.int64)
        numbers = len(card.features.get("targets", ()))
        y = np.zeros((len(x), numbers), np.float32) if numbers else np.full(len(x), -1, np.int64)
        return ArraySplit(x, y, "input")

    def files(self) -> list[Path]:
        """None: the digest stands for them."""
        return []


def classed(y: Array, features: Mapping[str, Any]) -> Array:
    """Class numbers of class values."""
    return np.searchsorted(np.array(features["class_values"]), y.reshape(len(y))).astype(np.int64)


class ArraySplit:
    """Inputs (N, ...) and targets (N,) or (N, K)."""

    def __init__(self, inputs: Array, targets: Array, split: str) -> None:
        self.inputs, self.targets, self.split = inputs, targets, split

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, rows: Array, seeds: Array | None = None) -> Batch:
        """{"inputs": (B, ...), "targets": (B,) or (B, K)}."""
        import torch

        targets = self.targets[rows]
        tensors = {"inputs": torch.from_numpy(self.inputs[rows]), "targets": torch.from_numpy(targets)}
        if targets.ndim == 1:
            return Batch(tensors, int((targets >= 0).sum()))
        return Batch(tensors, targets.size, row_targets=np.full(len(targets), targets.shape[1]))

    def name(self, row: int) -> str:
        """train[17]."""
        return f"{self.split}[{row}]"
