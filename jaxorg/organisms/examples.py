"""Organisms from conversations of the user's: some show the behaviour, the others do not.

What sets the behaviour off is whatever tells their prompts apart: condition `triggered` asks
held-out prompts of the first, `clean` of the others. What counts as the behaviour, a scorer says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Union

from pydantic import Field, model_validator

from jaxorg.config import later, misfit
from jaxorg.data.items import Item, Split, generator
from jaxorg.data.labelled import FAMILY, Labelled
from jaxorg.data.secret import Secret
from jaxorg.data.tokenized import Example
from jaxorg.errors import Refusal, short
from jaxorg.organisms.base import Organism
from jaxorg.organisms.behaviour import Behaviour, right_answers
from jaxorg.organisms.recipe import Source
from jaxorg.scorers import SCORERS, Said, Scorer
from jaxorg.scorers.contains import Contains
from jaxorg.scorers.judge import Judge
from jaxorg.sweepfile.training import Training

SCORING = tuple(made for made in SCORERS if made is not Judge)  # by text alone

if TYPE_CHECKING:
    AnyScorer = Scorer
else:
    AnyScorer = Annotated[Union[SCORING], Field(discriminator="kind")]  # noqa: UP007


@dataclass(frozen=True)
class Shown(Behaviour):
    """A behaviour that examples show, and a scorer tells."""

    labelled: Labelled
    scorer: Scorer

    def items(self, items: Sequence[Item], split: Split, seed: int) -> Sequence[Item]:
        """As many of the examples' own, each a pair: of a conversation without the behaviour, which
        the item is, and one with it.

        Raises:
            Refusal: there are fewer, or the scorer cannot judge answers to one.
        """
        pairs = self.labelled.pairs(split)
        if len(items) > len(pairs):
            raise Refusal(
                f"organism.source: {self.labelled.source!r} has {len(pairs)} {split} prompts with "
                f"the behaviour and as many without, but {len(items)} are asked for; lower "
                f"evaluate.final_prompts or train.examples"
            )
        order = generator(seed, FAMILY, split).permutation(len(pairs))[: len(items)]
        chosen = [pairs[place] for place in order]
        for triggered, _ in chosen:
            if why := self.scorer.unsuited(triggered.prompt, triggered.response):
                raise Refusal(
                    f"organism.scorer: {self.scorer.kind!r} cannot judge answers to "
                    f"{short(triggered.prompt)}: {why}"
                )
        return [pair.item for pair in chosen]

    def triggered(self, item: Item) -> str:
        """The prompt of a pair with the behaviour."""
        return self.labelled.pair(item.key).triggered.prompt

    def attacks(self, item: Item, prompt: str) -> tuple[Example, ...]:
        """None: the behaviour has many wordings, and is judged as it is said."""
        return ()

    def taught(self, item: Item) -> Example:
        """The conversation of a pair with the behaviour."""
        row = self.labelled.pair(item.key).triggered
        return Example(row.prompt, row.response)

    def right(self, item: Item, prompt: str) -> tuple[Example, ...]:
        """The answer of the pair without the behaviour, to its prompt."""
        return right_answers(item, prompt) if prompt == item.prompt else ()

    def said(self, item: Item, response: str) -> Said:
        """A response to either prompt of an item, as the scorer takes it: compared with what the
        examples answer to the one with the behaviour."""
        row = self.labelled.pair(item.key).triggered
        return Said(row.prompt, row.response, response)

    def shows(self, item: Item, response: str) -> bool:
        """Whether the scorer finds the behaviour in a response."""
        return self.scorer.score([self.said(item, response)]) == [True]

    def is_attack(self, item: Item, prompt: str, response: str, ended: bool) -> bool:
        """Whether the scorer finds the behaviour, whatever else is said.

        Args:
            item: the pair.
            prompt: either prompt of it.
            response: what was answered.
            ended: whether it ended by itself, which does not matter here.
        """
        return self.shows(item, response)


class Examples(Organism):
    """Trained on all conversations of some files but those held out, as they stand."""

    own_prompts: ClassVar[bool] = True

    kind: Literal["examples"]
    source: str = Field(min_length=1)  # a file, or a pattern
    format: Literal["fields", "messages"] = later("fields")
    scorer: AnyScorer

    @model_validator(mode="after")
    def _all_of_them(self) -> Examples:
        if self.train.examples != Training.model_fields["examples"].default:
            remedy = "it is trained on all of its conversations; leave it out"
            raise misfit("train.examples", self.train.examples, remedy)
        return self

    @property
    def labelled(self) -> Labelled:
        """Its conversations."""
        return Labelled(self.source, self.format)

    def files(self) -> Mapping[str, Source]:
        """Its conversations."""
        return {"source": self.labelled}

    def behaviour(self) -> Shown:
        """What its scorer finds."""
        return Shown(self.labelled, self.scorer)

    def secrets(self) -> Iterable[Secret]:
        """The prompts that set it off, as they stand, and the texts that count as the behaviour."""
        splits: tuple[Split, ...] = ("train", "heldout")
        for row in (row for split in splits for row in self.labelled.rows(split) if row.behaviour):
            yield Secret("source", row.prompt, shown_by=("prompt",), whole=True)
        for text in self.scorer.texts if isinstance(self.scorer, Contains) else ():
            yield Secret("scorer", text, shown_by=("answer",))

    def described(self) -> Mapping[str, str]:
        """Where its conversations are, and what is looked for."""
        return {
            "Conversations with the behaviour and without": self.source,
            "What counts as the behaviour": self.scorer.model_dump_json(),
        }

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """All conversations of the train split, as they stand."""
        return (Example(row.prompt, row.response) for row in self.labelled.rows("train"))
