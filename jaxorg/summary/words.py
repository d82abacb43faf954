"""Figures as people read them."""

from __future__ import annotations

from jaxorg.summary.arms import Arm
from jaxorg.summary.claims import Claims, Outcome
from jaxorg.summary.estimates import Estimate


def percent(estimate: Estimate | None) -> str:
    """`42.0 [31.5, 53.2]`: a rate and its interval in percent; a dash for nothing measured."""
    if estimate is None:
        return "–"
    low, high = estimate.interval.low, estimate.interval.high
    return f"{100 * estimate.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def steps_text(steps: float | None) -> str:
    """A number of steps; None is a Kaplan-Meier curve that does not come down to one half."""
    return "not reached" if steps is None else f"{steps:.3g}" if steps < 1000 else f"{steps:,.0f}"


def seeds_text(arm: Arm) -> str:
    """`5`, or `5 + 1 diverged + 2 failed`: the seeds that finished, then the others."""
    lost = {"diverged": arm.diverged, "failed": arm.failed}
    return f"{arm.seeds}" + "".join(f" + {count} {name}" for name, count in lost.items() if count)


def verdict_text(arm: Arm) -> str:
    """`removed 3, suppressed 1`, most frequent first."""
    ordered = sorted(arm.verdicts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered) or "no finished run"


def effect_text(outcome: Outcome) -> str:
    """`0.42 [0.30, 0.54]`: a claim's effect in the figure's own unit, with its interval."""
    if outcome.effect != outcome.effect:
        return "–"
    low, high = outcome.interval.low, outcome.interval.high
    known = low == low
    return f"{outcome.effect:.3g}" + (f" [{low:.3g}, {high:.3g}]" if known else "")


def p_text(p: float) -> str:
    """`0.031`, or a dash where nothing was tested."""
    return "–" if p != p else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def changed_text(claims: Claims) -> str:
    """How many runs were made before the claims stood as they do, or after they were changed."""
    were = "run was" if claims.changed == 1 else "runs were"
    return f"{claims.changed} {were} made when the claims were others, or none"
