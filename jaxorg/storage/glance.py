"""How phases stand in a results folder, for those who only look: nothing is changed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxorg.errors import Damaged
from jaxorg.storage.folder import Json, check_files, read_json
from jaxorg.storage.layout import FailureShape, ManifestShape, RecordShape

Record = Json
WEIGHTS = "weights"


class Glance(NamedTuple):
    """How a phase stands, unchecked."""

    state: Literal["done", "diverged", "failed", "training", "missing"]
    chip_seconds: float = 0.0
    error: str = ""


def glance(folder: Path, fingerprint: str) -> Glance:
    """How a phase in a results folder stands, for those who only look: nothing is changed."""
    with suppress(Damaged):
        failure = read_json(folder / "failed" / f"{fingerprint}.json", FailureShape)
        return Glance("failed", error=failure["error"])
    with suppress(Damaged):
        manifest = read_json(folder / "phases" / fingerprint / "manifest.json", ManifestShape)
        state: Any = "done" if manifest["diverged"] is None else "diverged"
        return Glance(state, manifest["chip_seconds"])
    begun = os.path.lexists(folder / "partial" / f"{fingerprint}.safetensors")
    return Glance("training" if begun else "missing")


def checked_manifest(folder: Path, fingerprint: str) -> Json:
    """What names the files of a done phase, after a look whether they are what was written;
    nothing is changed.

    Raises:
        Damaged: one is not, or is missing.
    """
    place = folder / "phases" / fingerprint
    found = read_json(place / "manifest.json", ManifestShape)
    if found["fingerprint"] != fingerprint:
        raise Damaged(f"{place} holds {found['fingerprint']}")
    check_files(place, found["sha256"])
    return found


def read_record(folder: Path, fingerprint: str) -> Record:
    """What was measured in a phase that is done; nothing is changed.

    Raises:
        Damaged: it is missing, or not what was written.
    """
    return read_json(folder / "phases" / fingerprint / "record.json", RecordShape)


def names_weights(manifest: Json) -> bool:
    """Whether a phase's weights are among the files that its manifest names."""
    return any(name.startswith(f"{WEIGHTS}/") for name in manifest["sha256"])
