"""The statistics of a sweep: pure functions from counts, curves and points to small results."""

from jaxorg.stats.auroc import area, auroc, seed_auroc
from jaxorg.stats.comparisons import Comparison, equivalent, least_p, mcnemar, paired
from jaxorg.stats.corrections import benjamini_hochberg, holm
from jaxorg.stats.curves import (
    Duration,
    half_life,
    relearning,
    removal_area,
    return_peak,
    returned,
)
from jaxorg.stats.game import Game, solve, value_interval, worst_rows
from jaxorg.stats.hull import LOSSES, Point, Robustness, on_hull, robustness, split_half
from jaxorg.stats.intervals import (
    NONE,
    Count,
    CrossedMean,
    Interval,
    SeedInterval,
    bounded_mean,
    mean_interval,
    seed_interval,
    wilson,
)
from jaxorg.stats.recovery import gap_recovered, recovery
from jaxorg.stats.survival import FEWEST_TIMES, KaplanMeier, kaplan_meier_median, log_rank
from jaxorg.stats.variance import (
    Component,
    Labels,
    Shares,
    crossed_mean,
    fewest_levels,
    independent,
    variance_shares,
)
from jaxorg.stats.variance import Run as VarianceRun
from jaxorg.stats.verdict import FEWEST_PROMPTS, End, Judged, Verdict, verdict

__all__ = [
    "FEWEST_PROMPTS",
    "FEWEST_TIMES",
    "LOSSES",
    "NONE",
    "Comparison",
    "Component",
    "Count",
    "CrossedMean",
    "Duration",
    "End",
    "Game",
    "Interval",
    "Judged",
    "KaplanMeier",
    "Labels",
    "Point",
    "Robustness",
    "SeedInterval",
    "Shares",
    "VarianceRun",
    "Verdict",
    "area",
    "auroc",
    "benjamini_hochberg",
    "bounded_mean",
    "crossed_mean",
    "equivalent",
    "fewest_levels",
    "gap_recovered",
    "half_life",
    "holm",
    "independent",
    "kaplan_meier_median",
    "least_p",
    "log_rank",
    "mcnemar",
    "mean_interval",
    "on_hull",
    "paired",
    "recovery",
    "relearning",
    "removal_area",
    "return_peak",
    "returned",
    "robustness",
    "seed_auroc",
    "seed_interval",
    "solve",
    "split_half",
    "value_interval",
    "variance_shares",
    "verdict",
    "wilson",
    "worst_rows",
]
