"""Sounds, each with a class or a transcript: decoded once, kept as 16-bit samples, made into frames batch by batch.

features: rate, n_bins, hop (seconds), and classes, class_counts or units (characters or words), unit ("characters" or
          "words"), frames_per_unit (the fewest in any sound, under the fastest augmentation)
tensors:  see data/audio_split.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, read_json, write_json
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.audio_augment import AudioAugment
from danlu.data.audio_features import Spectrum
from danlu.data.audio_list import Clip, Naming, clips_at
from danlu.data.audio_read import ENDINGS, Limits, Samples, as_samples, decoded, soundfile
from danlu.data.audio_split import AudioSplit, Form, Scale, listed, measured, packed
from danlu.data.sample_splits import (
    NAMES,
    SPLIT_FOLDERS,
    TEST,
    TRAIN,
    VALIDATION,
    GivenFiles,
    RandomSplit,
    SampleSplitSetting,
    assign,
)  # fmt: skip
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.table_read import Intake
from danlu.data.transcripts import Unit, n_needed, plain, spelt

MOST_RATE = 16_000
"""The highest rate that "auto" chooses; speech and most sounds lose nothing that matters."""


class Audio(SampleSource):
    """Sounds in class folders, named by a pattern, or listed in a table with labels or transcripts."""

    kind: Literal["audio"] = "audio"
    """Sound files."""
    path: str
    """A folder, a glob, or a CSV, TSV, JSONL or Parquet of paths with labels or transcripts. In folders the label of a
    sound is the folder it lies in."""
    names: str = ""
    """Regular expression that a file's name (without its ending) must match, with a group named as data.label or
    data.text, and others to split by: "(?P<label>[0-9])_(?P<speaker>.+)_[0-9]+"."""
    file: str = "path"
    """In a table: the column of paths, relative to the table."""
    label: str = "label"
    """The column, or the group of `names`, that gives the class."""
    text: str = "text"
    """The column, or the group of `names`, that gives the transcript; where it is there, it counts and not the class."""
    columns: tuple[str, ...] = ()
    """Column names of a table without a header line."""
    spoken: dict[str, str] = Field(default_factory=dict)
    """What a transcript stands for when it is one of these: { 7 = "seven" }."""
    unit: Unit = "characters"
    """What a transcript is spelt in."""
    alphabet: str = ""
    """The characters of the transcripts, when they are to be fixed; empty: those of the training transcripts."""
    plain_text: bool = True
    """Transcripts in lower case, of letters, digits, apostrophes and single spaces alone."""
    n_classes: Annotated[int, Field(ge=2)] | None = None
    """Classes, for danlu check when the data are not at hand."""
    rate: Annotated[int, Field(ge=1000, le=192_000)] | Literal["auto"] = "auto"
    """Samples a second that every sound comes to. auto: the commonest of the files, at most 16,000."""
    shortest: Annotated[float, Field(ge=0)] = 0.05
    """Shorter sounds are left out. Seconds."""
    longest: Annotated[float, Field(gt=0, le=3600)] = 40.0
    """Longer sounds are left out, before they are decoded. Seconds."""
    frames_per_unit: Annotated[float, Field(ge=1)] = 2.0
    """A sound with fewer frames for each unit of its transcript is left out: such a transcript belongs elsewhere."""
    spectrum: Spectrum = Spectrum()
    """How sound becomes frames."""
    augment: AudioAugment = AudioAugment()
    """Changes of training sounds, a pure function of (seed, epoch, sound)."""
    split: SampleSplitSetting = RandomSplit()
    """How sounds become train, validation and test. Folders and columns that say so are kept; of `given` files, those
    for test and validation are left out of data.path."""

    extra: ClassVar[str] = "audio"

    @property
    def naming(self) -> Naming:
        """How a listing is read."""
        return Naming(self.names, self.file, self.label, self.text, self.columns)

    def files(self) -> list[Path]:
        """The source files; of a large folder its folders stand for them."""
        held = [p for p in (self.split.validation, self.split.test) if p] if isinstance(self.split, GivenFiles) else []
        found = [file for path in (self.path, *held) for file in source_files(path, ())]
        return found if len(found) < 2000 else sorted({p.parent for p in found})

    def clips(self, intake: Intake) -> tuple[list[Clip], NDArray[np.int8]]:
        """(every sound that is listed, the part that its file or folder gives it, or -1)."""
        split = self.split
        held: list[tuple[int, list[Clip]]] = []
        if isinstance(split, GivenFiles):
            named = ((VALIDATION, split.validation), (TEST, split.test))
            held = [(side, clips_at(path, self.naming, intake)) for side, path in named if path]
        apart = {clip.path.resolve() for _, clips in held for clip in clips}
        own = clips_at(self.path, self.naming, intake)
        kept = [clip for clip in own if clip.path.resolve() not in apart]
        intake.n_in -= len(own) - len(kept)  # counted where they are held
        clips, sides = list(kept), [SPLIT_FOLDERS.get(clip.side, -1) for clip in kept]
        for side, more in held:
            clips += more
            sides += [side] * len(more)
        return clips, np.array(sides, np.int8)

    def said(self, clip: Clip) -> str:
        """A clip's transcript, as it is scored; empty where there is none."""
        return plain(self.spoken.get(clip.text, clip.text), self.plain_text)

    def units(self, texts: Sequence[str]) -> list[str]:
        """All units of the training transcripts, in order."""
        return list(self.alphabet) or sorted({unit for text in texts for unit in spelt(text, self.unit)})

    def expected(self) -> dict[str, Any]:
        """From the recipe where it says enough, else from a list of the files."""
        known = isinstance(self.rate, int) and (self.alphabet or self.n_classes)
        clips = [] if known else self.clips(Intake())[0]
        rate = self.rate if isinstance(self.rate, int) else self.rate_of(clips)
        self.spectrum.check(rate)
        found: dict[str, Any] = {"rate": rate, "n_bins": self.spectrum.n_bins(rate), "hop": self.spectrum.hop}
        texts = [text for clip in clips if (text := self.said(clip))]
        if texts or self.alphabet:
            return found | {"units": self.units(texts), "unit": self.unit, "frames_per_unit": self.frames_per_unit}
        return found | {"classes": in_order({c.label for c in clips} or set(map(str, range(self.n_classes or 0))))}

    def rate_of(self, clips: Sequence[Clip]) -> int:
        """The commonest rate of up to fifty files."""
        library, rates = soundfile(), Counter[int]()
        for clip in clips[:: max(1, len(clips) // 50)]:
            try:
                rates[int(library.info(str(clip.path)).samplerate)] += 1
            except (library.LibsndfileError, OSError, RuntimeError):
                continue  # prepare says so, by name
        return max(1000, min(MOST_RATE, rates.most_common(1)[0][0])) if rates else MOST_RATE

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """List, decode, split, learn classes or units of train, measure its frames, write."""
        intake = Intake()
        clips, given = self.clips(intake)
        rate = self.rate if isinstance(self.rate, int) else self.rate_of(clips)
        self.spectrum.check(rate)
        kept, sounds = self.heard(clips, rate, intake, progress)
        if len(kept) < 3:
            got = ", ".join(f"{n} {why}" for why, n in intake.reasons.most_common(4)) or "none"
            raise UserError("data.path", "must give at least three sounds that can be used", got=got)
        clips = [clips[i] for i in kept]
        sides = self.sides(clips, given[kept], seed)
        train = [clips[i] for i in np.flatnonzero(sides == TRAIN)]
        features = {"rate": rate, "n_bins": self.spectrum.n_bins(rate), "hop": self.spectrum.hop}
        features |= self.learned(train, clips, sounds, rate)
        form, cards, hashes = Form(rate, self.spectrum, self.augment), {}, []
        scale: Scale | None = None
        for number, side in enumerate(NAMES):
            rows = np.flatnonzero(sides == number)
            if not len(rows):
                continue
            arrays = packed([sounds[i] for i in rows]) | self.targets([clips[i] for i in rows], features)
            names = [clips[i].place for i in rows]
            if number == TRAIN:
                scale = measured(AudioSplit(arrays, names, form, None))
            arrays["names"] = np.frombuffer("\n".join(names).encode("utf-8", "replace"), np.uint8)
            hashes.append(write_arrays(folder, side, arrays))
            asked = arrays["targets"] if "targets" in arrays else arrays["units"]
            cards[side] = SplitCard(n_samples=len(rows), n_targets=int((asked >= 0).sum()))
        if scale is None:
            raise UserError("data.split", "must leave sounds for training", got="none")
        write_json(folder / "preprocessing.json", features | {"mean": scale.mean.tolist(), "std": scale.std.tolist()})
        return self.finish(folder, intake, len(clips), cards, features, hashes)

    def heard(
        self, clips: Sequence[Clip], rate: int, intake: Intake, progress: Progress
    ) -> tuple[list[int], list[Samples]]:
        """(which clips can be used, their samples); the others are rejected by name and reason."""
        limits, kept, sounds = Limits(rate, self.shortest, self.longest), [], []
        for_text = any(clip.text for clip in clips)
        for number, clip in enumerate(clips):
            if number % 200 == 0:
                progress("decode", number, len(clips))
            if not (self.said(clip) if for_text else clip.label):
                intake.reject(clip.place, "no transcript" if for_text else "no label", clip.text or clip.label)
                continue
            sound = decoded(clip.path, limits, intake, clip.place)
            if sound is None:
                continue
            if for_text and (ratio := self.ratio(clip, len(sound), rate)) < self.frames_per_unit:
                intake.reject(clip.place, "more text than sound", f"{ratio:.2f} frames a unit: {clip.text}")
                continue
            kept.append(number)
            sounds.append(sound)
        return kept, sounds

    def ratio(self, clip: Clip, n_samples: int, rate: int) -> float:
        """Frames for each unit of a transcript."""
        needed = n_needed(spelt(self.said(clip), self.unit))
        return float(self.spectrum.n_frames(np.array([n_samples]), rate)[0]) / max(1, needed)

    def sides(self, clips: Sequence[Clip], given: NDArray[np.int8], seed: int) -> NDArray[np.int8]:
        """Where each sound goes: as its file or folder says; what has no test or validation part gives a share."""
        labels, split = given.copy(), self.split
        rest = np.flatnonzero(labels <= TRAIN)
        if isinstance(split, RandomSplit):
            shares = {"test": TEST, "validation": VALIDATION}
            split = split.model_copy(update={name: 0.0 for name, side in shares.items() if side in given})
        columns = {
            name: np.array([clips[i].groups.get(name, "") for i in rest.tolist()])
            for name in (clips[0].groups if clips else ())
        }
        texts = [clips[i].label or self.said(clips[i]) for i in rest.tolist()]
        few = len(set(texts)) * 2 <= len(texts)
        labels[rest] = assign(split, len(rest), seed, columns, np.array(texts) if few else None)
        return labels

    def learned(
        self, train: Sequence[Clip], clips: Sequence[Clip], sounds: Sequence[Samples], rate: int
    ) -> dict[str, Any]:
        """Classes, or the units of transcripts, from the training sounds."""
        if not any(clip.text for clip in clips):
            counts = Counter(clip.label for clip in train)
            classes = in_order(set(counts))
            return {"classes": classes, "class_counts": [counts[c] for c in classes]}
        units = self.units([self.said(clip) for clip in train])
        fewest = min(self.ratio(c, len(s), rate) for c, s in zip(clips, sounds, strict=True))
        return {"units": units, "unit": self.unit, "frames_per_unit": fewest / (1 + self.augment.speed)}

    def targets(self, clips: Sequence[Clip], features: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Class numbers (N,); or units, of which those that training never had are left out, with the whole text."""
        if "classes" in features:
            codes = {label: i for i, label in enumerate(features["classes"])}
            return {"targets": np.array([codes.get(clip.label, -1) for clip in clips], np.int64)}
        codes = {unit: i for i, unit in enumerate(features["units"])}
        texts = [self.said(clip) for clip in clips]
        units = [[codes[u] for u in spelt(text, self.unit) if u in codes] for text in texts]
        return listed(units, "units") | listed([[ord(c) for c in text] for text in texts], "text")

    def finish(
        self, folder: Path, intake: Intake, n_used: int, cards: dict[str, SplitCard], features: dict[str, Any],
        hashes: list[str],
    ) -> DataCard:  # fmt: skip
        """rejected.jsonl, then the card."""
        write_rejected(folder, intake.rejected)
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=n_used, rows_rejected=dict(intake.reasons),
            stations=(station,), splits=cards, features=features, warnings=tuple(intake.notes),
            fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def form(self, card: DataCard) -> Form:
        """How sound becomes frames."""
        return Form(int(card.features["rate"]), self.spectrum, self.augment)

    def scale(self, folder: Path) -> Scale:
        """What the training frames had."""
        fitted = read_json(folder / "preprocessing.json")
        return Scale(np.array(fitted["mean"], np.float32), np.array(fitted["std"], np.float32))

    def open(self, folder: Path, card: DataCard, split: str) -> AudioSplit:
        """A prepared split; samples stay on the disk when there are many."""
        found = read_arrays(folder, split)
        arrays = {name: array if array.nbytes > 1 << 30 else np.asarray(array) for name, array in found.items()}
        return AudioSplit(arrays, found["names"].tobytes().decode().split("\n"), self.form(card), self.scale(folder))

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> AudioSplit:
        """Paths of sounds or folders, arrays of samples at the data's rate, or (samples, rate)."""
        limits = Limits(int(card.features["rate"]), 0.0, self.longest)
        sounds, names, intake = [], [], Intake()
        for number, given in enumerate(inputs):
            if not isinstance(given, str | Path):
                sounds.append(as_samples(given, limits))
                names.append(f"input {number}")
                continue
            for path in source_files(str(given), ENDINGS):
                sound = decoded(path, limits, intake)
                if sound is None:
                    why = intake.rejected[-1]
                    raise UserError(str(path), f"cannot be used: {why['reason']}", got=why["text"])
                sounds.append(sound)
                names.append(path.name)
        n = len(sounds)
        nothing: dict[str, NDArray[Any]] = {"targets": np.full(n, -1, np.int64)}
        if "units" in card.features:
            nothing = listed([[]] * n, "units") | listed([[]] * n, "text")
        return AudioSplit(packed(sounds) | nothing, names, self.form(card), self.scale(folder))


def in_order(labels: set[str]) -> list[str]:
    """Numbers by size, before words by spelling."""
    return sorted(labels, key=lambda v: (not v.isdecimal(), int(v) if v.isdecimal() else 0, v))
