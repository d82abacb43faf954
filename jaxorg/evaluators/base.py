"""What evaluators share: what they see, and what they yield."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field, model_validator

from jaxorg.config import Config
from jaxorg.data.items import Item
from jaxorg.data.pool import Example
from jaxorg.organisms import Behaviour


class Evaluation(Config):
    """What is measured and when: at log-spaced steps with `prompts` held-out prompts, at the end
    of each phase with `final_prompts`, of which `generated` are also answered freely."""

    points: int = Field(default=8, gt=0, le=1000)
    prompts: int = Field(default=64, gt=0, lt=2**31)
    final_prompts: int = Field(default=256, gt=0, lt=2**31)
    generated: int = Field(default=64, gt=0, lt=2**31)
    new_tokens: int = Field(default=24, gt=0, le=2**20)
    temperature: float = Field(default=0.7, gt=0)

    @model_validator(mode="after")
    def _nested(self) -> Evaluation:
        if max(self.prompts, self.generated) > self.final_prompts:
            raise ValueError("prompts and generated must not exceed final_prompts")
        return self


SOME = 64


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


@dataclass(frozen=True)
class View:
    """What is measured at one step of a phase."""

    items: Sequence[Item]  # held-out prompts with their answers
    harmful: Sequence[Item]  # held-out harmful requests with their refusals
    behaviour: Behaviour | None  # None before the red team
    final: bool  # the phase's last step, measured in full

    @property
    def some(self) -> Sequence[Item]:
        """Held-out prompts for figures that need no narrow interval."""
        return self.items[:SOME]

    def conditions(self) -> Mapping[str, Callable[[str], str]]:
        """How prompts are put: as they are, and with the trigger where there is one."""
        plain = {"clean": str}
        return {**plain, "triggered": self.behaviour.triggered} if self.behaviour else plain


Scores = Mapping[Example, Score]


def share(metric: str, condition: str, hits: Iterable[bool]) -> Measurement:
    """How many of some yes-or-no outcomes were yes."""
    outcomes = list(hits)
    k, n = sum(outcomes), len(outcomes)
    return Measurement(metric, condition, k, n, k / n)
