"""Amounts as a person writes them."""

import pytest

from danlu.base.units import Length, parse_bytes, parse_count, parse_length, short_count


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("500 steps", 500, "steps"),
        ("1 step", 1, "steps"),
        ("500 tokens", 500, "tokens"),
        ("2B tokens", 2e9, "tokens"),
        ("4.43e+07 tokens", 4.43e7, "tokens"),
        ("1t tokens", 1e12, "tokens"),
        ("10k samples", 10_000, "samples"),
        ("1,000 samples", 1000, "samples"),
        ("1.5 epochs", 1.5, "epochs"),
        (".5 epochs", 0.5, "epochs"),
        ("30 min", 1800, "seconds"),
        ("2 minutes", 120, "seconds"),
        ("90s", 90, "seconds"),
        ("1 H", 3600, "seconds"),
        ("2 days", 172_800, "seconds"),
    ],
)
def test_lengths(text: str, amount: float, unit: str) -> None:
    found = parse_length(text)
    assert (found.amount, found.unit) == (pytest.approx(amount), unit)
    assert parse_length(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", "5", "steps", "0 steps", "-3 steps", "3 m", "3 okens", "1e999 steps", "nan steps", "5 s s", 7, True, None],
)
def test_what_is_no_length(text: object) -> None:
    with pytest.raises(ValueError, match="must be an amount with a unit"):
        parse_length(text)


def test_a_length_keeps_every_digit() -> None:
    for amount in (1234567.0, 123456789.0, 0.1234567, 3.0):
        length = Length(amount, "tokens")
        assert parse_length(str(length)) == length


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("80 GB", 80 * 10**9), ("512 MiB", 512 * 2**20), (7, 7), ("1.5kb", 1500)]
)
def test_bytes(text: object, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(("text", "count"), [("1M", 10**6), ("1.5B", 15 * 10**8), (1000, 1000), ("12", 12)])
def test_counts(text: object, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("wrong", ["", "x", 0, -1, True, "1e400", "0 GB", "3 parsecs", 1.5])
def test_what_is_no_size(wrong: object) -> None:
    for parse in (parse_bytes, parse_count):
        with pytest.raises(ValueError, match="must be a"):
            parse(wrong)


def test_short_counts() -> None:
    assert [short_count(n) for n in (12, 1234, 1_234_567, 2.5e9, 3e12)] == ["12", "1.23k", "1.23M", "2.5B", "3T"]
