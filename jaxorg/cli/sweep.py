"""A sweep from its file to its results: plans, trains, measures, writes tables, and says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jax.sharding import Mesh

from jaxorg.cli import common
from jaxorg.cli.console import Console
from jaxorg.cli.doubts import doubts
from jaxorg.config import content_hash
from jaxorg.data.cache import DatasetCache
from jaxorg.distributed import processes, runtime
from jaxorg.distributed.interrupt import Interrupt, Interrupting, Stopped
from jaxorg.engine.measure.tables import TableWriter
from jaxorg.engine.mesh import (
    cpu_devices,
    described,
    foreseen,
    make_mesh,
    own_cpu_devices,
    parse,
    run_memory,
)
from jaxorg.engine.run import estimate, judging
from jaxorg.engine.run.answers import ask_teachers
from jaxorg.engine.run.execute import Engine
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.run.profile import Profile, check_folder, nothing_traced
from jaxorg.engine.run.width import most_lanes
from jaxorg.errors import Damaged, Refusal, StorageError
from jaxorg.planning import manifest
from jaxorg.planning.out_folder import check_out
from jaxorg.planning.phases import Phase
from jaxorg.planning.plan import Plan, make_plan
from jaxorg.scorers import judge
from jaxorg.storage.folder import Folder, free_place
from jaxorg.storage.glance import Record, glance
from jaxorg.storage.layout import Keep
from jaxorg.storage.led_store import LedStore
from jaxorg.storage.lock import Lock
from jaxorg.storage.store import Store
from jaxorg.sweepfile import spec
from jaxorg.sweepfile.prereg import block_hash

WALKS = 10  # through the cohorts, before damage is no accident


@dataclass(frozen=True)
class SweepOptions:
    """What is asked of a sweep besides its file."""

    size: str = "laptop"  # one of the file's
    overrides: Sequence[str] = ()  # `path=value` with the value in YAML
    out: Path | None = None  # folder of results; None: results/SWEEP-SIZE
    mesh: str | None = None  # a mesh's name; None: all devices
    width: str = "auto"  # runs that a device trains side by side, or auto
    keep: Keep = "final"
    dry_run: bool = False  # print the plan and stop
    retry_failed: bool = False
    fresh: bool = False  # forget what is done
    distributed: bool = False  # join the other processes of the cluster
    profile: Path | None = None  # folder for traces of some calls
    trains: bool = True  # or measures alone, what is trained
    only: str | None = None  # the evaluator that measures; None: all
    in_process: bool = False  # of somebody who goes on after it, as a notebook does


def run_sweep(name: str, options: SweepOptions) -> int:
    """Train, treat and measure every run of a sweep that is not done.

    Args:
        name: a built-in sweep's name, or the path of a YAML file.
        options: what is asked besides.

    Returns:
        The exit code: 0, 1 if runs failed, 75 or 130 if a signal stopped it.

    Raises:
        Refusal: something in the file or the options is wrong.
        StorageError: the disk does not take the results.
    """
    with nullcontext() if options.dry_run else processes.joined(options.distributed):
        return execute(make_plan(spec.load(name, options.size, options.overrides)), options)


def default_folder(asked: spec.Spec, size: str) -> Path:
    """Where results go unless something else is said."""
    return Path("results") / f"{asked.sweep.name}-{size}"


def execute(plan: Plan, options: SweepOptions) -> int:
    """Bring a plan to its results, as `run_sweep` does."""
    runs_a_device = _width(options.width)
    asked = parse(options.mesh)
    console = Console(plan)
    place = options.out or default_folder(plan.spec, options.size)
    folder = Folder(place, console.warn)
    processes.first("folder", lambda: check_out(folder.path, options.fresh))
    if options.profile:
        processes.first("profile", partial(check_folder, options.profile))
    inputs = Inputs(plan, DatasetCache(folder))
    inputs.check()
    judges = estimate.judging(plan, inputs)
    judging.check(judges, inputs)
    if options.dry_run:
        _foretell(plan, inputs, judges, console)
        cores = cpu_devices(asked) or runtime.cores()
        where = foreseen(asked, estimate.largest(plan), _side_by_side(plan), plan.rows)
        console.print_plan(cores if asked.platform in (None, "cpu") else None, options.keep, where)
        return 0
    _agree(plan, options, folder)
    said = cpu_devices(asked) is not None
    runtime.start(own_cpu_devices(asked, _side_by_side(plan)), fewer_will_do=not said)
    devices = make_mesh(asked, estimate.largest(plan), plan.rows)
    lanes = most_lanes(devices, runs_a_device, min(map(estimate.memory, plan.cohorts)))
    processes.first(
        "room",
        lambda: _refuse_too_large(plan, options.keep, folder, options.fresh, devices, lanes),
    )
    if processes.leads():
        _foretell(plan, inputs, judges, console)
    lock = Lock(folder)
    listener = Interrupting() if options.in_process else Interrupt()
    with ExitStack() as held, listener as interrupt:
        taken_over = processes.first("lock", lambda: held.enter_context(lock.held()))
        if taken_over:
            console.warn(taken_over)
        store = LedStore(folder) if processes.count() > 1 else Store(folder)
        tables = TableWriter(plan, store)
        if options.fresh:
            processes.first("fresh", lambda: _forget(store, tables, inputs))

        def stopping() -> int | None:
            if processes.leads():
                lock.check()
            return processes.any_of("signal", interrupt.exit_code)

        profile = Profile(options.profile) if options.profile and processes.leads() else None
        engine = Engine(
            plan, inputs, store, devices, runs_a_device, options.keep, console, stopping,
            provenance=_provenance(plan, described(devices)), only=options.only,
            traced=profile.traced if profile else nothing_traced,
        )  # fmt: skip
        if not options.trains:
            processes.first("alone", lambda: _refuse_training(engine))
        processes.first(
            "enter", lambda: _enter(plan, folder, store, tables, console, options.retry_failed)
        )
        _see(plan, folder)
        to_train = _phases("to train", plan, lambda: engine.to_train)
        processes.first(
            "measure",
            lambda: console.print_measuring(
                engine.to_read, engine.to_measure, engine.to_train_again
            ),
        )

        def ask() -> None:
            due = _phases("due", plan, lambda: engine.due)
            ask_teachers(due, inputs, store, devices, stopping, console.asked)

        watched = console.progress(to_train, lock, described(devices))
        try:
            with watched if processes.leads() else nullcontext():
                _walk(plan, engine, tables, ask)
        except Stopped as stopped:
            return stopped.exit_code
    if profile:
        console.warn(profile.told())
    return processes.first("results", lambda: _tell(plan, folder, store, console, engine.unread))


def _walk(plan: Plan, engine: Engine, tables: TableWriter, ask: Callable[[], None]) -> None:
    """Bring every cohort to its end, and its results into the tables; from the first again where
    something that was done turned out to be damaged.

    Args:
        plan: the sweep.
        engine: brings cohorts to their end.
        tables: are written after each.
        ask: has teachers answer what is due by then.

    Raises:
        Stopped: a signal asked for it.
        StorageError: the disk does not take the results, or damages them again and again.
    """
    for _ in range(WALKS):
        try:
            ask()
            for cohort in plan.cohorts:
                engine.run(cohort)
                processes.first("tables", partial(tables.write, cohort))
            return
        except Damaged as problem:
            processes.shared(problem)
            found = problem
            engine.look_again()
    raise StorageError(f"{found}; that was damage for the {WALKS}th time, so check the disk")


def _refuse_training(engine: Engine) -> None:
    """Have nothing trained, and refuse what takes training."""
    if again := engine.measure_alone():
        kinds = Counter(phase.kind for phase in again)
        listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        raise Refusal(
            f"evaluate: {listed} phases would have to be trained again, as the weights to measure "
            f"were not stored; ask for `at: last` alone, or for the whole sweep by "
            f"python -m jaxorg.sweep"
        )


def _agree(plan: Plan, options: SweepOptions, folder: Folder) -> None:
    """See that all processes were started for the same work."""
    asked = [options.mesh, options.width, options.keep, options.fresh, options.retry_failed]
    phases = [phase.fingerprint for phase in plan.phases]
    about = [asked, str(folder.path), phases, runtime.versions()]
    processes.same(
        "start",
        content_hash(about),
        "--distributed: the processes differ in options, sweep file, inputs or versions; start all "
        "with the same command",
    )


def _foretell(
    plan: Plan, inputs: Inputs, judges: Mapping[judge.Judge, judge.Estimate], console: Console
) -> None:
    """Say what a sweep leaves out, cannot show, and asks of judges; nothing refuses it any more."""
    for line in (*inputs.passed_over(), *inputs.left_out(), *doubts(plan, inputs)):
        console.warn(line)
    for each, most in judges.items():
        console.judging(each, most)


def _phases(point: str, plan: Plan, found: Callable[[], Sequence[Phase]]) -> list[Phase]:
    """Some of a plan's phases, as the first process finds them."""
    names = set(processes.first(point, lambda: [phase.fingerprint for phase in found()]))
    return [phase for phase in plan.phases if phase.fingerprint in names]


def _refuse_too_large(
    plan: Plan, keep: Keep, folder: Folder, fresh: bool, devices: Mesh, lanes: int
) -> None:
    """Refuse a sweep that the disk or a device has no room for."""
    done = set() if fresh else _done(plan, folder.path)
    estimate.refuse_too_large(plan, keep, folder.path, done, run_memory(devices), lanes)


def _tell(
    plan: Plan, folder: Folder, store: Store, console: Console, unread: Mapping[str, str]
) -> int:
    """Show the results.

    Args:
        plan: the sweep.
        folder: its results.
        store: knows which phases failed.
        console: shows them.
        unread: phases whose answers could not be read, and why.

    Returns:
        The exit code.
    """
    console.print_results(folder.path)
    failed = sum(any(store.failure(p.fingerprint) for p in run.phases) for run in plan.runs)
    if failed:
        common.say(
            f"{failed} of {len(plan.runs)} runs failed; --status {folder.path} says why, and "
            f"--retry-failed tries them again"
        )
    if unread:
        (first, *_) = unread.values()
        common.say(f"answers of models were not read ({first}); the same command reads them")
    return 1 if failed or unread else 0


def _forget(store: Store, tables: TableWriter, inputs: Inputs) -> None:
    """Forget what is done."""
    store.clear()
    tables.clear()
    inputs.drop_datasets(())


def _enter(
    plan: Plan,
    folder: Folder,
    store: Store,
    tables: TableWriter,
    console: Console,
    retry_failed: bool,
) -> None:
    """Make a folder that of this plan; tables of runs that are not in it are moved, not lost."""
    before, now = None, manifest.Manifest.of(plan)
    try:
        before = manifest.read(folder.path)
    except Damaged as problem:
        folder.set_aside(folder.path / manifest.NAME, problem)
    earlier = free_place(folder.path / "earlier" / "sweep")
    otherwise = before is not None and before.measures_otherwise(now)
    moved = tables.move_all(earlier) if otherwise else tables.move_others(earlier)
    if before and (otherwise or before.runs != now.runs):
        before.write(folder, earlier)
        console.changed(before, now, earlier if moved else None)
    now.write(folder, folder.path)
    if retry_failed:
        store.forgive_all()


def _see(plan: Plan, folder: Folder) -> None:
    """See that a process's folder is the one that the first process has entered.

    Raises:
        Refusal: it is not.
    """
    with suppress(Damaged):
        known = manifest.read(folder.path)
        if known and known.runs == manifest.Manifest.of(plan).runs:
            return
    raise Refusal(
        f"--out: {folder.path} is not visible to all processes; give a folder on a shared disk"
    )


def _provenance(plan: Plan, where: str) -> Record:
    """What each record says of the program that made it, and of what was claimed by then."""
    return {
        "prereg": block_hash(plan.spec.sweep.prereg),
        "device": where,
        "versions": json.dumps(runtime.versions()),
        "git_commit": runtime.git_commit(),
    }


def _done(plan: Plan, place: Path) -> set[str]:
    """Phases whose results are in a folder already, by what it says."""
    fingerprints = (phase.fingerprint for phase in plan.phases)
    return {
        fingerprint for fingerprint in fingerprints if glance(place, fingerprint).state == "done"
    }


def _side_by_side(plan: Plan) -> int:
    """The most runs that could be trained side by side."""
    return max(len(cohort.phases) for cohort in plan.cohorts)


def _width(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise Refusal(f"--width: {text!r} is invalid; give auto or a positive number")
    return int(text)
