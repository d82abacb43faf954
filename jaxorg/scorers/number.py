"""An answer is right whose last number is the reference's last number."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import Literal

from pydantic import Field

from jaxorg.errors import short
from jaxorg.scorers.base import Said, TextScorer

Mark = Literal[".", ","]

_MOST_DIGITS = 400  # of a number; a longer run of digits is none
_SIGNS = str.maketrans("−–﹣－\u00a0\u2007\u2009\u202f’٬＇⁄∕／．٫，＄", "----    '''///..,$")
# LaTeX, and what Unicode writes small, as plain signs; an exponent after `^`.
_REWRITTEN = (
    (re.compile(r"\{,\}"), r","),
    (re.compile(r"\\[,;! ]"), r" "),
    (re.compile(r"\\([$%#])"), r"\1"),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), r"×"),
    (re.compile(r"(?<=\d)\\[dt]?frac\{(\d{1,18})\}\{(\d{1,18})\}"), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\{(\d{1,18})\}\{(\d{1,18})\}"), r"\1/\2"),
    (re.compile(r"(?<=\d) ?[×x*·] ?10\^\{?([+-]?\d{1,3})\}?(?!\d)"), r"e\1"),
    (re.compile(r"(?<![\w.,'^{])10\^\{?([+-]?\d{1,3})\}?(?!\d)"), r"1e\1"),
    (re.compile(r"\^\{?[+-]?\w{1,9}\}?"), r"^"),  # of a unit (m^2), or not worked out (2^10)
)
_SMALL = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_VULGAR = re.compile(r"(?<=(\d))?[¼-¾⅐-⅞]")
# Letters of scripts in which a digit at the end of a word belongs to it: m2, CO2. Others put no
# space before a number.
_NAME = r"A-Za-z\u00c0-\u024f\u0370-\u052f_^"
_NUMBER = re.compile(
    rf"""
    (?P<minus> (?<![\w)])-[$€£¥₹]? )?
    (?<![{_NAME}\d])
    (?>
        (?<!/) (?:(?P<whole>\d{{1,9}})\ )? (?P<top>\d{{1,18}})/(?P<bottom>\d{{1,18}}) (?![\d/])
      | (?P<plain> \d+ (?:[.,']\d+ | \ \d{{3}}(?!\d))* | (?<!\w)\.\d+ )
    )
    (?: [eE](?P<exponent>[+-]?\d{{1,3}})(?!\w) )?
    (?P<power>\^)?
    """,
    re.VERBOSE,
)
_GROUPED = re.compile(r"(?!0)(\d{1,3}(?:([ ',.])\d{3})(?:\2\d{3})*)(?:(?!\2)[.,](\d+))?")
_INDIAN = re.compile(r"(?!0)(\d{1,2}(?:(,)\d{2})+,\d{3})(?:\.(\d+))?")
_DECIMAL = re.compile(r"(\d*)[.,](\d+)")
_APART = re.compile(r"[ ',.]")


class Number(TextScorer):
    """The last number in the answer is the last number in the reference, within a tolerance.

    So the `#### 72` of GSM8K (Cobbe et al. 2021) is 72. Units, currencies and percent signs are
    looked past; where `1.234` or `1,234` may be read in two ways, `decimal` says which mark begins
    the decimals.
    """

    kind: Literal["number"]
    absolute: float = Field(default=0.0, ge=0)  # how far from the reference is near enough
    relative: float = Field(default=0.0, ge=0)  # the same, as a share of the reference
    decimal: Mark = "."

    def unsuited(self, prompt: str, reference: str) -> str:
        """A reference without a number has nothing to compare."""
        if last_number(reference, self.decimal) is not None:
            return ""
        return f"the reference {short(reference)} has no number; use another scorer"

    def is_right(self, said: Said) -> bool:
        """Whether the last numbers differ by no more than the larger of the two tolerances, exactly
        computed."""
        reference = last_number(said.reference, self.decimal)
        found = last_number(said.answer, self.decimal)
        if reference is None or found is None:
            return False
        share = _as_written(self.relative) * abs(reference)
        return abs(found - reference) <= max(_as_written(self.absolute), share)


def last_number(text: str, decimal: Mark = ".") -> Fraction | None:
    """The last number in a text, exactly; None where it has none."""
    for found in reversed(list(_NUMBER.finditer(_plain(text)))):
        value = _value(found, decimal)
        if value is not None:
            return value
    return None


def _plain(text: str) -> str:
    """A text with signs, fractions and powers of ten written in one way."""
    text = text.translate(_SIGNS)
    text = _SMALL.sub(lambda found: "^" + unicodedata.normalize("NFKC", found[0]), text)
    text = text.replace("^−", "^-")
    text = _VULGAR.sub(_written_out, text)
    for pattern, plain in _REWRITTEN:
        text = pattern.sub(plain, text)
    return text


def _written_out(found: re.Match[str]) -> str:
    """A fraction that is one character; after a whole number, with a space between."""
    apart = " " if found[1] else ""
    return apart + unicodedata.normalize("NFKC", found[0]).replace("⁄", "/")


def _value(found: re.Match[str], decimal: Mark) -> Fraction | None:
    """What a match of `_NUMBER` amounts to; None for what is no number."""
    if found["power"] or len(found[0]) > _MOST_DIGITS:
        return None
    sign = -1 if found["minus"] else 1
    if found["plain"] is None:
        size = _fraction(found)
    elif (size := _decimal(found["plain"], decimal)) is None:
        sign, size = 1, Fraction(_APART.split(found["plain"])[-1])  # several numbers: 1,2,3
    return None if size is None else sign * size * Fraction(10) ** int(found["exponent"] or 0)


def _fraction(found: re.Match[str]) -> Fraction | None:
    """`3/4`, or `2 3/4`, where the fraction is less than one."""
    top, bottom = int(found["top"]), int(found["bottom"])
    if not bottom:
        return None
    return Fraction(top, bottom) + (int(found["whole"] or 0) if top < bottom else 0)


def _decimal(written: str, decimal: Mark) -> Fraction | None:
    """Digits with marks between them as one number; None if they are several."""
    if grouped := _GROUPED.fullmatch(written) or _INDIAN.fullmatch(written):
        digits, mark, decimals = grouped.groups()
        if mark != decimal or decimals or written.count(mark) > 1:
            return Fraction(f"{_APART.sub('', digits)}.{decimals or 0}")
    if simple := _DECIMAL.fullmatch(written):
        return Fraction(f"{simple[1] or 0}.{simple[2]}")
    return Fraction(written) if written.isdigit() else None


def _as_written(tolerance: float) -> Fraction:
    """A tolerance as the decimal number that was written: 0.1 is a tenth."""
    return Fraction(repr(tolerance))
