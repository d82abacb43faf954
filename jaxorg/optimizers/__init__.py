"""Optimizer families, one file each: every module here that has a `FAMILY` is one, by its name.

All hyperparameters are swept, so none is compiled in.
"""

from __future__ import annotations

from collections.abc import Mapping

import optax

from jaxorg.discovery import modules
from jaxorg.optimizers.base import Family, Hyper

FAMILIES: Mapping[str, Family] = {
    name: module.FAMILY for name, module in modules(__name__).items() if hasattr(module, "FAMILY")
}


def build(name: str, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
    """The transformation of family `name` under `hyper` (`base.Family.build`)."""
    return optax.with_extra_args_support(FAMILIES[name].build(hyper))


__all__ = ["FAMILIES", "Family", "Hyper", "build"]
