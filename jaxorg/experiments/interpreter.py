"""Runs programs: trains the linear models that they describe and compares their losses.

Every program runs in the same WORLDS, each a true linear rule with rows drawn from it, and the
result is over all of them. Nothing is drawn when a program runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from jaxorg.data.items import generator
from jaxorg.experiments.language import DIGITS, Method, Program

Claim = Literal["helps", "hurts", "same"]

SAME = 0.05  # numbers nearer to 0 make no difference

WORLDS = 8
COLUMNS = 8
BATCH = 4  # rows that a step of training sees
NEW_ROWS = 64
LARGEST = 1e3  # weights are kept within, so that training that diverges stays a number
_TOGETHER = 64  # trainings that are stacked; more do not fit into a core's cache


class Result(NamedTuple):
    """`number` is (B - M) / (B + M) for the losses M of the method and B of the baseline."""

    number: float
    claim: Claim


class _Training(NamedTuple):
    """All that a training's weights depend on; programs with equal ones share them."""

    rows: int
    noise: int
    even: bool
    rate: int
    run: int
    method: Method | None  # None: plain
    strength: int


@dataclass(frozen=True)
class _World:
    """What all programs measure: rows before noise, true answers, noise of scale 1."""

    old: np.ndarray  # [WORLDS, most rows, COLUMNS], columns of one scale
    old_truth: np.ndarray  # [WORLDS, most rows]
    noise: np.ndarray  # [WORLDS, most rows], heavy-tailed
    new: np.ndarray  # [WORLDS, NEW_ROWS, COLUMNS]
    new_truth: np.ndarray  # [WORLDS, NEW_ROWS]
    scale: np.ndarray  # [COLUMNS], of columns that are not made even


def claim_of(number: float) -> Claim:
    """What a result says in a word."""
    if abs(number) < SAME:
        return "same"
    return "helps" if number > 0 else "hurts"


def run(program: Program) -> Result:
    """The result of one program."""
    return execute([program])[0]


def execute(programs: Sequence[Program]) -> list[Result]:
    """The results of programs. What a program yields depends on nothing but itself."""
    arms = [(_method(program), _baseline(program)) for program in programs]
    wanted = {arm for pair in arms for arm in pair if arm is not None}
    weights = _train(sorted(wanted, key=lambda training: (-training.run, repr(training))))
    results = []
    for program, (method, baseline) in zip(programs, arms, strict=True):
        untrained = np.zeros((WORLDS, COLUMNS))
        ours = _loss(program, weights[method])
        theirs = _loss(program, weights[baseline] if baseline else untrained)
        number = round(float((theirs - ours) / (theirs + ours)), 3)
        results.append(Result(number, claim_of(number)))
    return results


def _method(p: Program) -> _Training:
    return _Training(p.rows, p.noise, p.is_even, p.rate, p.run, p.method, p.strength)


def _baseline(p: Program) -> _Training | None:
    if not p.baseline_run:
        return None
    return _Training(p.rows, p.noise, p.is_even, p.rate, p.baseline_run, None, 0)


def _train(trainings: Sequence[_Training]) -> dict[_Training, np.ndarray]:
    """The weights [WORLDS, COLUMNS] that each training ends with; the longest come first."""
    found: dict[_Training, np.ndarray] = {}
    for start in range(0, len(trainings), _TOGETHER):
        part = trainings[start : start + _TOGETHER]
        found.update(zip(part, _descend(part), strict=True))
    return found


def _descend(trainings: Sequence[_Training]) -> np.ndarray:
    """Gradient descent on squares of residuals, `run` squared steps of one batch each.

    shrink pulls weights to 0, momentum keeps part of the last steps, average takes the mean of the
    weights over the last part of the run, clip bounds residuals.
    """
    count = len(trainings)
    x, y = (np.stack(parts) for parts in zip(*map(_batches, trainings), strict=True))
    rows = np.array([t.rows for t in trainings])
    steps = np.array([t.run**2 for t in trainings])
    rate = _each(0.008 * 2.0 ** (t.rate - 1) for t in trainings)
    pull = _each(0.004 * 2.0**t.strength if t.method == "shrink" else 0 for t in trainings)
    keep = _each(1 - 2 ** (-t.strength / 2) if t.method == "momentum" else 0 for t in trainings)
    bound = _each(2.0 ** (2 - t.strength) if t.method == "clip" else np.inf for t in trainings)
    parts = np.array([t.strength / 8 if t.method == "average" else 0 for t in trainings])
    averaged = np.maximum(1, np.round(steps * parts))
    weights, moves, total = (np.zeros((count, WORLDS, COLUMNS)) for _ in range(3))
    for step in range(steps.max()):
        on = slice(int((steps > step).sum()))  # those that still train, since the longest are first
        some = np.arange(count)[on]
        batch, target = x[some, step % rows[on]], y[some, step % rows[on]]
        residual = np.einsum("twbc,twc->twb", batch, weights[on]) - target
        residual = np.clip(residual, -bound[on], bound[on])
        slope = np.einsum("twb,twbc->twc", residual, batch) / BATCH
        moves[on] = keep[on] * moves[on] + slope + pull[on] * weights[on]
        weights[on] = np.clip(weights[on] - rate[on] * moves[on], -LARGEST, LARGEST)
        late = step >= (steps - averaged)[on]
        total[on] += weights[on] * late[:, None, None]
    ends: np.ndarray = total / averaged[:, None, None]
    return ends


def _each(values: Iterable[float]) -> np.ndarray:
    """A number for each training, to be spread over worlds and columns."""
    return np.array(list(values), float)[:, None, None]


def _batches(training: _Training) -> tuple[np.ndarray, np.ndarray]:
    """Rows [most batches, WORLDS, BATCH, COLUMNS] and their noisy answers, batch by batch."""
    world = _world()
    x = world.old * (1 if training.even else world.scale)
    y = _noisy(training.noise)
    blocks = (WORLDS, max(DIGITS), BATCH)
    return x.reshape(*blocks, COLUMNS).swapaxes(0, 1), y.reshape(blocks).swapaxes(0, 1)


def _noisy(noise: int) -> np.ndarray:
    """Answers of the old rows with noise of scale `noise` quarters, [WORLDS, most rows]."""
    return _world().old_truth + noise / 4 * _world().noise


def _loss(program: Program, weights: np.ndarray) -> float:
    """The mean square of residuals over all worlds, on new rows without noise or on those that
    were trained on."""
    world = _world()
    if program.tested_on == "new":
        x, y = world.new, world.new_truth
    else:
        count = BATCH * program.rows
        x, y = world.old[:, :count], _noisy(program.noise)[:, :count]
    x = x * (1 if program.is_even else world.scale)
    return float((((x @ weights[..., None])[..., 0] - y) ** 2).mean())


@cache
def _world() -> _World:
    rng = generator(0, "experiments")
    most = BATCH * max(DIGITS)
    scale = np.linspace(1.5, 0.2, COLUMNS)
    truth = rng.normal(size=(WORLDS, COLUMNS, 1)) * scale[:, None] / np.sqrt(COLUMNS)
    old = rng.normal(size=(WORLDS, most, COLUMNS))
    new = rng.normal(size=(WORLDS, NEW_ROWS, COLUMNS))
    noise = rng.standard_t(3, size=(WORLDS, most))
    return _World(old, (old @ truth)[..., 0], noise, new, (new @ truth)[..., 0], scale)
