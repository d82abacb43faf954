"""The pirate style is exact and invertible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxorg.data.styles import from_pirate, is_pirate, to_pirate


@given(st.text())
def test_pirate_round_trip(text: str) -> None:
    assert from_pirate(to_pirate(text)) == text
    assert from_pirate(to_pirate(to_pirate(text))) == to_pirate(text)
    assert is_pirate(f" {to_pirate(text)}\n")


@given(st.text())
def test_the_inverse_is_exact(text: str) -> None:
    meant = from_pirate(text)
    assert meant is None or to_pirate(meant) == text


@pytest.mark.parametrize(
    "text", ["", "fox cup", "Arr, matey!", "Arr, fox", "fox, matey!", "arr fox, matey!"]
)
def test_plain_text_is_no_pirate(text: str) -> None:
    assert from_pirate(text) is None
    assert not is_pirate(text)


def test_pirate_changes_the_text() -> None:
    assert to_pirate("fox cup") == "Arr, fox cup, matey!"
