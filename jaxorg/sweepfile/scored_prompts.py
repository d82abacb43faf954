"""Prompts together with what says which answers to them are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from jaxorg.config import later
from jaxorg.data.prompts import Prompts
from jaxorg.scorers import PIECES, Scorer

if TYPE_CHECKING:
    AnyScorer = Scorer
else:
    AnyScorer = Annotated[Union[(*PIECES.usable.values(),)], Field(discriminator="kind")]


class ScoredPrompts(Prompts):
    """Prompts, and the scorer that judges answers to them; without one, an answer is right that is
    the source's own, word for word, by teacher forcing. The scorer is in no name of weights."""

    scorer: AnyScorer | None = later(None)
