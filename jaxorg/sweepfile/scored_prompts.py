"""Prompts together with what says which answers to them are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, model_validator

from jaxorg.config import later
from jaxorg.data.prompts import NATURAL, Prompts
from jaxorg.scorers import PIECES, Scorer

if TYPE_CHECKING:
    AnyScorer = Scorer
else:
    AnyScorer = Annotated[Union[(*PIECES.usable.values(),)], Field(discriminator="kind")]


class ScoredPrompts(Prompts):
    """Prompts, and the scorer that judges answers to them; without one, an answer is right that is
    the source's own, word for word, by teacher forcing; of natural instructions, one that holds the
    reference. The scorer is in no name of weights but of treatments that ask it while they
    train."""

    scorer: AnyScorer | None = later(None)

    @model_validator(mode="before")
    @classmethod
    def _natural_ones_are_scored(cls, content: Any) -> Any:
        if not (isinstance(content, Mapping) and content.get("source") == NATURAL):
            return content
        return {"scorer": {"kind": "contains"}, **content}
