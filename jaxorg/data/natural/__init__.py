"""Instructions in natural language that can be verified: what real models are asked.

Written by rule, in the manner of the toy tasks: each family draws a question, words it, and knows
its answer, a few words that a right response holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxorg.data.families import Family
from jaxorg.data.natural import foreign, judging, reading, reckoning, wording

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for part in (reading, reckoning, wording, judging, foreign)
    for family in part.FAMILIES
}
