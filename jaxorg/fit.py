"""The door `python -m jaxorg.fit`: whether a sweep fits a TPU slice, as the TPU's compiler says.

No TPU is needed.

Exit codes: 0 all fits, 1 something does not, 2 the input is wrong.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from jaxorg import cli, estimate, spec
from jaxorg.engine.aot import Compiled, compile_elsewhere
from jaxorg.engine.mesh import ROOM, SLICES, MeshSpec, layout, parse
from jaxorg.estimate import as_bytes
from jaxorg.plan import Cohort, Plan, make_plan
from jaxorg.runtime import Refusal
from jaxorg.signature import Static

UTILISATION = 0.4  # of the chips' peak that time estimates assume


@dataclass(frozen=True)
class Fit:
    """How the cohorts of one training program fit a slice."""

    cohorts: Sequence[str]
    phases: int
    devices: int
    axes: Mapping[str, int]
    width: int
    memory: int  # bytes a chip that the program takes
    room: int  # bytes a chip has
    step_flops: float  # of one run
    step_seconds: float  # of all runs side by side
    compile_seconds: float
    chip_hours: float
    fits: bool
    problem: str

    @property
    def lanes(self) -> int:
        """Runs that are trained side by side."""
        return self.axes["run"] * self.width


def fit(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="As for sweep.")],
    mesh: Annotated[
        str, typer.Option(metavar="MESH", help="A TPU slice, as in v4-64 or v4-64,fsdp=4.")
    ],
    size: Annotated[str, typer.Option(metavar="SIZE", help="One of the file's.")] = "llama",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a key; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Compile every training program of a sweep for a TPU slice that need not be there."""
    asked = parse(mesh)
    if asked.name not in SLICES:
        raise Refusal(f"--mesh: {mesh!r} is no TPU slice; choose from {', '.join(SLICES)}")
    plan = make_plan(spec.load(name, size, set_ or []), weights=False)
    if importlib.util.find_spec("libtpu") is None:
        raise Refusal("--mesh: the TPU compiler is missing; pip install 'jaxorg[tpu]'")
    found = [_fit(asked, cohorts) for cohorts in _programs(plan)]
    if as_json:
        print(json.dumps([{**asdict(each), "lanes": each.lanes} for each in found]))
    else:
        _show(asked, found, plan)
    return 0 if all(each.fits for each in found) else 1


def _programs(plan: Plan) -> list[list[Cohort]]:
    """Cohorts by the program that trains them."""
    programs: dict[Static, list[Cohort]] = {}
    for cohort in plan.cohorts:
        if cohort.static:
            programs.setdefault(cohort.static, []).append(cohort)
    return list(programs.values())


def _fit(asked: MeshSpec, cohorts: Sequence[Cohort]) -> Fit:
    """The widest program that fits, on as few devices a run as that takes."""
    assert asked.name is not None
    place, needed = SLICES[asked.name], max(estimate.memory(cohort) for cohort in cohorts)
    axes = layout(asked, place.devices, place.memory, needed)
    compiled = _compile(asked.name, cohorts, axes, 1)
    while not _fits(compiled, place.memory) and not asked.axes and axes["run"] > 1:
        axes = {**axes, "run": axes["run"] // 2, "fsdp": axes["fsdp"] * 2}
        compiled = _compile(asked.name, cohorts, axes, 1)
    width = 1
    most = max(math.ceil(len(cohort.phases) / axes["run"]) for cohort in cohorts)
    if _fits(compiled, place.memory):
        wider = min(most, place.memory // compiled.memory)
        while wider > 1:
            found = _compile(asked.name, cohorts, axes, wider)
            if _fits(found, place.memory):
                width, compiled = wider, found
                break
            wider //= 2
    return _told(asked.name, cohorts, axes, width, compiled)


def _compile(name: str, cohorts: Sequence[Cohort], axes: Mapping[str, int], width: int) -> Compiled:
    static = cohorts[0].static
    assert static is not None
    return compile_elsewhere(static, name, axes, width)


def _fits(compiled: Compiled, memory: int) -> bool:
    return not compiled.problem and compiled.memory <= memory


def _told(
    name: str, cohorts: Sequence[Cohort], axes: Mapping[str, int], width: int, compiled: Compiled
) -> Fit:
    place, flops = SLICES[name], estimate.step_flops(cohorts[0])
    of_a_run = axes["fsdp"] * axes["tensor"]
    seconds = flops * width / (UTILISATION * place.peak * of_a_run)
    lanes = axes["run"] * width
    steps = sum(cohort.steps * math.ceil(len(cohort.phases) / lanes) for cohort in cohorts)
    return Fit(
        cohorts=[cohort.kind for cohort in cohorts],
        phases=sum(len(cohort.phases) for cohort in cohorts),
        devices=place.devices,
        axes=axes,
        width=width,
        memory=compiled.memory,
        room=place.memory,
        step_flops=flops,
        step_seconds=seconds,
        compile_seconds=compiled.seconds,
        chip_hours=steps * seconds * place.devices / 3600,
        fits=_fits(compiled, place.memory),
        problem=compiled.problem,
    )


def _show(asked: MeshSpec, found: Sequence[Fit], plan: Plan) -> None:
    for each in found:
        axes = ",".join(f"{axis}={size}" for axis, size in each.axes.items())
        verdict = "fits" if each.fits else "DOES NOT FIT"
        memory = f"{as_bytes(each.memory)} of {as_bytes(each.room)}"
        print(f"{', '.join(each.cohorts)}: {each.phases} phases, {verdict}")
        print(f"  {axes}, width {each.width}: {each.lanes} runs side by side")
        print(f"  HBM a chip: {memory if each.memory else each.problem}")
        print(f"  {_flops(each.step_flops)} a step and run, {each.step_seconds:.2g} s a step")
        print(f"  about {each.chip_hours:.2g} chip-hours; compiled in {each.compile_seconds:.0f} s")
    share = f"{100 * UTILISATION:.0f} %"
    print(f"{asked.name}: {found[0].devices} chips; times are of training at {share} of their peak")
    if any(not each.fits for each in found):
        needed = max(estimate.memory(cohort) for cohort in plan.cohorts)
        larger = ", ".join(_large_enough(needed)) or "none"
        print(
            f"one run holds {as_bytes(needed)} besides its work; large enough should be: {larger}"
        )


def _flops(count: float) -> str:
    """Floating-point operations for people."""
    for unit in ("MFLOP", "GFLOP", "TFLOP"):
        count /= 1000
        if count < 1e6:
            return f"{count / 1000:,.1f} {unit}"
    return f"{count / 1000:,.1f} PFLOP"


def _large_enough(needed: int) -> list[str]:
    """The smallest slice of each generation with room for a run that holds `needed` bytes."""
    smallest: dict[str, str] = {}
    for name, place in SLICES.items():
        if needed <= ROOM * place.memory * place.devices:
            smallest.setdefault(name.partition("-")[0], name)
    return list(smallest.values())


if __name__ == "__main__":
    cli.run(fit)
