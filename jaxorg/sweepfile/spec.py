"""What a sweep file may say, and the runs it stands for.

A sweep file is one run's config with scalars, and a `grid` over dotted paths into it. `grid` is
a list of axes; an axis maps paths to lists of values. Paths of one axis advance together
(zipped), different axes are crossed (cartesian), and seeds are crossed with all of them.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from jaxorg.config import Config, misfit
from jaxorg.errors import Refusal, short
from jaxorg.llama.names import replicates
from jaxorg.suggest import choose
from jaxorg.sweepfile import builtin, mistakes, yaml
from jaxorg.sweepfile.controls import CLEAN, Control, stand_in
from jaxorg.sweepfile.labels import of_organism
from jaxorg.sweepfile.prereg import Claim, check_claims
from jaxorg.sweepfile.run_config import KINDS_BY_KEY, MEASURED, SCORERS_BY_KEY, RunConfig
from jaxorg.sweepfile.seeds import (
    MOST_RUNS,
    CrossedSeeds,
    SeedCounts,
    Seeds,
    count_of,
    seeds_of,
)

MOST_CLAIMS = 100
LONGEST_PATH = 20  # names in a dotted path
SIZES = ("smoke", "laptop", "llama")


class Sweep(Config):
    """A sweep file's own keys; every other key belongs to `RunConfig`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    seeds: SeedCounts = 1
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
                raise misfit("controls", kind, "it is listed twice; keep one")
        return self


@dataclass(frozen=True)
class RunSpec:
    """One row of the sweep."""

    fields: Mapping[str, Any]  # the grid's values by dotted path
    control: str  # kind of control, or ""
    seed: int  # its number among the runs of its arm, from the first seed on
    seeds: Seeds
    config: RunConfig  # of all runs of its arm

    @cached_property
    def own(self) -> RunConfig:
        """Its config with the base that its seed names: of a built-in model one that was trained as
        that was."""
        base = self.config.base
        if base.scratch or not self.seeds.base:
            return self.config
        own = base.model_copy(update={"model": replicates(base.model)[self.seeds.base]})
        return self.config.model_copy(update={"base": own})


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
        raise Refusal(f"{path}: must be a mapping of keys to values; see sweeps/quickstart.yaml")
    changes = _changes(content.pop("sizes", {}), size, path.name)
    for key, value in changes.items():
        assign(content, key, value, f"sizes.{size}.{key}")
    by_hand = _override(content, overrides)
    content.setdefault("name", path.stem)
    return _expand(content, size, {key: f"sizes.{size}.{key}" for key in changes} | by_hand)


def measured_otherwise(source: Mapping[str, Any], size: str, overrides: Sequence[str]) -> Spec:
    """A sweep that was read before, with other measurements.

    Args:
        source: its `Spec.source`.
        size: its size.
        overrides: as in `load`, of what is only measured.

    Raises:
        Refusal: anything in it is wrong, or an override would train something else.
    """
    for key in (override.partition("=")[0] for override in overrides):
        if not any(f"{key}.".startswith(f"{one}.") for one in MEASURED):
            raise Refusal(
                f"--set {key}: it changes training; set only {' or '.join(MEASURED)} here, and "
                f"anything else with python -m jaxorg.sweep"
            )
    content = dict(source)
    return _expand(content, size, _override(content, overrides))


def _override(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Apply `path=value`; the paths, and by what they were set."""
    changed = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise Refusal(f"--set: {override!r} is not an assignment; write --set path=value")
        assign(content, key, yaml.parse(value, f"--set {key}"), f"--set {key}")
        changed[key] = f"--set {key}"
    return changed


def _changes(sizes: Any, size: str, name: str) -> Mapping[str, Any]:
    """What a size changes about the file, which describes `laptop` by itself."""
    if not isinstance(sizes, dict):
        raise Refusal(f"sizes: {short(sizes)} is invalid; it must map sizes to their changes")
    for key, changes in sizes.items():
        if key not in SIZES:
            raise Refusal(f"sizes.{key}: unknown size; {choose(key, SIZES)}")
        if not isinstance(changes, dict):
            raise Refusal(
                f"sizes.{key}: {short(changes)} is invalid; it must map dotted paths to values"
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
        raise Refusal(f"{label}: the path has {len(parents) + 1} parts; no key is that deep")
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
    runs = list(_runs(shared, axes, sweep))
    for control in sweep.controls:
        runs += _runs(shared, axes, sweep, control)
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
                f"grid: {path!r} cannot be swept, as all runs are measured alike; set it once"
            )
        if times[path] > 1:
            raise Refusal(f"grid: {path!r} appears on two axes; keep one")
        for key, by in changed.items():
            if f"{key}.".startswith(f"{path}."):
                raise Refusal(f"{by}: the grid sweeps {path}; set grid, or take it out")


def _check_count(sweep: Sweep, axes: Sequence[Sequence[Any]]) -> None:
    """Refuse, before they are made, more runs than a sweep is for."""
    points = math.prod(len(axis) for axis in axes)
    of_controls = sum(count_of(control.seeds or sweep.seeds) for control in sweep.controls)
    count = points * (count_of(sweep.seeds) + of_controls)
    if count > MOST_RUNS:
        raise Refusal(
            f"grid: its {points:,} points and the seeds make up to {count:,} runs; the limit "
            f"is {MOST_RUNS:,}, so split the sweep"
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
            raise Refusal(f"{key}: {path} {short(values)} gives two points one name; make them two")
    points = [dict(zip(axis, point, strict=True)) for point in zip(*axis.values(), strict=True)]
    seen: set[Hashable] = set()
    for point in points:
        if not _is_finite(point):
            raise Refusal(f"{key}: {short(point)} is invalid; every number must be finite")
        if (same := _frozen(point)) in seen:
            raise Refusal(f"{key}: {short(point)} is listed twice; keep one")
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
    sweep: Sweep,
    control: Control | None = None,
) -> Iterator[RunSpec]:
    """Every point of the grid with every seed, seeds innermost; of a control its own points and
    seeds."""
    kind, given, first = control.kind if control else "", sweep.seeds, sweep.first_seed
    seeds = [*seeds_of(given, first)]
    if control:
        seeds, given = [*control.seeds_of(given, first)], control.seeds or given
    crossed = isinstance(given, CrossedSeeds)
    for fields, config in _points(shared, axes, kind):
        if isinstance(given, CrossedSeeds) and (not control or control.seeds):
            _check_crossing(given, config, f"controls.{kind}.seeds" if control else "seeds")
        for seed, each in enumerate(seeds, first):
            if not config.base.scratch:  # bases that are there already, by their numbers
                each = each._replace(base=each.base - first if crossed else 0)
            yield RunSpec(fields, kind, seed, each, config)


def _points(
    shared: Mapping[str, Any], axes: Sequence[list[dict[str, Any]]], control: str
) -> Iterator[tuple[Mapping[str, Any], RunConfig]]:
    """Every point of the grid; of a clean control one for each way in which organisms are treated
    and measured, of another one the first organism."""
    if control and control != CLEAN:
        axes = [_collapsed(axis) for axis in axes]
    designs: set[Hashable] = set()
    for point in itertools.product(*axes):
        fields = {path: value for part in point for path, value in part.items()}
        content = dict(shared)
        for path, value in sorted(fields.items(), key=lambda field: field[0].count(".")):
            assign(content, path, value, f"grid: {path}")
        if control:
            content["organism"] = stand_in(content.get("organism"), control)
        config = _validated(RunConfig, content)
        if control == CLEAN:
            if config.design in designs:
                continue
            designs.add(config.design)
        yield fields, config


def _check_crossing(seeds: CrossedSeeds, config: RunConfig, key: str) -> None:
    """Refuse seeds of what is not trained: their runs would be one run, counted several times."""
    organism, there = config.organism, len(replicates(config.base.model))
    untrained = {
        "base": not (config.base.scratch or seeds.base <= there) and _too_few(there),
        "organism": not (organism and organism.train.steps) and "no organism is trained; train one",
        "treatment": not config.treatment and "there is no treatment; add one",
    }
    for name, why in untrained.items():
        if why and (count := getattr(seeds, name)) > 1:
            raise Refusal(f"{key}.{name}: {count} is invalid; {why}, or leave this out")


def _too_few(bases: int) -> str:
    if bases == 1:
        return "only base.scratch trains new weights; give it"
    return f"base.model is there from {bases} seeds; give at most as many"


M = TypeVar("M", bound=BaseModel)


def _validated(model: type[M], content: Mapping[str, Any]) -> M:
    """Check content against a model; the first mistake becomes one line."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Refusal(
            mistakes.one_line(error, (Sweep, RunConfig), {**KINDS_BY_KEY, **SCORERS_BY_KEY})
        ) from error
