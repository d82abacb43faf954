"""Nothing that is trained on or measured changes without a new VERSION."""

from __future__ import annotations

import pytest
from recipes import Made, everything, read, unraised


@pytest.fixture(scope="module")
def found() -> dict[str, Made]:
    return dict(everything())


def test_a_recipe_whose_examples_change_without_a_new_version_is_noticed(
    found: dict[str, Made],
) -> None:
    changed = unraised(found, read())
    assert not changed, f"raise VERSION, then run python tests/recipes.py: {', '.join(changed)}"


def test_what_is_known_of_recipes_is_up_to_date(found: dict[str, Made]) -> None:
    assert found == read(), "run python tests/recipes.py"


def test_only_what_changed_under_its_old_version_wants_a_new_one() -> None:
    known = {"same": Made(1, "a"), "raised": Made(1, "a"), "left": Made(1, "a")}
    now = {"same": Made(1, "a"), "raised": Made(2, "b"), "left": Made(1, "b"), "new": Made(1, "c")}
    assert unraised(now, known) == ["left"]
