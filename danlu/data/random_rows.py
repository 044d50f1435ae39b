"""Small tables of random numbers, made on this machine: for first steps, where nothing is to be downloaded.

random-classes    1,000 rows: x0 ... x9 from N(0, 1); label 1 where a sum of them, with noise, is above 0
random-numbers    1,000 rows: x0 ... x9; y, a sum of them and of |x0|, with noise
random-lines      1,000 rows: x0, x1; y0, y1, y2, each a straight line of them, with noise
<name>-test       200 rows more of the same
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from numpy.typing import NDArray

from danlu.data.table_read import Intake, Rows

RANDOM_TABLES = {"random-classes": 10, "random-numbers": 10, "random-lines": 2}
"""Name -> columns of random numbers."""
N_TRAIN, N_TEST = 1000, 200


def is_random(path: str) -> bool:
    """Whether a path is the name of such a table."""
    return path.removesuffix("-test") in RANDOM_TABLES


def random_columns(path: str) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """Columns by name; the same on every machine."""
    name = path.removesuffix("-test")
    n_inputs = RANDOM_TABLES[name]
    rng = np.random.default_rng([7, n_inputs])
    x = rng.normal(size=(N_TRAIN + N_TEST, n_inputs))
    weights, noise = rng.normal(size=(n_inputs, 3)), rng.normal(size=(N_TRAIN + N_TEST, 3))
    rows = slice(0, N_TRAIN) if path == name else slice(N_TRAIN, None)
    sums = x @ weights
    found: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        f"x{i}": x[rows, i].astype(np.float32) for i in range(n_inputs)
    }
    if name == "random-classes":
        return found | {"label": (sums[:, 0] + noise[:, 0] > 0)[rows].astype(np.int64)}
    if name == "random-numbers":
        y = 0.3 * sums[:, 0] + np.abs(x[:, 0]) + 0.3 * noise[:, 0]
        return found | {"y": y[rows].astype(np.float32)}
    lines = (sums + [1.0, -2.0, 0.5] + 0.1 * noise)[rows].astype(np.float32)
    return found | {f"y{i}": lines[:, i] for i in range(3)}


def random_rows(path: str, intake: Intake, most: int | None = None) -> Rows:
    """The same as a file would give it: fields are text, with every digit that float32 has."""
    columns = random_columns(path)
    rows = islice(zip(*columns.values(), strict=True), most)
    values: list[list[str | None]] = [[str(value) for value in row] for row in rows]
    intake.n_in += len(values)
    return Rows(list(columns), values, [f"{path}:{i + 1}" for i in range(len(values))])
