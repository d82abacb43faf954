"""What evaluators share: what they see, and what they yield."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from jaxorg.config import Config, later, misfit
from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.experiments.audit import Audit
from jaxorg.organisms.behaviour import Behaviour, Put, right_answers

FEWEST_PROBED = 8  # prompts, so that there are two in a quarter of them

Scale = Annotated[float, Field(ge=0, le=10, strict=True)]
Scales = Annotated[tuple[Scale, ...], Field(strict=False, max_length=16)]


class Evaluation(Config):
    """What is measured and when: at log-spaced steps with `prompts` held-out prompts, at the end
    of each phase with `final_prompts`, of which `generated` are also answered freely."""

    points: int = Field(default=8, gt=0, le=1000)
    prompts: int = Field(default=64, gt=0, lt=2**31)
    final_prompts: int = Field(default=256, gt=0, lt=2**31)
    generated: int = Field(default=64, gt=0, lt=2**31)
    new_tokens: int = Field(default=24, gt=0, le=2**20)
    temperature: float = Field(default=0.7, gt=0)
    probe: bool = later(False)  # linear probes for the trigger
    activation_noise: Scales = later(())  # sizes of noise, as shares of what it is added to
    weight_noise: Scales = later(())

    @model_validator(mode="after")
    def _nested(self) -> Evaluation:
        if max(self.prompts, self.generated) > self.final_prompts:
            raise ValueError("prompts and generated must not exceed final_prompts")
        if self.probe and self.final_prompts < FEWEST_PROBED:
            raise misfit("probe", True, f"it needs final_prompts of {FEWEST_PROBED} or more")
        for key in ("activation_noise", "weight_noise"):
            scales = list(getattr(self, key))
            if len(set(scales)) < len(scales):
                raise misfit(key, scales, "give different scales")
        return self


SOME = 64
ALONG = "along"
HALVES = ("first", "second")


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

    @property
    def some(self) -> Sequence[Item]:
        """Held-out prompts for figures that need no narrow interval."""
        return self.items[:SOME]

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


Scores = Mapping[Example, Score]


def _prompt(item: Item) -> str:
    return item.prompt


def share(metric: str, condition: str, hits: Iterable[bool]) -> Measurement:
    """How many of some yes-or-no outcomes were yes."""
    outcomes = list(hits)
    k, n = sum(outcomes), len(outcomes)
    return Measurement(metric, condition, k, n, k / n)


def along(metric: str, condition: str, hits: Sequence[bool]) -> list[Measurement]:
    """The outcomes on the prompts that are measured at every step, so that steps can be compared,
    and on each half of them, every other one, so that something can be chosen on one half and
    reported on the other; no halves of a single prompt."""
    parts = [hits, hits[::2], hits[1::2]] if len(hits) > 1 else [hits]
    names = (ALONG, *HALVES)
    return [
        share(metric, f"{condition}:{name}", part) for name, part in zip(names, parts, strict=False)
    ]
