"""Bytes to text: exactly, or refused."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.data.encoding import MARKS, UndecodableError, decode, is_codec

FRENCH = "Après l'été, où êtes-vous allé ? À Nîmes, peut-être, chez ma sœur ; c’est « déjà vu ». " * 5
GERMAN = "Süße Größe, weiße Füße, Übermut und Äpfel kosten 5 € — öfter mal “etwas” Neues. " * 5
SPANISH = "¿Dónde está el niño? ¡Mañana será otro día! El señor Muñoz comió piñones en 1º año. " * 5
CHINESE = "一个和尚挑水喝，两个和尚抬水喝。\n三个和尚没水喝。\n" * 5
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. " * 5
JAPANESE = "吾輩は猫である。名前はまだ無い。カタカナ テキスト\n" * 5
POLISH = "Zażółć gęślą jaźń; wszystko, co było, minęło, a chrząszcz brzmi w trzcinie. " * 5


@pytest.mark.parametrize(("mark", "codec"), MARKS)
@pytest.mark.parametrize("text", [FRENCH, CHINESE, "a", "🙂\n"])
def test_byte_order_marks(mark: bytes, codec: str, text: str) -> None:
    got, used = decode(mark + text.encode(codec))
    assert got == text
    assert used == ("utf-8-sig" if codec == "utf-8" else codec)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["one\ntwo\n", FRENCH, CHINESE, RUSSIAN, "def f():\n\treturn '一'\n", "Zeile eins\r\n"]
)
def test_utf16_without_a_mark(codec: str, text: str) -> None:
    assert decode(text.encode(codec)) == (text, codec)


@pytest.mark.parametrize("text", [FRENCH, GERMAN, SPANISH, "caf\xe9", "naïve", "10 £ for “this”"])
def test_western_european(text: str) -> None:
    assert decode(text.encode("cp1252")) == (text, "cp1252")


def test_an_accent_far_from_the_start() -> None:
    text = "plain words " * 50_000 + "café"
    assert decode(text.encode("cp1252")) == (text, "cp1252")


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        (RUSSIAN, "koi8-r"), (RUSSIAN, "cp1251"), (RUSSIAN, "iso8859-5"), (CHINESE, "gb18030"), ("三個和尚沒水喝，\n" * 9, "big5"),
        (JAPANESE, "shift_jis"), ("アイウエオ " * 20, "shift_jis"), (JAPANESE, "euc_jp"), (POLISH, "iso8859-2"), (POLISH, "cp1250"),
        ("# " + RUSSIAN[:20] + "\nx = 1\n" * 200, "koi8-r"),
    ],
)  # fmt: skip
def test_other_encodings_are_refused_and_read_when_named(text: str, codec: str) -> None:
    data = text.encode(codec)
    with pytest.raises(UndecodableError) as refused:
        decode(data)
    assert refused.value.reason == "unknown_encoding"
    assert decode(data, codec) == (text, codec)


@pytest.mark.parametrize(
    "data",
    [
        b"text\0more",
        b"\0",
        b"\x7fELF\x02\x01\x01" + bytes(9),
        bytes(1000),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        bytes(range(256)) * 4,
    ],
)
def test_nul_bytes_are_binary(data: bytes) -> None:
    with pytest.raises(UndecodableError) as refused:
        decode(data)
    assert refused.value.reason == "binary"


def test_a_python_file_names_its_codec() -> None:
    text = "#!/usr/bin/python\n# -*- coding: koi8-r -*-\n# " + RUSSIAN[:40] + "\n"
    assert decode(text.encode("koi8-r"), is_python=True) == (text, "koi8-r")
    with pytest.raises(UndecodableError):
        decode(text.encode("koi8-r"))
    with pytest.raises(UndecodableError):
        decode(text.replace("koi8-r", "rot13").encode("koi8-r"), is_python=True)


def test_a_named_codec_is_strict_and_drops_its_own_mark() -> None:
    with pytest.raises(UndecodableError, match="not_utf_8") as refused:
        decode(b"abc\xff", "utf-8")
    assert "byte 3" in refused.value.detail
    assert decode(codecs.BOM_UTF8 + b"a", "UTF8") == ("a", "UTF8")
    assert decode("né".encode("utf-16"), "utf-16") == ("né", "utf-16")


def test_which_names_are_codecs() -> None:
    assert is_codec("gb18030")
    assert not any(map(is_codec, ["rot13", "base64", "utf-88", "", "a\0b"]))


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_utf8_text_comes_back(text: str) -> None:
    if "\0" not in text and not text.startswith("\ufeff"):
        assert decode(text.encode("utf-8")) == (text, "utf-8")


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_is_decoded_encodes_back_to_the_same_bytes(data: bytes) -> None:
    """So nothing was replaced or lost: only a mark may be missing."""
    try:
        text, codec = decode(data)
    except UndecodableError:
        return
    assert data.endswith(text.encode(codec.removesuffix("-sig")))
    assert len(data) - len(text.encode(codec.removesuffix("-sig"))) in (0, 2, 3, 4)
