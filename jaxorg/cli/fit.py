"""The command `python -m jaxorg.fit`: whether a sweep fits a TPU slice, as the TPU's compiler says.

No TPU is needed, and no weights.

Exit codes: 0 all fits, 1 something does not, 2 the input is wrong.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from jaxorg.engine.mesh import AXES, GENERATIONS, SLICES, MeshSpec, Slice, generation, layout, parse
from jaxorg.engine.run import estimate
from jaxorg.engine.run.aot import Compiled, Does, Program, compile_elsewhere
from jaxorg.engine.run.estimate import as_bytes
from jaxorg.errors import Refusal, install
from jaxorg.planning.measurements import ANSWERS, measurement_fingerprints
from jaxorg.planning.phases import Cohort
from jaxorg.planning.plan import Plan, make_plan
from jaxorg.sweepfile import spec

UTILISATION = 0.4  # of the chips' peak that time estimates assume
ASSUMED = (
    f"times are at {100 * UTILISATION:.0f} % of the chips' peak, or at their memory's bandwidth "
    f"for reading and writing what a run holds, whichever is longer; measuring is counted, "
    f"loading, compiling and communication are not"
)

Programs = tuple[Program, ...]


@dataclass(frozen=True)
class Fit:
    """How cohorts that share their programs fit a slice."""

    cohorts: Sequence[str]
    phases: int
    width: int  # runs that share the devices of one place on `run`
    lanes: int  # runs side by side
    programs: Mapping[Does, Compiled]  # by what they do
    memory: int  # bytes a chip that the largest program takes; 0 if the compiler does not say
    room: int  # bytes a chip has
    fits: bool
    step_flops: float  # of one run
    step_seconds: float  # of all runs side by side
    chip_hours: float


@dataclass(frozen=True)
class Outcome:
    """How a sweep fits a slice."""

    mesh: str
    devices: int
    axes: Mapping[str, int]
    fits: bool
    cohorts: Sequence[Fit]
    chip_hours: float
    large_enough: Sequence[str]  # slices that should be, by what the largest program takes
    assumed: str = ASSUMED


def fit_sweep(name: str, mesh: str, size: str, overrides: Sequence[str], as_json: bool) -> int:
    """Compile every program of a sweep for a slice, and print what it takes.

    Args:
        name: of the sweep, as `spec.load` takes it.
        mesh: a slice, or a generation.
        size: one of the sweep file's sizes.
        overrides: `path=value` with the value in YAML.
        as_json: print JSON in place of a table.

    Returns:
        The exit code: 1 where the sweep does not fit.

    Raises:
        Refusal: the sweep or the slice is wrong, or the compiler is missing.
    """
    slices = _slices(mesh)
    plan = make_plan(spec.load(name, size, overrides), weights=False)
    if importlib.util.find_spec("libtpu") is None:
        raise Refusal(f"--mesh: the TPU compiler is missing; {install('tpu')}")
    outcome = _smallest(slices, plan)
    if as_json:
        print(json.dumps(asdict(outcome)))
    else:
        _show(outcome)
    return 0 if outcome.fits else 1


def _slices(mesh: str) -> list[MeshSpec]:
    """The slices that `--mesh` names, the smallest first."""
    first, comma, axes = mesh.partition(",")
    if first in GENERATIONS:
        all_of_it = [parse(f"{name}{comma}{axes}") for name in generation(first)]
        divided = [asked for asked in all_of_it if _divides(asked)]
        return divided or all_of_it[-1:]
    asked = parse(mesh)
    if asked.name not in SLICES:
        raise Refusal(
            f"--mesh: {mesh!r} is not a TPU slice; choose from {', '.join(SLICES)}, or "
            f"{', '.join(GENERATIONS)} for the smallest of each that holds the sweep"
        )
    return [asked]


def _divides(asked: MeshSpec) -> bool:
    """Whether the given axes can fill a slice's devices."""
    of_axes, devices = math.prod(asked.axes.values()), _place(asked).devices
    return devices == of_axes if len(asked.axes) == len(AXES) else devices % of_axes == 0


def _smallest(slices: Sequence[MeshSpec], plan: Plan) -> Outcome:
    """How a sweep fits the first of some slices that holds it, or the last one."""
    needed = estimate.largest(plan)
    possible = [asked for asked in slices if needed <= _whole(_place(asked))]
    for asked in possible[:-1]:
        outcome = _Search(asked, plan).outcome()
        if outcome.fits:
            return outcome
    return _Search((possible or slices)[-1], plan).outcome()


def _place(asked: MeshSpec) -> Slice:
    assert asked.name is not None
    return SLICES[asked.name]


def _whole(place: Slice) -> int:
    """Bytes of memory of all devices."""
    return place.memory * place.devices


class _Search:
    """Finds axes and widths for one slice. What was compiled once is not compiled again."""

    def __init__(self, asked: MeshSpec, plan: Plan):
        self._asked, self._plan, self._place = asked, plan, _place(asked)
        self._groups: dict[Programs, list[Cohort]] = {}
        for cohort in plan.cohorts:
            self._groups.setdefault(_programs(cohort), []).append(cohort)
        self._axes = self._layout(1)
        self._compiled: dict[tuple[Program, int, int], Compiled] = {}

    def outcome(self) -> Outcome:
        """On as few devices a run as that takes, and as wide as that allows."""
        while not self._holds() and not self._asked.axes and self._axes["run"] > 1:
            self._axes = self._layout(2 * self._of_a_run)
        found = [self._fit(programs, cohorts) for programs, cohorts in self._groups.items()]
        fits = all(each.fits for each in found)
        needed = max(each.memory for each in found) * self._of_a_run
        return Outcome(
            mesh=str(self._asked.name),
            devices=self._place.devices,
            axes=self._axes,
            fits=fits,
            cohorts=found,
            chip_hours=sum(each.chip_hours for each in found),
            large_enough=[] if fits else _large_enough(max(needed, estimate.largest(self._plan))),
        )

    @property
    def _of_a_run(self) -> int:
        """Devices that a run is spread over."""
        return self._axes["fsdp"] * self._axes["tensor"]

    def _layout(self, least: int) -> dict[str, int]:
        place, needed = self._place, estimate.largest(self._plan)
        return layout(self._asked, place.devices, place.memory, needed, self._plan.rows, least)

    def _holds(self) -> bool:
        """Whether every program fits at width 1; those that are known to be large come first."""
        groups = sorted(self._groups, key=lambda g: -estimate.memory(self._groups[g][0]))
        return all(self._fits(program, 1) for programs in groups for program in programs)

    def _compile(self, program: Program, width: int) -> Compiled:
        key = (program, self._of_a_run, width)
        if key not in self._compiled:
            name = str(self._asked.name)
            self._compiled[key] = compile_elsewhere(program, name, self._axes, width)
        return self._compiled[key]

    def _fits(self, program: Program, width: int) -> bool:
        found = self._compile(program, width)
        return not found.problem and found.memory <= self._place.memory

    def _fit(self, programs: Programs, cohorts: Sequence[Cohort]) -> Fit:
        width, first = self._width(programs, cohorts), cohorts[0]
        lanes = self._axes["run"] * width
        compiled = {program.does: self._compile(program, width) for program in programs}
        step = self._seconds(first, estimate.step_flops(first), width) if first.signature else 0.0
        seconds = 0.0
        for cohort in cohorts:
            measuring = estimate.measuring_flops(cohort) / len(cohort.phases)
            once = cohort.steps * step + self._seconds(cohort, measuring, width)
            seconds += once * math.ceil(len(cohort.phases) / lanes)
        return Fit(
            cohorts=[cohort.kind for cohort in cohorts],
            phases=sum(len(cohort.phases) for cohort in cohorts),
            width=width,
            lanes=lanes,
            programs=compiled,
            memory=max(each.memory for each in compiled.values()),
            room=self._place.memory,
            fits=all(self._fits(program, width) for program in programs),
            step_flops=estimate.step_flops(first) if first.signature else 0.0,
            step_seconds=step,
            chip_hours=seconds * self._place.devices / 3600,
        )

    def _seconds(self, cohort: Cohort, flops: float, width: int) -> float:
        """How long `width` runs take for so many operations each, by what is assumed."""
        place, rows = self._place, cohort.signature.batch if cohort.signature else 0
        splits = self._axes["fsdp"] if rows % self._axes["fsdp"] == 0 else 1
        working = splits * self._axes["tensor"]
        moving = 2 * estimate.memory(cohort) / (place.bandwidth * self._of_a_run)
        return width * max(flops / (UTILISATION * place.peak * working), moving)

    def _width(self, programs: Programs, cohorts: Sequence[Cohort]) -> int:
        """The largest width at which all programs fit, up to what there are phases for. What is
        only measured is measured at width 1."""
        if cohorts[0].signature is None or not all(self._fits(program, 1) for program in programs):
            return 1
        width = max(math.ceil(len(cohort.phases) / self._axes["run"]) for cohort in cohorts)
        for program in sorted(programs, key=lambda p: -self._compile(p, 1).memory):
            width = self._widest(program, width)
        return width

    def _widest(self, program: Program, most: int) -> int:
        """The largest width up to `most` at which one program fits; at 1 it does."""
        fitting, failed = [(1, self._compile(program, 1).memory)], most + 1
        while failed - fitting[-1][0] > 1:
            width = _guess(fitting, failed, self._place.memory, bisect=failed <= most)
            if self._fits(program, width):
                fitting.append((width, self._compile(program, width).memory))
            else:
                failed = width
        return fitting[-1][0]


def _guess(fitting: Sequence[tuple[int, int]], failed: int, room: int, bisect: bool) -> int:
    """A width between the last that fits and one that does not, by the line through what is known
    of the memory that it takes."""
    width, memory = fitting[-1]
    (before, less) = fitting[-2] if len(fitting) > 1 else (0, 0)
    slope = max(1.0, (memory - less) / (width - before))
    reach = width + int((room - memory) / slope)
    if bisect and reach >= failed:
        reach = (width + failed) // 2
    return max(width + 1, min(reach, failed - 1))


def _programs(cohort: Cohort) -> Programs:
    """What is compiled for a cohort: where it is trained, training; reading prompts and scoring in
    any case; and where its models answer prompts, generating."""
    first, config = cohort.phases[0], cohort.phases[0].config
    new_tokens = config.evaluate.answers.new_tokens
    shape = (cohort.model, cohort.signature, config.length, new_tokens)
    measured = measurement_fingerprints(first, None).values()
    speaks = first.on_policy or first.in_rounds or any(ANSWERS in names for names in measured)
    does: list[Does] = ["train"] if cohort.signature else []
    does += ["prefill", "score", *(("generate",) if speaks else ())]
    return tuple(Program(each, *shape) for each in does)


def _large_enough(needed: int) -> list[str]:
    """The smallest slice of each generation with that many bytes of memory."""
    fitting = [
        next((s for s in generation(g) if needed <= _whole(SLICES[s])), "") for g in GENERATIONS
    ]
    return [name for name in fitting if name]


def _show(outcome: Outcome) -> None:
    """Print what was found, for people."""
    for each in outcome.cohorts:
        verdict = "fits" if each.fits else "DOES NOT FIT"
        measured = "" if each.step_flops else " that are only measured"
        print(f"{', '.join(each.cohorts)}: {each.phases} phases{measured}, {verdict}")
        print(f"  width {each.width}: {each.lanes} runs side by side")
        for does, compiled in each.programs.items():
            print(f"  {_told(does, compiled, each.room)}")
        if each.step_flops:
            print(f"  {_flops(each.step_flops)} a step and run, {each.step_seconds:.2g} s a step")
        print(f"  about {each.chip_hours:.2g} chip-hours")
    axes = ",".join(f"{axis}={size}" for axis, size in outcome.axes.items())
    print(f"{outcome.mesh},{axes}: {outcome.devices} chips, {outcome.chip_hours:.2g} chip-hours")
    print(f"assumed: {ASSUMED}")
    if not outcome.fits:
        found = ", ".join(outcome.large_enough) or "no known slice"
        print(f"these should be large enough: {found}")
        print(f"--mesh {' or '.join(GENERATIONS)} compiles to find the smallest of each")


def _told(does: str, compiled: Compiled, room: int) -> str:
    """What the compiler says of one program."""
    if not compiled.memory:
        return f"{does}: {compiled.problem}"
    memory = f"{does}: {as_bytes(compiled.memory)} of {as_bytes(room)} HBM a chip"
    if compiled.memory > room:
        memory += f", {as_bytes(compiled.memory - room)} too much"
    return f"{memory}; compiled in {compiled.seconds:.0f} s, {as_bytes(compiled.host_memory)} here"


def _flops(count: float) -> str:
    """Floating-point operations for people."""
    for unit in ("MFLOP", "GFLOP", "TFLOP"):
        count /= 1000
        if count < 1e6:
            return f"{count / 1000:,.1f} {unit}"
    return f"{count / 1000:,.1f} PFLOP"
