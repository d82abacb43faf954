"""Optimizer families, one file each: every module here that has a `FAMILY` is one, by its name.
Other packages offer more (`discovery.py`).

All hyperparameters are swept, so none is compiled in.
"""

from __future__ import annotations

import optax

from jaxorg.discovery import Pieces, modules
from jaxorg.optimizers.base import Family, Hyper


def _misfit(name: str, offered: object) -> str:
    return "" if isinstance(offered, Family) else "is no optimizers.base.Family"


_OWN = {name: m.FAMILY for name, m in modules(__name__).items() if hasattr(m, "FAMILY")}
FAMILIES: Pieces[Family] = Pieces(__name__, _OWN, _misfit)


def build(name: str, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
    """The transformation of family `name` under `hyper` (`base.Family.build`)."""
    return optax.with_extra_args_support(FAMILIES[name].build(hyper))


__all__ = ["FAMILIES", "Family", "Hyper", "build"]
