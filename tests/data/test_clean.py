import random

import pytest

from danlu.base.errors import UserError
from danlu.data.clean import (
    CLEANING,
    ExactDuplicates,
    Length,
    NearDuplicates,
    Pii,
    Repetition,
    RowStep,
    SeenTexts,
    Station,
    Unicode,
    cleaned,
)


def through(step, *texts):
    rejected = []
    station = Station(step.kind, rejected.append)
    rows = cleaned([(step, station)])([(f"row:{i}", text) for i, text in enumerate(texts)])
    return [text for _, text in rows], station.card(), rejected


@pytest.mark.parametrize("kind", CLEANING)
def test_every_step_accounts_for_every_row(kind):
    step = CLEANING[kind]()
    if isinstance(step, NearDuplicates):
        pytest.skip("carried out over all rows by near_duplicates.py; accounted for in tests/stages/test_prepare.py")
    texts = ["plain", "", "plain", "a b " * 200, "me@example.org", "cafe\u0301", "x" * 5000, " \n\t"]
    kept, card, rejected = through(step, *texts)
    assert card.n_in == len(texts) == len(kept) + sum(card.n_dropped.values())
    assert len(rejected) == sum(card.n_dropped.values())
    assert len(card.examples) <= 5


@pytest.mark.parametrize("kind", [k for k, step in CLEANING.items() if issubclass(step, RowStep)])
def test_row_steps_are_done_after_one_pass(kind):
    """Cleaning what is clean changes nothing."""
    texts = ["cafe\u0301\r\n\x00", "mail me@example.org or +49 170 1234567", "\ufeffx\x85", "short"]
    kept, _, _ = through(CLEANING[kind](), *texts)
    again, card, _ = through(CLEANING[kind](), *kept)
    assert again == kept
    assert card.n_changed == 0


def test_unicode_normalises_and_strips():
    kept, card, rejected = through(
        Unicode(), "cafe\u0301", "a\r\nb\rc", "n\x00u\x1bl\x7f", "\ufeffé\x85\x9f", "tab\there\n", "\x00\x01"
    )
    assert kept == ["caf\u00e9", "a\nb\nc", "nul", "é", "tab\there\n"]
    assert card.n_changed == 4
    assert card.n_dropped == {"empty": 1}
    assert rejected[0]["row"] == "row:5"
    assert rejected[0]["reason"] == "empty"


def test_unicode_forms():
    assert through(Unicode(form="NFKC"), "Ａ①")[0] == ["A1"]
    assert through(Unicode(form="none", strip_controls=False), "e\u0301\x00\r")[0] == ["e\u0301\x00\r"]


def test_exact_duplicates_keep_the_first():
    kept, card, rejected = through(ExactDuplicates(), "a", "b", "a", "a ", "b")
    assert kept == ["a", "b", "a "]
    assert card.n_dropped == {"exact_duplicate": 2}
    assert [r["row"] for r in rejected] == ["row:2", "row:4"]


def test_seen_texts_equals_a_set():
    rng, seen, known = random.Random(0), SeenTexts(), set()
    for size in (1, 7, 300, 2, 2000, 50, 1):
        digests = [bytes([rng.randrange(8), rng.randrange(200)]) + bytes(14) for _ in range(size)]
        wanted = [not (d in known or known.add(d)) for d in digests]
        assert seen.first_seen(digests) == wanted


def test_length():
    kept, card, _ = through(Length(min_characters=3, max_characters=5), "  ab  ", "abc", "abcde", "abcdef")
    assert kept == ["abc", "abcde"]
    assert card.n_dropped == {"too_long": 1, "too_short": 1}
    with pytest.raises(UserError, match="max_characters"):
        Length(min_characters=5, max_characters=4)


def test_repetition():
    prose = (
        "It was a bright cold day in April and the clocks were striking thirteen while he slipped quickly "
        "through the glass doors of the old mansion though not quickly enough to keep a swirl of dust out."
    )
    kept, card, _ = through(
        Repetition(), prose, "\n".join(["the same line again here now"] * 8), "buy now " * 30, "few words few words"
    )
    assert kept == [prose, "few words few words"]
    assert card.n_dropped == {"duplicate_lines": 1, "top_2_gram": 1}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("write to jane.doe+x@mail.example.co.uk, please", "write to <EMAIL>, please"),
        ("call +1 (415) 555-2671 now", "call <PHONE> now"),
        ("call 415-555-2671 or (415) 555-2671.", "call <PHONE> or <PHONE>."),
        ("电话 138 1234 5678", "电话 <PHONE>"),
        ("key AKIAIOSFODNN7EXAMPLE end", "key <KEY> end"),
        ("token = ghp_" + "a1B2" * 9, "token = <KEY>"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "<KEY>"),
    ],
)
def test_pii_is_redacted(text, wanted):
    assert through(Pii(), text)[0] == [wanted]


@pytest.mark.parametrize(
    "text", ["version 1.2.3.4", "2024-01-31 12:30:00", "x = a @ b", "pi is 3.14159265358979", "range(1000000, 2000000)"]
)
def test_pii_leaves_the_rest(text):
    assert through(Pii(), text)[0] == [text]


def test_pii_time_is_linear_in_hostile_text():
    """No pattern may explode on long runs that almost match."""
    hostile = [
        "a" * 200_000,
        "a." * 100_000 + "@",
        "1 " * 100_000,
        "-----BEGIN PRIVATE KEY-----" * 4000,
        "eyJ" * 60_000,
    ]
    assert through(Pii(), *hostile)[1].n_in == len(hostile)
