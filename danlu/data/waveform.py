"""Sound as its samples, for synthesis: clips of mu-law levels, with what they are of (a digit, a speaker, a folder).

features: rate, levels, context, conditions (names), values (of each condition), level_counts, durations (21 quantiles of
          the training clips' samples, by value of the first condition), level_values and level_borders (full scale at 1)
tensors:  levels (B, T) int64, targets (B, T) int64 with -1 for context and padding, conditions (B, C) int64 with -1 for
          what training did not hold, span (B, 2) int64: where in its clip the first level is, and the clip's samples;
          clip (B,) int64. To be made (predict): conditions, n_samples (B,), seeds (B,) int64, and no levels
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from danlu.base.contracts import DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, write_json
from danlu.base.errors import UserError
from danlu.data import mulaw
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.audio_read import ENDINGS, Limits, decoded
from danlu.data.sample_splits import NAMES, TEST, TRAIN, VALIDATION, GivenFiles, RandomSplit, SampleSplitSetting, assign
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.table_read import Intake
from danlu.data.waveform_split import Cut, Wanted, WaveformSplit, wanted

FOLDER = "folder"
QUANTILES = np.linspace(0, 1, 21)
PEAK = 0.95
FRAME_S = 0.01
Clip = tuple[str, NDArray[np.int16], dict[str, str]]
"""(file name, samples, what its name and folder say)"""


class Waveform(SampleSource):
    """Sound files as raw samples, to learn to make more of them."""

    kind: Literal["waveform"] = "waveform"
    """Sound as its samples."""
    path: str
    """A file, a folder or a glob of sound files."""
    rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000
    """Samples a second that every file comes to."""
    levels: Annotated[int, Field(ge=4, le=256)] = 256
    """Levels that a sample can have, spaced by mu-law with mu = levels - 1."""
    names: str = ""
    """Regular expression that a file's name (without its ending) must match, with groups for what it says:
    "(?P<digit>[0-9])_(?P<speaker>[a-z]+)_[0-9]+". Empty: names say nothing."""
    conditions: tuple[str, ...] = ()
    """Groups of `names`, or "folder", that a sound is made from; what predict asks for comes first. Empty: none."""
    n_classes: dict[str, int] = Field(default_factory=dict)
    """Values of each condition, for danlu check when the data are not at hand."""
    shortest: Annotated[float, Field(ge=0)] = 0.02
    """Seconds; a shorter file is left out."""
    longest: Annotated[float, Field(gt=0, le=36_000)] = 600.0
    """Seconds; a longer file is left out."""
    trim: Annotated[float, Field(gt=0, le=200)] | Literal["none"] = "none"
    """Silence is cut off at both ends: stretches of 10 ms that lie this many dB below the loudest one."""
    gain: Literal["none", "peak"] = "none"
    """peak: every clip is brought to a highest sample of 0.95."""
    gain_jitter: Annotated[float, Field(ge=0, le=40)] = 0.0
    """Training clips are made louder or softer by up to this many dB, evenly, each epoch anew."""
    window: Annotated[int, Field(ge=16, le=2**24)] = 16_384
    """Most samples that are learned from or scored in one piece; a longer clip is cut into pieces of like length, which
    in training lie anywhere in it."""
    context: Annotated[int, Field(ge=0, le=2**24)] = 4096
    """Samples before a piece that the model also sees: at least as many as it can look back on."""
    split: SampleSplitSetting = RandomSplit()
    """How clips become train, validation and test. Files that a given split names are not in train, even if data.path
    names them too."""

    @field_validator("names")
    @classmethod
    def _a_pattern(cls, value: str) -> str:
        """It must compile, and leave `folder` to folders."""
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"must be a regular expression ({error})") from None
        if FOLDER in groups:
            raise ValueError("must not have a group named folder, which is the folder that a file lies in")
        return value

    def files(self) -> list[Path]:
        """The source files."""
        held = [p for p in (self.split.validation, self.split.test) if p] if isinstance(self.split, GivenFiles) else []
        return sorted({file for path in (self.path, *held) for file in source_files(path, ENDINGS)})

    def sided(self) -> list[tuple[Path, int]]:
        """Every file once, with the split that a given split says."""
        sides = dict.fromkeys(source_files(self.path, ENDINGS), TRAIN)
        if isinstance(self.split, GivenFiles):
            for number, path in ((VALIDATION, self.split.validation), (TEST, self.split.test)):
                sides |= dict.fromkeys(source_files(path, ENDINGS) if path else [], number)
        return sorted(sides.items())

    def said(self, path: Path) -> dict[str, str] | None:
        """What a file's name and its folder say; None where the name does not match."""
        found = re.fullmatch(self.names, path.stem) if self.names else None
        if self.names and found is None:
            return None
        return {FOLDER: path.parent.name} | (found.groupdict("") if found else {})

    def check_conditions(self) -> None:
        """Conditions must be groups of the names, or the folder."""
        known = [*re.compile(self.names).groupindex, FOLDER]
        for name in (*self.conditions, *self.n_classes):
            if name not in known:
                raise UserError("data.conditions", f"must be among {', '.join(known)}", got=name, fix="see data.names")

    def expected(self) -> dict[str, Any]:
        """From the names of the training files, or from the recipe where it gives n_classes."""
        self.check_conditions()
        if self.n_classes or not self.conditions:
            values = [[str(i) for i in range(self.n_classes.get(c, 1))] for c in self.conditions]
        else:
            named = [said for path, side in self.sided() if side == TRAIN and (said := self.said(path))]
            values = [ordered({said[c] for said in named}) for c in self.conditions]
        return self.features(values, np.ones(self.levels), [])

    def features(self, values: list[list[str]], counts: NDArray[Any], durations: list[list[int]]) -> dict[str, Any]:
        """What models and tasks must know."""
        return {
            "rate": self.rate, "levels": self.levels, "context": self.context, "conditions": list(self.conditions),
            "values": values, "level_counts": [int(n) for n in counts], "durations": durations,
            "level_values": mulaw.values(self.levels).tolist(), "level_borders": mulaw.borders(self.levels).tolist(),
        }  # fmt: skip

    def clips(self, intake: Intake, progress: Progress) -> tuple[list[Clip], NDArray[np.int8]]:
        """(every clip that can be used, the side that its file is on)."""
        limits = Limits(self.rate, self.shortest, self.longest)
        found: list[Clip] = []
        sides: list[int] = []
        files = self.sided()
        for number, (path, side) in enumerate(files):
            intake.n_in += 1
            said = self.said(path)
            if said is None:
                intake.reject(path.name, "name does not match data.names", path.name)
            elif (samples := decoded(path, limits, intake)) is not None:
                found.append((path.name, self.cleaned(samples), said))
                sides.append(side)
            if number % 500 == 0:
                progress("decode", number, len(files))
        return found, np.array(sides, np.int8)

    def cleaned(self, samples: NDArray[np.float32]) -> NDArray[np.int16]:
        """Trimmed and brought to its gain, as 16-bit numbers."""
        if self.trim != "none":
            size = max(1, round(FRAME_S * self.rate))
            n = -(-len(samples) // size)
            power = np.square(np.pad(samples, (0, n * size - len(samples)))).reshape(n, size).mean(1)
            loud = np.flatnonzero(power >= power.max() * 10 ** (-float(self.trim) / 10))
            samples = samples[loud[0] * size : (loud[-1] + 1) * size]
        if self.gain == "peak":
            samples = samples * np.float32(PEAK / float(np.abs(samples).max()))
        return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Decode, split, learn the values, levels and durations of train, write 16-bit samples."""
        self.check_conditions()
        intake = Intake()
        clips, sides = self.clips(intake, progress)
        if len(clips) < 3:
            got = ", ".join(f"{n} {why}" for why, n in intake.reasons.most_common(4)) or "none"
            raise UserError("data.path", "must give at least three sounds that can be used", got=got)
        own = np.flatnonzero(sides == TRAIN)
        fields = sorted(set.intersection(*(set(said) for _, _, said in clips)))
        columns = {name: np.array([clips[i][2][name] for i in own]) for name in fields}
        classes = columns[self.conditions[0]] if self.conditions else None
        sides[own] = assign(self.split, len(own), seed, columns, classes)
        train = [clips[i] for i in np.flatnonzero(sides == TRAIN)]
        if not train:
            raise UserError("data.split", "must leave at least one training clip", got=0)
        features = self.fitted(train)
        write_json(folder / "preprocessing.json", features)
        cards, hashes, n_unknown = {}, [], 0
        for number, side in enumerate(NAMES):
            chosen = [clips[i] for i in np.flatnonzero(sides == number)]
            if not chosen:
                continue
            arrays = self.arrays(chosen, features["values"])
            n_unknown += int((arrays["conditions"] < 0).any(1).sum())
            hashes.append(write_arrays(folder, side, arrays))
            n_rows = len(Cut.of(np.diff(arrays["offsets"]), self.window).clip)
            cards[side] = SplitCard(n_samples=n_rows, n_targets=len(arrays["samples"]))
        write_rejected(folder, intake.rejected)
        unknown = (f"{n_unknown:,} clips are of a value that training does not hold.",) if n_unknown else ()
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=len(clips), rows_rejected=dict(intake.reasons),
            stations=(station,), splits=cards, features=features, warnings=(*unknown, *intake.notes),
            fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def fitted(self, train: Sequence[Clip]) -> dict[str, Any]:
        """Features from the training clips alone."""
        values = [ordered({said[c] for _, _, said in train}) for c in self.conditions]
        counts = np.zeros(self.levels)
        by_value: dict[str, list[int]] = {value: [] for value in (values[0] if values else [""])}
        for _, samples, said in train:
            counts += np.bincount(mulaw.encoded(samples / 32767.0, self.levels), minlength=self.levels)
            by_value[said[self.conditions[0]] if values else ""].append(len(samples))
        durations = [np.quantile(lengths, QUANTILES).astype(int).tolist() for lengths in by_value.values()]
        return self.features(values, counts, durations)

    def arrays(self, clips: Sequence[Clip], values: list[list[str]]) -> dict[str, NDArray[Any]]:
        """Clips end to end, what they are of, their names."""
        codes = [{value: i for i, value in enumerate(known)} for known in values]
        conditions = [
            [of.get(said[c], -1) for c, of in zip(self.conditions, codes, strict=True)] for _, _, said in clips
        ]
        return {
            "samples": np.concatenate([samples for _, samples, _ in clips]),
            "offsets": np.cumsum([0, *(len(samples) for _, samples, _ in clips)]),
            "conditions": np.array(conditions, np.int64).reshape(len(clips), len(values)),
            "names": np.frombuffer("\n".join(name for name, _, _ in clips).encode(), np.uint8),
        }

    def open(self, folder: Path, card: DataCard, split: str) -> WaveformSplit:
        """A prepared split."""
        found = {
            name: array if array.nbytes > 4 << 30 else np.asarray(array)
            for name, array in read_arrays(folder, split).items()
        }
        return WaveformSplit(found, card.features, self.window, self.gain_jitter)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> Wanted:
        """What is to be made: "7", "7, jackson", "speaker=jackson, digit=7, seconds=0.5, seed=3", or the same as a dict.
        What is not said is drawn from the seed: a duration that training held, any speaker."""
        return wanted(inputs, card.features)


def ordered(found: set[str]) -> list[str]:
    """Numbers by size, then words."""
    return sorted(found, key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0, v))
