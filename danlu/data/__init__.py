"""SHELF: what we learn from. One kind of data a file; its settings, and how it is read.

text.py       settings of text data, `read`: documents one at a time    survey.py   a look at data without reading it
files.py      which files a path means      streams.py   bounded reading     rows.py   a file's rows, each accounted
encoding.py   bytes to text, exactly or not at all      catalog.py  data sets by name      hub.py
clean.py      cleaning steps      split.py   train, validation, test    tokenizer.py   text to token ids
shards.py     token files         loader.py  any batch by its step      order.py    which sample comes when

samples.py    what every kind but running text shares    arrays.py   prepared arrays on disk    given.py   from Python
"""

from __future__ import annotations

from danlu.base.settings import Settings
from danlu.data.audio import Audio
from danlu.data.boxes import Boxes
from danlu.data.chat import Chat
from danlu.data.given import Arrays
from danlu.data.image import Image
from danlu.data.pairs import Pairs
from danlu.data.protein import Proteins
from danlu.data.sentences import Sentences
from danlu.data.series import Series
from danlu.data.structure import Structure
from danlu.data.table import Table
from danlu.data.tagged import Tagged
from danlu.data.text import Text
from danlu.data.waveform import Waveform

SOURCES: dict[str, type[Settings]] = {
    "text": Text,
    "arrays": Arrays,
    "chat": Chat,
    "table": Table,
    "image": Image,
    "boxes": Boxes,
    "series": Series,
    "sentences": Sentences,
    "protein": Proteins,
    "tagged": Tagged,
    "waveform": Waveform,
    "audio": Audio,
    "structure": Structure,
    "pairs": Pairs,
}
"""kind -> settings of a kind of data."""

__all__ = ["SOURCES", "Text"]
