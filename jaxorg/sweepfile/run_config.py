"""What a sweep file may say of one run, but for its seed."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, model_validator

from jaxorg.config import ONLY_MEASURED, SHAPES, Config, content_hash, later, misfit
from jaxorg.data.prompts import TEACHER_BASE, TOY
from jaxorg.data.secret import Secret
from jaxorg.discovery import kind_of
from jaxorg.llama.tokenizer_settings import ChatFormat, no_option
from jaxorg.organisms import PIECES as RED
from jaxorg.organisms import Organism
from jaxorg.organisms.examples import SCORING
from jaxorg.scorers import PIECES as JUDGING
from jaxorg.scorers.judge import Judge
from jaxorg.sweepfile import mistakes
from jaxorg.sweepfile.evaluate import Evaluating, Evaluation
from jaxorg.sweepfile.scored_prompts import ScoredPrompts
from jaxorg.sweepfile.training import Lora, Training
from jaxorg.treatments import PIECES as BLUE
from jaxorg.treatments import Treatment
from jaxorg.treatments.rounds import InRounds

TREATING = {kind: made for kind, made in BLUE.usable.items() if not made.relearns}
if TYPE_CHECKING:
    AnyOrganism = Organism
    AnyTreatment = Treatment
    AnyReversal = Treatment
    AnyEvaluation = Evaluating
else:
    AnyOrganism = Annotated[Union[(*RED.usable.values(),)], Field(discriminator="kind")]
    AnyTreatment = Annotated[Union[(*TREATING.values(),)], Field(discriminator="kind")]
    AnyReversal = Annotated[Union[(*BLUE.usable.values(),)], Field(discriminator="kind")]
    AnyEvaluation = Evaluation

# Keys whose `kind` decides which others there are, and the kinds.
KINDS_BY_KEY: Mapping[str, mistakes.Kinds] = {
    "organism": mistakes.Kinds(RED, list(RED.usable)),
    "treatment": mistakes.Kinds(BLUE, list(TREATING)),
    "reversal": mistakes.Kinds(BLUE, list(BLUE.usable)),
}
SCORERS_BY_KEY = {
    "organism.scorer": mistakes.Kinds(JUDGING, [kind_of(made) for made in SCORING]),
    "prompts.scorer": mistakes.Kinds(JUDGING, list(JUDGING.usable)),
}

TRAINED = ("train", "teacher_train")  # what of a recipe says how it trains
ROUNDS = [kind for kind, made in BLUE.usable.items() if issubclass(made, InRounds)]

# What no weights depend on, but those of treatments that ask the scorer while they train.
MEASURED = ("evaluate", "prompts.scorer")
MOST_OPTIONS = 16  # of a chat template


class Base(Config):
    """The model that everything starts from: a built-in one's name, or a folder in the Hugging
    Face layout. With `scratch`, only its shape and tokenizer are used and new weights trained."""

    model: str = "jaxorg-1m"
    chat_template: str | None = None
    template_options: dict[str, Any] = later({})  # variables that the template knows besides
    dtype: Annotated[Literal["float32", "bfloat16"], SHAPES] = "float32"
    remat: Annotated[bool, SHAPES] = False  # saves memory, costs a third more work
    scratch: Training | None = None

    @model_validator(mode="after")
    def _whole(self) -> Base:
        if self.scratch and not self.scratch.steps:
            raise misfit("scratch.steps", 0, "new weights must be trained; leave scratch out")
        if self.scratch and self.scratch.lora:
            raise misfit("scratch.lora", self.scratch.lora.model_dump(), "train all new weights")
        return self

    @model_validator(mode="after")
    def _options_that_may_be(self) -> Base:
        if len(self.template_options) > MOST_OPTIONS:
            remedy = f"give at most {MOST_OPTIONS}"
            raise misfit("template_options", self.template_options, remedy)
        for name, value in self.template_options.items():
            if remedy := no_option(name, value):
                raise misfit(f"template_options.{name[:30]}", value, remedy)
        return self

    @property
    def chat_format(self) -> ChatFormat:
        """What it changes about the chat format of the model's folder."""
        return ChatFormat(self.chat_template, json.dumps(self.template_options, sort_keys=True))


class RunConfig(Config):
    """One run, but for its seed."""

    base: Base = Base()
    prompts: ScoredPrompts = ScoredPrompts()
    length: Annotated[int, SHAPES] = Field(default=48, gt=1, le=2**20)
    organism: AnyOrganism | None = None
    treatment: AnyTreatment | None = None
    reversal: AnyReversal | None = None
    evaluate: Annotated[AnyEvaluation, ONLY_MEASURED] = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _own_prompts_are_packed(cls, content: Any) -> Any:
        """Where `train.packing` says nothing, rows of files and of natural instructions are packed:
        these are of any length, and padding would be most of them."""
        if not isinstance(content, Mapping):
            return content
        prompts = content.get("prompts")
        source = prompts.get("source", TOY) if isinstance(prompts, Mapping) else TOY
        if source == TOY:
            return content
        return {
            name: _packed(value) if name in KINDS_BY_KEY else value
            for name, value in content.items()
        }

    @cached_property
    def secrets(self) -> frozenset[Secret]:
        """What its prompts and their answers must not show."""
        return frozenset(self.organism.secrets() if self.organism else ())

    @cached_property
    def design(self) -> Hashable:
        """What it shares with its clean control: all but how its organism was trained."""
        organism = self.organism
        others = content_hash(self.model_dump(mode="json", exclude={"organism", "evaluate"}))
        if organism is None:
            return others
        carried = organism.in_training("")  # by what blue trains on
        return others, organism.behaviour(), carried, self.secrets

    @model_validator(mode="after")
    def _chain(self) -> RunConfig:
        named = {"prompts.teacher": self.prompts.teacher}
        for name in ("treatment", "reversal"):
            if recipe := getattr(self, name):
                named[f"{name}.{recipe.kind}.model"] = recipe.supervisor
        for setting, model in named.items():
            if model == TEACHER_BASE and self.base.scratch:
                remedy = "base.scratch trains new weights for each seed; name a model"
                raise misfit(setting, TEACHER_BASE, remedy)
        if self.treatment and not self.organism:
            raise misfit("treatment", self.treatment.kind, "there is no organism to treat; add one")
        if self.reversal and not self.treatment:
            raise misfit(
                "reversal", self.reversal.kind, "there is no treatment to reverse; add one"
            )
        return self

    @model_validator(mode="after")
    def _organism_to_reverse(self) -> RunConfig:
        if self.reversal and self.treatment and self.treatment.starts_from == "base":
            remedy = f"{self.treatment.kind} trains no organism; leave it out"
            raise misfit("reversal", self.reversal.kind, remedy)
        if self.reversal and self.reversal.starts_from == "base":
            remedy = "it trains no organism; make it the treatment"
            raise misfit("reversal", self.reversal.kind, remedy)
        return self

    @model_validator(mode="after")
    def _treatments_that_apply(self) -> RunConfig:
        for name in ("treatment", "reversal"):
            recipe = getattr(self, name)
            if recipe and self.organism and (remedy := recipe.unsuited(self.organism)):
                raise misfit(name, recipe.kind, remedy)
        return self

    @model_validator(mode="after")
    def _verified_in_rounds(self) -> RunConfig:
        for name in ("treatment", "reversal"):
            recipe = getattr(self, name)
            rounds = recipe and recipe.train.steps and recipe.in_rounds
            if rounds and rounds.verifies and isinstance(self.prompts.scorer, Judge):
                remedy = (
                    "it must know what is right while it trains, and a judge is asked afterwards; "
                    "choose another prompts.scorer"
                )
                raise misfit(name, recipe.kind, remedy)
        return self

    @model_validator(mode="after")
    def _adapters_to_continue(self) -> RunConfig:
        """See that adapters before a phase that continues them are like its own. Where nothing
        before was trained, as in a clean control, it begins fresh ones."""
        trained: list[tuple[str, Training]] = []
        for name in KINDS_BY_KEY:
            recipe = getattr(self, name)
            if recipe is None:
                continue
            if not recipe.changes:
                continue
            lora = recipe.train.lora
            before = None if recipe.starts_from == "base" else trained
            if lora and lora.start == "continued" and (remedy := self._to_continue(lora, before)):
                raise misfit(f"{name}.{recipe.kind}.train.lora.start", lora.start, remedy)
            trained.append((name, recipe.train))
        return self

    def _to_continue(self, lora: Lora, trained: Sequence[tuple[str, Training]] | None) -> str:
        """What to do so that a phase can continue the adapters of the last one before, None where
        it starts from the base; "" if it can."""
        if trained is None:
            return "it starts from the base, which has no adapters; use merged"
        if not trained and self.organism and self.organism.brought:
            return "adapters of an organism that others trained are folded in; use merged"
        return _alike(lora, *trained[-1]) if trained else ""

    @model_validator(mode="after")
    def _base_to_stand_on(self) -> RunConfig:
        if self.organism and (brought := self.organism.brought) and self.base.scratch:
            remedy = "it was trained from base.model itself; leave base.scratch out"
            raise misfit(f"organism.{self.organism.kind}.folder", brought.path, remedy)
        return self


def _packed(recipe: Any) -> Any:
    """A recipe's content with packed rows, unless it says otherwise or cannot have them."""
    if not isinstance(recipe, Mapping) or recipe.get("kind") in ROUNDS:
        return recipe
    trained = {key: recipe[key] for key in TRAINED if isinstance(recipe.get(key), Mapping)}
    return {**recipe, **{key: {"packing": True, **train} for key, train in trained.items()}}


def _alike(lora: Lora, before: str, training: Training) -> str:
    """What to do so that adapters can continue those of the phase before; "" if they can."""
    if training.lora is None:
        return f"the {before} before it trains all weights; give it train.lora, or use merged"
    if not lora.continues(training.lora):
        return f"make rank, alpha and targets those of the {before} before it, or use merged"
    return ""
