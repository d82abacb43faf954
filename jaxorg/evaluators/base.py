"""What evaluators share: when they measure, what they see, and what they yield."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from jaxorg.config import Config, misfit
from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.experiments.audit import Audit
from jaxorg.organisms.behaviour import Behaviour, Put, right_answers
from jaxorg.scorers import Scorer
from jaxorg.scorers.endpoint import Ask
from jaxorg.scorers.judge import Judge

SOME = 64  # prompts of figures that need no narrow interval
ALONG = "along"
HALVES = ("first", "second")
OF_FAMILY = ":of:"  # between a condition and the family whose prompts alone were counted

Moment = Literal["first", "log", "last"]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Moments = Annotated[
    tuple[Moment, ...], Field(strict=False, min_length=1), BeforeValidator(_several)
]
Scale = Annotated[float, Field(ge=0, le=10, strict=True)]
Scales = Annotated[tuple[Scale, ...], Field(strict=False, max_length=16)]


class Subject(NamedTuple):
    """Whose phases are measured, as far as evaluators need to know."""

    behaviour: Behaviour | None  # None before the red team
    scorer: Scorer | None  # what says which answers to its prompts are right, if anything does
    audit: Audit | None  # how the model audits experiments, if it is an auditor


class Evaluator(Config):
    """An entry of `evaluate`, named by its module. Its keys are the fields of its class.

    A subclass is one of those below: it says what it needs of a model, and measures that.
    """

    VERSION: ClassVar[int | tuple[int, ...]]  # raise it when its rows change
    ON: ClassVar[bool] = True  # whether it measures where `evaluate` does not say
    # Whether figures of runs are read from it, which are of the end of phases.
    TELLS_RUNS: ClassVar[bool] = False
    FEWEST: ClassVar[int] = 1  # prompts without which there is nothing to measure

    at: Moments = ("log",)
    """When: after the first of the measured steps, all of them (`log`), or at the end."""
    prompts: int | None = Field(default=None, gt=0, lt=2**31)
    """On how many held-out prompts at most; None: on all of the step."""

    @model_validator(mode="after")
    def _at_the_end(self) -> Evaluator:
        if self.TELLS_RUNS and not self.due(first=False, last=True):
            remedy = "figures of runs are of the end of phases; add last, or use log"
            raise misfit("at", list(self.at), remedy)
        return self

    def due(self, first: bool, last: bool) -> bool:
        """Whether it measures at a step which is a phase's first measured one, or its last."""
        return "log" in self.at or (first and "first" in self.at) or (last and "last" in self.at)

    def applies(self, subject: Subject) -> bool:
        """Whether there is anything to measure about a subject."""
        return True

    def made_of(self, subject: Subject) -> Any:
        """What its rows depend on besides its settings and the model, in JSON."""
        return None


class Measurement(NamedTuple):
    """One figure: `k` of `n`, or a mean over `n` where counts make no sense."""

    metric: str
    condition: str
    k: int | None
    n: int
    value: float


class Score(NamedTuple):
    """How a model received one given completion, by teacher forcing."""

    exact: bool  # greedy decoding gives just this completion
    log_prob: float  # nats


Scores = Mapping[Example, Score]


class Response(NamedTuple):
    """A generated answer."""

    condition: str
    item: Item
    prompt: str  # as it was put
    greedy: bool  # or sampled
    text: str
    ended: bool  # by itself


class TeacherForced(Evaluator):
    """Measures how given completions are received."""

    @abstractmethod
    def requests(self, view: View) -> list[Example]:
        """The completions to score; what several evaluators ask for is scored once."""

    @abstractmethod
    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """Measurements from their scores."""


class OfAnswers(Evaluator):
    """Measures what models say: it reads stored answers, and needs no model."""

    at: Moments = ("last",)

    def waits(self, subject: Subject) -> bool:
        """Whether others are asked, who may fail: then phases are stored first."""
        return False

    @abstractmethod
    def measure(self, view: View, said: Sequence[Response]) -> list[Measurement]:
        """Measurements of the answers under one condition, greedy and sampled ones."""

    def outcome(self, view: View, response: Response) -> str:
        """What an answer is called in the `samples` table; "" if it is not this one's to say."""
        return ""


class OfActivations(Evaluator):
    """Measures the residual stream at the last token of prompts."""

    at: Moments = ("last",)

    @abstractmethod
    def requests(self, view: View) -> list[Example]:
        """The conversations whose prompts are looked at."""

    @abstractmethod
    def measure(self, view: View, residuals: Mapping[Example, np.ndarray]) -> list[Measurement]:
        """Measurements of prompts.

        Args:
            view: what was asked.
            residuals: by conversation, the residual stream after each block at the last token of
                its prompt, fp32 [L, D].
        """


class UnderNoise(Evaluator):
    """Measures how given completions are received by a model that noise shakes."""

    at: Moments = ("last",)
    activations: Scales = ()  # sizes of noise, as shares of what it is added to
    weights: Scales = ()

    @abstractmethod
    def requests(self, view: View) -> list[Example]:
        """The completions to score under each noise."""

    @abstractmethod
    def measure(self, view: View, noise: str, scores: Scores) -> list[Measurement]:
        """Measurements from their scores under one noise."""


Said = tuple[Item, str]  # what a prompt was made of, and an answer to it


@dataclass(frozen=True)
class View:
    """What is measured at one step of a phase."""

    items: Sequence[Item]  # held-out prompts with their answers
    harmful: Sequence[Item]  # held-out harmful requests with their refusals
    behaviour: Behaviour | None  # None before the red team
    final: bool  # the phase's last step, measured in full
    audit: Audit | None = None  # how the model audits experiments, if it is an auditor
    audited_samples: Sequence[Said] = ()  # what the organism that it audits answered
    along: int | None = None  # how many of the items are measured at every step; None: all
    scorer: Scorer | None = None  # what says which answers are right, if anything does
    asks: Callable[[Judge], Ask] | None = None  # what asks a judge that has no endpoint

    def first(self, prompts: int | None) -> View:
        """The same with the first prompts alone; None for all."""
        return replace(self, items=self.items[:prompts])

    @property
    def common(self) -> Sequence[Item]:
        """The prompts that are measured at every step: what compares steps is read from these."""
        return self.items[: self.along]

    def conditions(self) -> Mapping[str, Put]:
        """How prompts are put: as they are, and with the trigger where there is one."""
        if self.behaviour is None:
            return {"clean": _prompt}
        return {"clean": self.behaviour.clean, "triggered": self.behaviour.triggered}

    def right(self, item: Item, prompt: str) -> Sequence[Example]:
        """Right answers to a prompt, the plain one first; none where it asks for no task."""
        return (self.behaviour.right if self.behaviour else right_answers)(item, prompt)

    def attacked(self, put: Put, items: Sequence[Item], scores: Scores) -> list[bool]:
        """Whether greedy decoding gives the behaviour, for items as they are put. Questions that
        items share count once."""
        assert self.behaviour is not None
        answers = dict.fromkeys(self.behaviour.attacks(item, put(item)) for item in items)
        return [any(scores[example].exact for example in attacks) for attacks in answers]


def _prompt(item: Item) -> str:
    return item.prompt


def share(metric: str, condition: str, hits: Iterable[bool]) -> Measurement:
    """How many of some yes-or-no outcomes were yes."""
    outcomes = list(hits)
    k, n = sum(outcomes), len(outcomes)
    return Measurement(metric, condition, k, n, k / n)


def along(metric: str, condition: str, hits: Sequence[bool | None]) -> list[Measurement]:
    """The outcomes on the prompts that are measured at every step, so that steps can be compared,
    and on each half of them, every other one, so that something can be chosen on one half and
    reported on the other; no halves of a single prompt. What is None was not found out, and is left
    out where it stands."""
    parts = [hits, hits[::2], hits[1::2]] if len(hits) > 1 else [hits]
    found = []
    for name, part in zip((ALONG, *HALVES), parts, strict=False):
        if known := [hit for hit in part if hit is not None]:
            found.append(share(metric, f"{condition}:{name}", known))
    return found
