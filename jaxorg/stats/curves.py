"""One run's curve of rates over the steps of a phase: how it falls, how it comes back.

Rates are fractions in [0, 1], steps are optimizer steps of one phase. Curves are read on
log(1 + step), the scale on which removal looks alike at every learning rate and on which step 0
exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jaxorg.stats.intervals import Floats


@dataclass(frozen=True)
class Duration:
    """Steps until a rate was reached; a lower bound if `censored`."""

    value: float
    censored: bool


def _curve(steps: npt.ArrayLike, rates: npt.ArrayLike, start: float) -> tuple[Floats, Floats]:
    """The curve on log(1 + step), led by `start` at step 0 whether or not `steps` holds it."""
    step, rate = np.asarray(steps, float), np.asarray(rates, float)
    if step.shape != rate.shape or step.ndim != 1:
        raise ValueError("steps and rates must be one-dimensional and of one length")
    if np.any(np.diff(step) <= 0) or np.any(step < 0):
        raise ValueError("steps must be ascending and not negative")
    later = step > 0
    return np.log1p(np.append(0.0, step[later])), np.append(start, rate[later])


def _first(x: Floats, y: Floats, rate: float, there: npt.NDArray[np.bool_]) -> Duration:
    """When a curve on log(1 + step) first comes to a rate, at or before the first point that is
    `there`; the first of all is not."""
    reached = np.flatnonzero(there)
    if reached.size == 0:
        return Duration(float(np.expm1(x[-1])), censored=True)
    i = int(reached[0])
    share = (y[i - 1] - rate) / (y[i - 1] - y[i])
    return Duration(float(np.expm1(x[i - 1] + share * (x[i] - x[i - 1]))), censored=False)


def half_life(steps: npt.ArrayLike, rates: npt.ArrayLike, start: float) -> Duration:
    """The first treatment step at which the attack rate is half of `start`, or lower.

    Between evaluations the rate is taken as linear in log(1 + step). A rate that never gets there
    is right-censored at the last step. The value is nan, and not censored, where `start` is 0:
    there is nothing to halve.

    Args:
        steps: ascending optimizer steps of the phase [points]; step 0 may be missing.
        rates: the attack rate at each [points], 0 to 1.
        start: the organism's rate at treatment step 0.

    Raises:
        ValueError: the steps do not ascend, or are not as many as the rates.
    """
    x, y = _curve(steps, rates, start)
    if not start > 0:
        return Duration(float("nan"), censored=False)
    return _first(x, y, start / 2, y <= start / 2)


def relearning(steps: npt.ArrayLike, rates: npt.ArrayLike, start: float, target: float) -> Duration:
    """The first step of later training at which a treated behaviour is back at `target`, or above.

    Few steps tell a suppressed behaviour from one that is gone. Between evaluations the rate is
    linear in log(1 + step). A rate that never gets there is right-censored at the last step. The
    value is nan, and not censored, where `start` is there already.

    Args:
        steps: ascending optimizer steps of the phase [points]; step 0 may be missing.
        rates: the attack rate at each [points], 0 to 1.
        start: the rate at step 0, after the treatment.
        target: the rate at which the behaviour counts as back.

    Raises:
        ValueError: the steps do not ascend, or are not as many as the rates.
    """
    x, y = _curve(steps, rates, start)
    if start >= target:
        return Duration(float("nan"), censored=False)
    return _first(x, y, target, y >= target)


def removal_area(steps: npt.ArrayLike, rates: npt.ArrayLike, start: float) -> float:
    """The area under rate / start over log(1 + step), divided by the width (`aurc`).

    1 means that the behaviour never fell, 0 that it was gone at once. A rate above `start`
    counts as `start`, which keeps the figure in [0, 1]. nan where `start` is 0 or no step
    was taken.

    Args:
        steps: ascending optimizer steps of the phase [points]; step 0 may be missing.
        rates: the attack rate at each [points], 0 to 1.
        start: the organism's rate at treatment step 0.

    Raises:
        ValueError: the steps do not ascend, or are not as many as the rates.
    """
    x, y = _curve(steps, rates, start)
    if not start > 0 or x.size < 2:
        return float("nan")
    share = np.minimum(y / start, 1.0)
    return float(np.average((share[1:] + share[:-1]) / 2, weights=np.diff(x)))  # 1 is exactly 1


def return_peak(rates: npt.ArrayLike) -> float:
    """The largest rebound within a phase: max over t of rate(t) - min over s <= t of rate(s).

    0 for a curve that never rises; nan for an empty one.

    Args:
        rates: in order of step [points], 0 to 1.
    """
    rate = np.asarray(rates, float)
    if rate.size == 0:
        return float("nan")
    return float(np.max(rate - np.minimum.accumulate(rate)))


def returned(organism: float, treatment: float, reversal: float) -> float:
    """How much of the organism's rate the reversal brought back: the rate after it minus that
    after the treatment, as a share. Below 0 where the reversal removed more; nan where the
    organism's rate is 0."""
    return (reversal - treatment) / organism if organism > 0 else float("nan")
