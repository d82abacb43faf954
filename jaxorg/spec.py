"""What a sweep file may say, and the runs it stands for.

A sweep file is one run's config with scalars, and a `grid` over dotted paths into it. `grid` is
a list of axes; an axis maps paths to lists of values. Paths of one axis advance together
(zipped), different axes are crossed (cartesian), and seeds are crossed with all of them.
"""

from __future__ import annotations

import copy
import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, Field, ValidationError, model_validator

from jaxorg import yamlfile
from jaxorg.config import Config
from jaxorg.data.prompts import Prompts
from jaxorg.evaluators import Evaluation
from jaxorg.organisms import ORGANISMS, Organism
from jaxorg.runtime import Refusal
from jaxorg.training import Training
from jaxorg.treatments import TREATMENTS, Treatment

if TYPE_CHECKING:
    AnyOrganism = Organism
    AnyTreatment = Treatment
else:
    AnyOrganism = Annotated[Union[ORGANISMS], Field(discriminator="kind")]
    AnyTreatment = Annotated[Union[TREATMENTS], Field(discriminator="kind")]

SIZES = ("smoke", "laptop", "llama")


class Base(Config):
    """The model that everything starts from: a shipped one's name, or a folder in the Hugging
    Face layout. With `scratch`, only its shape and tokenizer are used and new weights trained."""

    model: str = "jaxorg-1m"
    chat_template: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    scratch: Training | None = None


class RunConfig(Config):
    """One run, but for its seed."""

    base: Base = Base()
    prompts: Prompts = Prompts()
    length: int = Field(default=48, gt=1)
    organism: AnyOrganism | None = None
    treatment: AnyTreatment | None = None
    reversal: AnyTreatment | None = None
    evaluate: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _chain(self) -> RunConfig:
        if self.treatment and not self.organism:
            raise ValueError("treatment: there is no organism to treat; add one (kind: clean?)")
        if self.reversal and not self.treatment:
            raise ValueError("reversal: there is no treatment to reverse; add one")
        return self


class Control(Config):
    """Extra runs of each treatment whose organism is of a control kind, with fewer seeds."""

    kind: Literal["clean", "placebo"]
    seeds: int = Field(gt=0)


class Sweep(Config):
    """A sweep file's own keys; every other key belongs to `RunConfig`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seeds: int = Field(default=1, gt=0)
    first_seed: int = Field(default=0, ge=0)
    controls: list[Control] = []
    grid: list[dict[str, list[Any]]] = []


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
    """Read a shipped sweep by name, or any sweep file, and expand it.

    Args:
        name: a shipped sweep's name, or the path of a YAML file.
        size: which of the file's `sizes` to apply.
        overrides: `path=value` with the value in YAML.

    Raises:
        Refusal: anything in it is wrong.
    """
    path = find(name)
    content = yamlfile.parse(_text(path), str(path))
    if not isinstance(content, dict):
        raise Refusal(f"{path}: holds no mapping of keys to values; see sweeps/quickstart.yaml")
    sizes = content.pop("sizes", {})
    if not isinstance(sizes, dict) or not all(isinstance(v, dict) for v in sizes.values()):
        raise Refusal(f"{path}: sizes must map each size to dotted paths and values")
    if size not in SIZES or (size not in sizes and size != "laptop"):
        have = ", ".join(dict.fromkeys(["laptop", *sizes]))
        raise Refusal(f"--size: {size!r} is not a size of {path.name}; choose from {have}")
    for key, value in sizes.get(size, {}).items():
        assign(content, key, value, f"sizes.{size}.{key}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise Refusal(f"--set: {override!r} is no assignment; write --set path=value")
        assign(content, key, yamlfile.parse(value, f"--set {key}"), f"--set {key}")
    content.setdefault("name", path.stem)
    return _expand(content, size, [override.partition("=")[0] for override in overrides])


def find(name: str) -> Path:
    """The file of a sweep given by a shipped one's name or by its path."""
    shipped = {path.stem: path for path in sorted(_shipped_folder().glob("*.yaml"))}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        known = ", ".join(shipped)
        raise Refusal(f"sweep: {name!r} is neither a shipped sweep ({known}) nor a file")
    return path


def assign(content: dict[str, Any], path: str, value: Any, label: str) -> None:
    """Set a dotted path in nested mappings, making those that are missing.

    Raises:
        Refusal: the path runs through something that is no mapping; `label` names the key.
    """
    *parents, last = path.split(".")
    here = content
    for name in parents:
        inner = here.get(name)
        if inner is None:
            inner = here[name] = {}
        if not isinstance(inner, dict):
            raise Refusal(f"{label}: {name!r} is {inner!r}, not a mapping; set it as a whole")
        here = inner
    here[last] = value


def _shipped_folder() -> Path:
    """Beside the package in a checkout, inside it when installed from a wheel."""
    inside = Path(str(resources.files("jaxorg"))) / "sweeps"
    return inside if inside.is_dir() else inside.parent.parent / "sweeps"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"sweep: {path} cannot be read ({error}); give a YAML file") from error


def _expand(content: dict[str, Any], size: str, overridden: Sequence[str]) -> Spec:
    own = {key: content[key] for key in Sweep.model_fields if key in content}
    if own.get("grid") == []:
        raise Refusal("grid: it is empty; give it an axis, or leave grid out for a single point")
    sweep = _validated(Sweep, own)
    shared = {key: value for key, value in content.items() if key not in own}
    axes = [_axis(axis, number, overridden) for number, axis in enumerate(sweep.grid)]
    _refuse_repeats([path for axis in sweep.grid for path in axis])
    runs = list(_runs(shared, axes, "", sweep.first_seed, sweep.seeds))
    for control in sweep.controls:
        if not shared.get("organism"):
            raise Refusal(f"controls: {control.kind!r} needs an organism to stand in for; add one")
        first = [axis[:1] if all(p.startswith("organism.") for p in axis[0]) else axis for axis in axes]
        runs += _runs(shared, first, control.kind, sweep.first_seed, control.seeds)
    return Spec(sweep, size, runs, content)


def _axis(axis: dict[str, list[Any]], number: int, overridden: Sequence[str]) -> list[dict[str, Any]]:
    """The points of one axis: its paths advance together."""
    lengths = {path: len(values) for path, values in axis.items()}
    if not axis or 0 in lengths.values():
        raise Refusal(f"grid.{number}: the axis {axis!r} is empty; give each path a list of values")
    if len(set(lengths.values())) > 1:
        raise Refusal(f"grid.{number}: zipped lists differ in length ({lengths}); make them equal")
    for path in axis:
        if path in overridden:
            raise Refusal(f"--set {path}: the grid sweeps it; set grid, or take it out of there")
    return [dict(zip(axis, point, strict=True)) for point in zip(*axis.values(), strict=True)]


def _refuse_repeats(paths: Sequence[str]) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise Refusal(f"grid: {path!r} stands on two axes; keep one")
        if path.partition(".")[0] not in RunConfig.model_fields:
            known = ", ".join(RunConfig.model_fields)
            raise Refusal(f"grid: {path!r} is not part of a run; a path starts with one of {known}")


def _runs(
    shared: Mapping[str, Any], axes: Sequence[list[dict[str, Any]]], control: str, first: int, seeds: int
) -> Iterator[RunSpec]:
    """Every point of the grid with every seed, seeds innermost."""
    for point in itertools.product(*axes):
        fields = {path: value for part in point for path, value in part.items()}
        content = copy.deepcopy(dict(shared))
        for path, value in fields.items():
            assign(content, path, copy.deepcopy(value), f"grid: {path}")
        if control:
            assign(content, "organism.kind", control, "controls")
        config = _validated(RunConfig, content)
        for seed in range(first, first + seeds):
            yield RunSpec(fields, control, seed, config)


M = TypeVar("M", bound=BaseModel)


def _validated(model: type[M], content: Mapping[str, Any]) -> M:
    """Check content against a model; the first mistake becomes one line."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Refusal(_one_line(error)) from error


def _one_line(error: ValidationError) -> str:
    """Key, value and remedy of a validation error's first mistake."""
    first = error.errors(include_url=False)[0]
    tags = {kind.model_fields["kind"].annotation.__args__[0] for kind in (*ORGANISMS, *TREATMENTS)}
    loc = [str(part) for part in first["loc"] if part not in tags]
    key = ".".join(loc) or "sweep"
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(loc[-1], sorted(_all_keys(RunConfig) | _all_keys(Sweep)), n=1)
        remedy = f"did you mean {close[0]}?" if close else "remove it"
        return f"{key}: unknown key with value {_short(first['input'])}; {remedy}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{key}: is missing; add it"
    return f"{key}: {message}; the value is {_short(first['input'])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _all_keys(model: type[BaseModel]) -> set[str]:
    """Every key that may stand anywhere in a sweep file."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}
