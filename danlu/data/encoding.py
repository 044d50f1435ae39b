"""Bytes to text, exactly or not at all: no character is ever replaced by a stand-in.

The rules of `encoding = "auto"`, first match wins; what no rule decodes is refused with its reason:

    byte order mark                  UTF-8, UTF-16, UTF-32 as marked (Unicode standard, section 23.8)
    NUL bytes                        UTF-16 without a mark if that gives text in one byte order, else binary
    valid UTF-8                      UTF-8
    a Python file that names a codec that codec (PEP 263)
    looks Western European           Windows-1252, a superset of printable Latin-1
"""

from __future__ import annotations

import codecs
import re
import unicodedata

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SAMPLE_BYTES = 65536
"""How much of a text the guesses look at."""
MAX_ODD_FRAC = 0.02
"""Share of accented letters in odd places up to which text passes for Windows-1252."""
MAX_ACCENT_FRAC = 0.3
"""Share of the letters that may be accented there; Western European text stays below a tenth."""

_DECLARED = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_ACCENTS = re.compile(rb"[\x80-\xff]")
_LETTERS = re.compile(rb"[A-Za-z]+")
# Where Windows-1252 text has no business: a long run (another alphabet), a sign inside a word, a capital after a
# small letter. Left out of the signs: apostrophes, soft hyphen, middle dot, ordinals, and s, z, oe, y with marks.
_ODD = re.compile(
    rb"[\x80-\xff]{3,}"
    rb"|(?<=[A-Za-z])[\x80\x82-\x87\x89\x8b\x95\x98\x99\x9b\xa1-\xa9\xab\xac\xae-\xb3\xb5\xb6\xb8\xb9\xbb-\xbf\xd7\xf7](?=[a-z])"
    rb"|(?<=[a-z])[\x8a\x8c\x8e\x9f\xc0-\xd6\xd8-\xde](?=[a-z])"
)
_CONTROLS = bytes(c for c in range(32) if c not in b"\t\n\r\f\x1b") + b"\x7f"


class UndecodableError(ValueError):
    """These bytes are no text that we can be sure of. `reason` is one of a few words, `detail` a clause."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def decode(data: bytes, encoding: str = "auto", *, is_python: bool = False) -> tuple[str, str]:
    """(text, name of the codec that gave it); a byte order mark is taken off. Raises UndecodableError."""
    codec, n_mark = marked(data)
    if encoding != "auto":
        n_mark = n_mark if codec == codecs.lookup(encoding).name else 0
        return _strict(data[n_mark:], encoding), encoding
    if codec:
        return _strict(data[n_mark:], codec), "utf-8-sig" if codec == "utf-8" else codec
    if b"\0" in data:
        codec = utf16_order(data)
        if codec:
            return _strict(data, codec), codec
    return decode_bytewise(data, is_python=is_python)


def decode_bytewise(data: bytes, *, is_python: bool = False) -> tuple[str, str]:
    """`decode` for a part of a text that is known to be neither marked nor UTF-16. Raises UndecodableError."""
    if b"\0" in data:
        raise UndecodableError("binary", f"a NUL byte at byte {data.index(0):,}")
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        codec = (declared(data) if is_python else "") or western(data)
        if not codec:
            why = f"not UTF-8 at byte {error.start:,} (0x{data[error.start]:02x}), and unlike Western European text"
            raise UndecodableError("unknown_encoding", why) from None
    return _strict(data, codec), codec


def marked(data: bytes) -> tuple[str, int]:
    """The codec that a byte order mark names, and the mark's length; ("", 0) when there is none."""
    for mark, codec in MARKS:
        if data.startswith(mark):
            return codec, len(mark)
    return "", 0


def utf16_order(data: bytes) -> str:
    """The byte order in which bytes with NULs but no mark are UTF-16 text, or "".

    ASCII characters, spaces and line ends above all, have their NUL on one side. The right order shows them as
    ASCII and the rest as assigned characters; the wrong order shows unassigned ones, such as U+0A00 for a line end.
    """
    if len(data) % 2 and len(data) <= SAMPLE_BYTES:
        return ""
    best, codec = 0, ""
    for order in ("utf-16-le", "utf-16-be"):
        try:
            text = codecs.getincrementaldecoder(order)().decode(data[:SAMPLE_BYTES])
        except UnicodeDecodeError:
            continue
        n_ascii = sum(c <= "~" for c in text)
        is_text = not any(unicodedata.category(c) in {"Cc", "Cn", "Co"} and c not in "\t\n\r\f" for c in set(text))
        if is_text and n_ascii > best:
            best, codec = n_ascii, order
    return codec


def declared(data: bytes) -> str:
    """The codec that the first two lines of a Python file name (PEP 263), or ""."""
    for line in data.split(b"\n", 2)[:2]:
        found = _DECLARED.match(line)
        if found:
            name = found[1].decode("ascii")
            return name if is_codec(name) else ""
    return ""


def western(data: bytes) -> str:
    """ "cp1252" if the bytes read as Western European text, else "".

    Accents there are single letters inside words and a small share of all letters. Other alphabets and the
    two-byte encodings of East Asia come in long runs; Central European ones put signs inside words.
    """
    sample = data[:SAMPLE_BYTES]
    n_accents = len(_ACCENTS.findall(sample))
    if not n_accents:  # they come later: look where the first one is
        first = _ACCENTS.search(data)
        start = max(0, first.start() - SAMPLE_BYTES // 2) if first else 0
        sample = data[start : start + SAMPLE_BYTES]
        n_accents = len(_ACCENTS.findall(sample))
    n_letters = n_accents + sum(map(len, _LETTERS.findall(sample)))
    n_odd = sum(len(run) for run in _ODD.findall(sample))
    has_controls = len(sample.translate(None, _CONTROLS)) != len(sample)
    if has_controls or n_accents > MAX_ACCENT_FRAC * n_letters or n_odd > MAX_ODD_FRAC * n_accents:
        return ""
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return "cp1252"


def is_codec(name: str) -> bool:
    """Whether Python knows the name as a codec from bytes to text."""
    try:
        return isinstance(b"a".decode(name), str)
    except UnicodeDecodeError:  # such as utf-16, which takes two bytes
        return True
    except (LookupError, ValueError):
        return False


def _strict(data: bytes, codec: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        raise UndecodableError(f"not_{codec.replace('-', '_')}", f"{error.reason} at byte {error.start:,}") from None
