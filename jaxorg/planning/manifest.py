"""What a results folder says of its sweep: which runs it is for, and how many of them are done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxorg.errors import Damaged, Refusal
from jaxorg.planning.plan import Plan
from jaxorg.storage import lock
from jaxorg.storage.folder import Folder, named, read_json
from jaxorg.storage.glance import glance
from jaxorg.storage.layout import ENTRIES, PlanShape, VersionShape
from jaxorg.sweepfile.labels import PHASE_ORDER, Kind
from jaxorg.sweepfile.run_config import MEASURED

VERSION = 4  # of the layout; 1 had no plan.json, 2 other fields, 3 answers without tokens
NAME = "plan.json"


@dataclass(frozen=True)
class Manifest:
    """The sweep that a folder was last used for."""

    sweep: str
    size: str
    source: Mapping[str, Any]  # the file with size and overrides applied
    runs: Mapping[str, Sequence[str]]  # run_id -> its chain's fingerprints
    phases: Mapping[str, tuple[Kind, int]]  # fingerprint -> kind, and tokens to train on

    @classmethod
    def of(cls, plan: Plan) -> Manifest:
        """The manifest of a plan."""
        phases = {
            phase.fingerprint: (phase.kind, phase.steps * cohort.tokens_a_step)
            for cohort in plan.cohorts
            for phase in cohort.phases
        }
        runs = {run.run_id: [phase.fingerprint for phase in run.phases] for run in plan.runs}
        spec = plan.spec
        return cls(spec.sweep.name, spec.size, spec.source, runs, phases)

    def measures_otherwise(self, other: Manifest) -> bool:
        """Whether the same phases are measured in another way."""
        return _measuring(self.source) != _measuring(other.source)

    def write(self, folder: Folder, place: Path) -> None:
        """Write it to a place in a folder."""
        folder.write_json(place / NAME, {"version": VERSION, **vars(self)})


def _measuring(source: Mapping[str, Any]) -> list[Any]:
    """What a sweep's file says of what is only measured."""
    found = []
    for path in MEASURED:
        here: Any = source
        for name in path.split("."):
            here = (here or {}).get(name)
        found.append(here)
    return found


def read(path: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        Refusal: another version of jaxorg wrote the folder.
        Damaged: it is not what was written.
    """
    place = path / NAME
    if not os.path.lexists(place):
        if is_of_version_1(path):
            raise Refusal(_other_version(path, 1))
        return None
    version = read_json(place, VersionShape)["version"]
    if version != VERSION:
        raise Refusal(_other_version(path, version))
    content = read_json(place, PlanShape)
    phases = {
        fingerprint: (kind, tokens) for fingerprint, (kind, tokens) in content["phases"].items()
    }
    about = {name: content[name] for name in ("sweep", "size", "source", "runs")}
    return Manifest(**about, phases=phases)


def is_of_version_1(path: Path) -> bool:
    """Whether a folder looks as the first version of the layout did, which had no manifest."""
    unmarked = not os.path.lexists(path / NAME) and not os.path.lexists(path / lock.NAME)
    return unmarked and bool(named(path / "phases", ENTRIES["phases"]))


def of_results(path: Path, key: str) -> Manifest:
    """The manifest of a folder that must hold results; `key` names in messages what gave it.

    Raises:
        Refusal: it holds none, or none that can be read.
    """
    try:
        known = read(path)
    except Damaged as problem:
        raise Refusal(f"{key}: {problem}; run the sweep again, which mends it") from problem
    if known is None:
        raise Refusal(f"{key}: {str(path)!r} is no results folder; give the --out of a sweep")
    return known


def _other_version(path: Path, version: object) -> str:
    return (
        f"--out: {path} has layout version {version!r:.20}, and this jaxorg reads and writes "
        f"version {VERSION}; choose another folder, or use the jaxorg that wrote it"
    )


@dataclass(frozen=True)
class Standing:
    """How far a sweep is."""

    runs: Counter[str]  # done, diverged, failed, training or missing
    phases: Mapping[str, Counter[str]]  # the same by kind
    tokens_done: int  # trained on, in phases that are done
    tokens_left: int
    chip_seconds: float  # that the done phases took
    errors: Mapping[str, str]  # fingerprint -> why it failed


def standing(manifest: Manifest, path: Path) -> Standing:
    """How far the sweep of a folder is; reads notes only and changes nothing."""
    seen = {fingerprint: glance(path, fingerprint) for fingerprint in manifest.phases}
    phases = {kind: Counter[str]() for kind in PHASE_ORDER}
    tokens: Counter[bool] = Counter()
    for fingerprint, (kind, count) in manifest.phases.items():
        phases[kind][seen[fingerprint].state] += 1
        tokens[seen[fingerprint].state in ("done", "diverged")] += count
    return Standing(
        runs=Counter(
            _of_run([seen[fingerprint].state for fingerprint in r]) for r in manifest.runs.values()
        ),
        phases={kind: counts for kind, counts in phases.items() if counts},
        tokens_done=tokens[True],
        tokens_left=tokens[False],
        chip_seconds=sum(found.chip_seconds for found in seen.values()),
        errors={fingerprint: found.error for fingerprint, found in seen.items() if found.error},
    )


def _of_run(states: Sequence[str]) -> str:
    """A run's state from those of its phases, in their order."""
    return next((state for state in states if state != "done"), "done")
