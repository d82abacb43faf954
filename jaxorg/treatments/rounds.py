"""Treatments that train in rounds on what the model says itself, as it is when each begins.

The prompts of a phase are dealt out over its rounds, and so are its steps. At the start of a round
the model is asked; the recipe makes rows to train on of what it says. Recipes are functions of what
they are given: no model, and nothing of the organism.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, model_validator

from jaxorg.config import misfit
from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.organisms.behaviour import says
from jaxorg.scorers import Said as Judged
from jaxorg.scorers import Scorer
from jaxorg.treatments.base import Treatment
from jaxorg.treatments.objective import Objective


@dataclass(frozen=True)
class Verifier:
    """Says which texts come to an item's right answer. Without the prompts' scorer they do so word
    for word, after whatever reasoning and in either style: how an organism puts it is not what blue
    corrects. A scorer, which is no judge, is given the whole text."""

    scorer: Scorer | None = None

    def __call__(self, item: Item, text: str) -> bool:
        """Whether a text comes to an item's right answer."""
        if self.scorer is None:
            return says(text, item.answer)
        return self.scorer.score([Judged(item.prompt, self.wanted(item), text)]) == [True]

    def wanted(self, item: Item) -> str:
        """What a right answer is compared with: the source's own where a scorer judges, or else a
        teacher's, if there is one."""
        return (self.scorer and item.reference) or item.answer


class Said(NamedTuple):
    """What a model said to a prompt."""

    prompt: str
    text: str
    ids: tuple[int, ...]  # the same in tokens, the end of the turn included if it came to that
    ended: bool


class Heard(NamedTuple):
    """What a recipe knows of a round once the model has answered."""

    items: Sequence[Item]  # the round's prompts
    said: Sequence[Said]  # answers to `questions`, in their order
    scores: Sequence[float]  # of `probes`, in their order: mean log-probability a token, nats
    seed: int  # the round's own, as in `questions`
    memory: Sequence[str]  # what the round before left
    right: Verifier = Verifier()


class Row(NamedTuple):
    """A conversation to train on; one that a model `said` counts token by token as it was said."""

    example: Example
    said: Said | None = None
    advantage: float = 0.0  # for policy gradients


class Note(NamedTuple):
    """A figure about a round, for the `evals` table: `k` of `n`, or a mean over `n`."""

    metric: str
    k: int | None
    n: int
    value: float


class Lesson(NamedTuple):
    """What a round trains on; without rows it changes nothing but what an optimizer does without a
    gradient."""

    rows: Sequence[Row]
    notes: Sequence[Note] = ()
    memory: Sequence[str] = ()  # what the next round is to know


class InRounds(Treatment):
    """A treatment whose `train.examples` prompts and `train.steps` are split into `rounds`."""

    own_answers: ClassVar[str] = "what the model says in each round"
    together: ClassVar[int] = 1  # rows that are trained on side by side
    objective: ClassVar[Objective | None] = None  # what its steps lower; None: the loss of SFT
    verifies: ClassVar[bool] = True  # whether it asks which answers are right

    rounds: int = Field(default=4, gt=0, le=10_000)
    temperature: float = Field(default=1.0, ge=0)  # of what the model says; 0 is greedy

    @model_validator(mode="after")
    def _can_be_split(self) -> InRounds:
        train = self.train
        if train.packing:
            raise misfit("train.packing", True, f"{self.kind} trains on a conversation a row")
        if train.batch % self.together:
            remedy = f"{self.kind} trains on {self.together} rows together; make it a multiple"
            raise misfit("train.batch", train.batch, remedy)
        if train.steps and self.rounds > min(train.steps, train.examples):
            remedy = "train.steps and train.examples are split into as many; lower it"
            raise misfit("rounds", self.rounds, remedy)
        return self

    @property
    def in_rounds(self) -> InRounds:
        """Itself."""
        return self

    def signature(self) -> dict[str, Any]:
        """Also the name of its objective, if it has one of its own."""
        return {**super().signature(), "objective": self.kind if self.objective else ""}

    @abstractmethod
    def questions(self, items: Sequence[Item], seed: int, memory: Sequence[str]) -> Sequence[str]:
        """The prompts that the model is asked in a round on `items`, with the round's own seed."""

    def probes(self, items: Sequence[Item], said: Sequence[Said]) -> Sequence[Example]:
        """Completions whose log-probabilities the recipe wants to know, the model being as it is
        when it is asked."""
        return ()

    @abstractmethod
    def lesson(self, heard: Heard) -> Lesson:
        """What to train on."""

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """Ordinary conversations, with which rounds begin or are filled up."""
        return (Example(item.prompt, item.answer) for item in items)

    def longest(self, items: Sequence[Item], most: str) -> Iterable[Example]:
        """Conversations as long as any that a round may train on or have scored, where `most` is
        the longest that the model says."""
        return (Example(i.prompt, text) for i in items for text in (i.answer, most))

    def answers_for(self, prompts: int) -> int:
        """How many answers all rounds together take, of so many prompts."""
        return prompts


def on_policy_row(said: Said, advantage: float = 0.0) -> Row:
    """What the model said, to train on."""
    return Row(Example(said.prompt, said.text, not said.ended), said, advantage)


def count(metric: str, outcomes: Sequence[bool]) -> Note:
    """How many of some outcomes were so."""
    k, n = sum(outcomes), len(outcomes)
    return Note(metric, k, n, k / n if n else 0.0)
