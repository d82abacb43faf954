"""Measures what a results folder holds in another way; trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxorg.cli.sweep import SweepOptions, execute
from jaxorg.errors import Refusal
from jaxorg.evaluators import EVALUATORS
from jaxorg.planning import manifest
from jaxorg.planning.plan import Plan, make_plan
from jaxorg.suggest import choose
from jaxorg.sweepfile.spec import measured_otherwise


def measure_folder(
    folder: Path, overrides: Sequence[str], only: str | None, mesh: str | None, width: str
) -> int:
    """Measure the phases of a folder that are done, as far as their measurements are missing.

    Args:
        folder: a sweep's results.
        overrides: `path=value` of what is only measured.
        only: the evaluator that measures; None for all.
        mesh: as in `SweepOptions`.
        width: as in `SweepOptions`.

    Returns:
        The exit code, as `run_sweep` does.

    Raises:
        Refusal: the folder is no results folder, or was made from other files or by another jaxorg,
            or measuring would take training.
        StorageError: the disk does not take the results.
    """
    if only is not None and only not in EVALUATORS:
        raise Refusal(f"--only: {only!r} is not an evaluator; {choose(only, EVALUATORS)}")
    known = manifest.of_results(folder, "DIR")
    plan = make_plan(measured_otherwise(known.source, known.size, overrides))
    scored_otherwise = any(override.startswith("prompts.scorer") for override in overrides)
    _check_alike(plan, known, scored_otherwise)
    if only is not None and not _measures(plan, only):
        raise Refusal(f"--only: {only} measures nothing here; add --set evaluate.{only}=…")
    options = SweepOptions(
        size=known.size, out=folder, mesh=mesh, width=width, trains=False, only=only
    )
    return execute(plan, options)


def _measures(plan: Plan, evaluator: str) -> bool:
    """Whether an evaluator measures anything of a sweep."""
    steps = (step for p in plan.phases for step in plan.measurements(p.fingerprint).values())
    return any(evaluator in names for names in steps)


def _check_alike(plan: Plan, known: manifest.Manifest, scored_otherwise: bool) -> None:
    """See that the phases are those that the folder is for."""
    now = manifest.Manifest.of(plan).runs
    others = [name for name, chain in known.runs.items() if [*chain] != [*now.get(name, ())]]
    asking = next((phase for phase in plan.phases if phase.asked_scorer), None)
    if others and scored_otherwise and asking and asking.recipe:
        raise Refusal(
            f"prompts.scorer: the {asking.kind} {asking.recipe.kind!r} asks it while it trains, so "
            f"with another one that is trained anew; use python -m jaxorg.sweep"
        )
    if others:
        raise Refusal(
            f"DIR: run {others[0]} was made from other files or by another version of jaxorg; "
            f"put the base model and the prompts back, or use the jaxorg of its git_commit"
        )
