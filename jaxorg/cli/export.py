"""The command `python -m jaxorg.export`: a phase's weights as a folder for Transformers or PEFT."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from jaxorg.cli import common
from jaxorg.cli.card import About, write_card
from jaxorg.cli.staging import staged
from jaxorg.data.cache import DatasetCache
from jaxorg.distributed import runtime
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.run.weights import weights_after
from jaxorg.errors import Damaged, Refusal
from jaxorg.llama import folders
from jaxorg.llama.folders import Origin
from jaxorg.planning import manifest
from jaxorg.planning.phases import Phase, Run
from jaxorg.planning.plan import Plan, make_plan
from jaxorg.storage.folder import Folder
from jaxorg.storage.glance import checked_manifest, glance, names_weights
from jaxorg.storage.results import SEEDS
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import everything
from jaxorg.summary import read_table
from jaxorg.sweepfile.labels import Kind
from jaxorg.sweepfile.run_config import RunConfig
from jaxorg.sweepfile.seeds import Seeds
from jaxorg.sweepfile.spec import RunSpec, Spec, Sweep

Form = Literal["hf", "peft"]
SHOWN = 5  # run ids in a message
COLUMNS = ("run_id", "arm", "control", "seed", *SEEDS, "config")


def export_phase(folder: Path, run_id: str, path: Path, phase: Kind | None, to: Form) -> None:
    """Write a phase of a run as a folder for Transformers or PEFT.

    Args:
        folder: a sweep's results.
        run_id: the run's id, or its beginning.
        path: the new folder.
        phase: whose weights to take; None for the run's last.
        to: `hf` for the whole model, `peft` for the phase's adapters.

    Raises:
        Refusal: there is no such phase, or nothing to take of it.
        StorageError: the disk does not take the folder.
    """
    path = _new_place(path)
    source = Source(folder, *_found(folder, run_id))
    chosen = source.phase(phase)
    if to == "peft":
        source.check_adapters(chosen)
    else:
        source.check(chosen)
    runtime.start()
    with staged(path) as place, _undamaged():
        if to == "peft":
            source.write_adapters(chosen, place, path)
        else:
            source.write_model(chosen, place)
    print(f"{chosen.kind} of run {source.about.run_id} is in {path}")


@dataclass(frozen=True)
class Source:
    """One run of a results folder, of which phases are taken. Nothing in the folder is changed."""

    folder: Path
    about: About
    plan: Plan  # of this run alone

    @property
    def _run(self) -> Run:
        return self.plan.runs[0]

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(self.plan, DatasetCache(Folder(self.folder, common.say)))

    @cached_property
    def _store(self) -> Store:
        return Store(Folder(self.folder, common.say))

    def phase(self, kind: Kind | None) -> Phase:
        """The run's phase of a kind, or its last.

        Raises:
            Refusal: it has none, or it is not done.
        """
        phases = {phase.kind: phase for phase in self._run.phases}
        found = phases.get(kind or self._run.phases[-1].kind)
        if found is None:
            raise Refusal(
                f"--phase: {kind!r} is no phase of run {self.about.run_id}; choose from "
                f"{', '.join(phases)}"
            )
        state, _, error = glance(self.folder, found.fingerprint)
        if state not in ("done", "diverged"):
            raise Refusal(
                f"--phase: the {found.kind} of run {self.about.run_id} is {state}"
                f"{error and f' ({error})'}; export an earlier phase, or run the sweep again"
            )
        return found

    def check_adapters(self, phase: Phase) -> None:
        """See that a phase trained adapters, and that they and what they stand on are whole.

        Raises:
            Refusal: otherwise.
        """
        if not phase.lora:
            trained = "all weights" if phase.changes else "nothing"
            raise Refusal(
                f"--to: 'peft' takes adapters, but the {phase.kind} of run {self.about.run_id} "
                f"trained {trained}; use --to hf"
            )
        self.check(phase)

    def check(self, phase: Phase) -> None:
        """See that a phase's record and the weights that it comes to are whole.

        Raises:
            Refusal: they are not, or the weights were not kept.
        """
        needed = self.plan.made_of(phase)
        for fingerprint in {phase.fingerprint, *needed}:
            with _undamaged():
                manifest = checked_manifest(self.folder, fingerprint)
            if fingerprint in needed and not names_weights(manifest):
                raise Refusal(
                    f"--phase: the weights of the {phase.kind} of run {self.about.run_id} were not "
                    f"kept (--keep none); run the sweep again with --keep final --fresh"
                )

    def write_model(self, phase: Phase, place: Path) -> None:
        """Write the whole model that a phase ends with into `place`, which is made."""
        place.mkdir()
        read = weights_after(phase, self.plan, self._inputs, self._store)
        weights = everything(read, self._inputs.shapes(phase.config.base.model))
        folders.write_model(place, weights, self._origin)
        self._write_card(phase, place, adapters=False)

    def write_adapters(self, phase: Phase, place: Path, final: Path) -> None:
        """Write a phase's adapters into `place`, which is made and will be renamed to `final`.

        They stand on the base model as it was given, or else on a copy of what they were trained
        on, in `base`.
        """
        place.mkdir()
        stands_on, revision = self._given_base
        if below := self.plan.below(phase):
            self.write_model(below, place / "base")
            stands_on, revision = str(final / "base"), None
        assert phase.lora is not None
        read, shapes = self._store.reader(phase.fingerprint), self._inputs.trained_shapes(phase)
        adapters = everything(read, shapes)
        shape, alpha = phase.lora.signature(), phase.lora.alpha
        folders.write_adapters(place, adapters, shape, alpha, stands_on, revision, self._origin)
        self._write_card(phase, place, adapters=True)

    @property
    def _given_base(self) -> tuple[str, str | None]:
        """How others find the base model: its folder, or its hub id and revision."""
        model, folder = self._run.spec.own.base.model, self._origin.folder
        if "/" not in model or folder == Path(model):
            return os.path.abspath(folder), None
        name, _, revision = model.partition("@")
        return name, revision or None

    @property
    def _origin(self) -> Origin:
        base = self._run.spec.own.base
        return Origin(self.plan.folders[base.model], base.chat_template, base.template_options)

    def _write_card(self, phase: Phase, place: Path, adapters: bool) -> None:
        chain = self._run.phases[: self._run.phases.index(phase) + 1]
        wanted = self.plan.measured(phase.fingerprint)
        text = write_card(
            self.about, chain, self._store.record(phase.fingerprint, wanted), adapters
        )
        (place / "README.md").write_text(text, encoding="utf-8")


@contextmanager
def _undamaged() -> Iterator[None]:
    """Refuse what is damaged, and leave it as it is."""
    try:
        yield
    except Damaged as problem:
        raise Refusal(f"DIR: {problem}; run the sweep again, which makes it anew") from problem


def _found(folder: Path, prefix: str) -> tuple[About, Plan]:
    """The run whose id begins with `prefix`, and the plan of it alone.

    Raises:
        Refusal: there is no such run, several, or one of other files than are here now.
    """
    known = manifest.of_results(folder, "DIR")
    run_id = _whole(prefix, list(known.runs))
    runs = read_table(folder, "runs", COLUMNS, required=False)
    rows = runs[runs.run_id == run_id].to_dict("records")
    if not rows:
        raise Refusal(f"RUN_ID: run {run_id} has not ended; run the sweep again, which goes on")
    row = rows[0]
    try:
        config = RunConfig.model_validate_json(row["config"])
        sweep = Sweep(name=known.sweep)
    except ValidationError as error:
        raise Refusal(
            f"DIR: run {run_id} has a config that this jaxorg does not know; use the one that "
            f"made it"
        ) from error
    seeds = Seeds(*(int(row[name]) for name in SEEDS))
    run = RunSpec({}, row["control"], int(row["seed"]), seeds, config)
    plan = make_plan(Spec(sweep, known.size, [run], known.source))
    for at, phase in enumerate(plan.runs[0].phases):
        if known.runs[run_id][at : at + 1] != [phase.fingerprint]:
            raise Refusal(
                f"DIR: the {phase.kind} of run {run_id} was made from other files or by another "
                f"version of jaxorg; put the base model and the prompts back, or use the "
                f"jaxorg of its git_commit"
            )
    about = About(
        known.sweep, known.size, run_id, row["arm"], run.control, run.seed, seeds._asdict()
    )
    return about, plan


def _whole(prefix: str, known: list[str]) -> str:
    """The one run id that begins with `prefix`."""
    found = [run_id for run_id in known if run_id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    shown = found or known
    listed = ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" * (len(shown) > SHOWN))
    if found:
        raise Refusal(f"RUN_ID: {prefix!r} begins {len(found)} runs, {listed}; give more of it")
    raise Refusal(f"RUN_ID: {prefix!r} is not a run of it; its runs are {listed}")


def _new_place(path: Path) -> Path:
    """The absolute path of a folder to come; refuses one that holds anything."""
    path = Path(os.path.abspath(path))
    if os.path.lexists(path) and not _is_empty_folder(path):
        raise Refusal(f"PATH: {path} exists; nothing is overwritten, so give a new folder")
    return path


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
