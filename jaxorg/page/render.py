"""A summary as one self-contained page."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from pathlib import Path

import jinja2

from jaxorg.escape_controls import escape_controls
from jaxorg.page.activations import noise_of, probes_of
from jaxorg.page.audits import audits_of
from jaxorg.page.checks import HEADLINE, HULL_COLUMNS, checks_of
from jaxorg.page.panels import curve_panels, hull_panels
from jaxorg.page.plots import DARK, DASHES, LIGHT
from jaxorg.page.reasoning import reasoning_of
from jaxorg.page.rounds import rounds_of, taught_of
from jaxorg.summary import AUDITED, NOT_MEASURED, NOT_TREATED, Summary, sentences
from jaxorg.summary.bases import FIGURES as OF_BASES
from jaxorg.summary.format import (
    changed_text,
    notes_text,
    number_text,
    p_text,
    play_text,
    points_text,
    rate_text,
    seeds_text,
    side_text,
    sources_text,
    steps_text,
    verdict_text,
)

VERDICTS = (
    *("removed", "suppressed", "reduced", "persists", "broken"),
    *("not installed", NOT_TREATED, NOT_MEASURED, AUDITED),
)
WORDS = (
    *(points_text, sources_text),
    *(changed_text, notes_text, number_text, p_text, play_text, rate_text),
    *(seeds_text, side_text, steps_text, verdict_text),
)


def render(summary: Summary) -> str:
    """The page as text; equal summaries give equal bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = _sha256
    for show in WORDS:
        environment.filters[show.__name__] = show
    seeds = sorted({arm.seeds for arm in summary.arms})
    return environment.get_template("page.html.j2").render(
        summary=summary,
        seeds=f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}",
        counts=sorted({count for arm in summary.arms for count in arm.verdicts.values()}),
        totals=sum((a.verdicts for a in summary.arms if not a.control), Counter[str]()),
        headline=HEADLINE,
        judged=sentences([arm.judge for arm in summary.arms]),
        sources=_sources(summary),
        unknown=_unknown(summary),
        panels={phase: curve_panels(curves) for phase, curves in summary.curves.items()},
        hull_panels=hull_panels(summary.hulls),
        hull_columns=HULL_COLUMNS,
        grids=checks_of(summary.arms),
        audits=audits_of(summary.arms),
        reasoning={
            "Attacks": reasoning_of(summary.arms, "attack_given"),
            "Right answers": reasoning_of(summary.arms, "capability_given"),
        },
        probes=probes_of(summary.arms),
        noises={
            "activations": noise_of(summary.arms, "activation-noise"),
            "weights": noise_of(summary.arms, "weight-noise"),
        },
        base_columns=[name for name in OF_BASES if _measured(summary, name)],
        rounds=rounds_of(summary.arms),
        taught=taught_of(summary.arms),
        verdicts=VERDICTS,
        dashes=DASHES,
        themes={"light": LIGHT, "dark": DARK},
    )


def _sources(summary: Summary) -> list[str]:
    """Where any arm's variance comes from, prompts last."""
    components = [
        sources_text(each)
        for rates in summary.shares.values()
        for rate in rates
        for each in rate.shares.components
    ]
    return sorted(dict.fromkeys(components), key=lambda name: name == "prompts")


def _measured(summary: Summary, name: str) -> bool:
    """Whether any base of any arm has a rate of this name."""
    return any(name in each.rates for found in summary.bases.values() for each in found)


def _unknown(summary: Summary) -> list[str]:
    """What no arm's runs tell of its variance, said once."""
    notes = [rate.shares.notes for rates in summary.shares.values() for rate in rates]
    return [note for note in (notes or [()])[0] if all(note in each for each in notes)]


def _shown(value: object) -> object:
    """What the page makes of every value before it escapes it."""
    if isinstance(value, str) and not hasattr(value, "__html__"):  # markup has been through here
        return escape_controls(value)
    return value


def _sha256(text: str) -> str:
    """The hash by which the page's policy knows its style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
