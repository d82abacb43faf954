"""What a results folder holds: how its entries are named, and the shapes of its JSON.

Names tell what jaxorg wrote from what others put there; shapes, whether a file whose checksum is
right was written by jaxorg at all. `docs/architecture.md` shows the whole.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from jaxorg.sweepfile.labels import PHASE_ORDER, Kind

OWNER = "owner.json"
TABLES = ("runs", "evals", "losses", "samples")

_HASH = "[0-9a-f]{16}"
_PART = rf"({'|'.join(PHASE_ORDER)})-{_HASH}"
ENTRIES = {
    "phases": re.compile(_HASH),
    "snapshots": re.compile(rf"{_HASH}-\d+"),
    "partial": re.compile(rf"{_HASH}\.safetensors"),
    "datasets": re.compile(_HASH),
    "rounds": re.compile(_HASH),
    "measurements": re.compile(rf"{_HASH}\.json"),
    "failed": re.compile(rf"{_HASH}\.json"),
    "answers": re.compile(rf"{_HASH}(-\d+)?\.json"),
    "parts": re.compile(rf"{_PART}\.json"),
    **{table: re.compile(rf"{_PART}\.parquet") for table in TABLES},
}
"""The folders of a results folder, and the names of what jaxorg writes into each."""

STEPS = {
    "loss": "losses",
    "grad_norm": "grad_norms",
    "update_norm": "update_norms",
    "learning_rate": "learning_rates",
}
"""What is noted of each step of training, and under which name a record has it of all steps."""

Keep = Literal["none", "final", "log"]
"""Which weights stay on disk: none but those that a phase to come starts from, those that each
phase ends with, or those at every measured step, too."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0)]
Fingerprint = Annotated[str, Field(pattern=f"^{_HASH}$")]
Figure = Annotated[float, Field(allow_inf_nan=True)]  # a mean over nothing is no number


class Shape(BaseModel):
    """What a JSON file holds at least."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class VersionShape(Shape):
    """plan.json of any version."""

    version: int


class PlanShape(Shape):
    """plan.json"""

    sweep: str
    size: str
    source: dict[str, Any]
    runs: dict[str, list[Fingerprint]]
    phases: dict[Fingerprint, Annotated[tuple[Kind, Count], Strict(False)]]

    @model_validator(mode="after")
    def _phases_are_known(self) -> PlanShape:
        if unknown := {one for chain in self.runs.values() for one in chain} - set(self.phases):
            raise ValueError(f"no phase {min(unknown)}")
        return self


class OwnerShape(Shape):
    """owner.json"""

    process: Count
    began: str | None = None
    host: str
    time: str
    share: Seconds | None = None
    seconds_left: Seconds | None = None


class FilesShape(Shape):
    """What accounts for files, here and in other notes."""

    sha256: dict[str, str]


class SnapshotShape(FilesShape):
    """snapshots/<fingerprint>-<step>/manifest.json"""

    tokens: Count


class ManifestShape(FilesShape):
    """phases/<fingerprint>/manifest.json"""

    fingerprint: str
    diverged: Count | None
    chip_seconds: Seconds


class EvalShape(Shape):
    """One row of a record's `evals`."""

    step: Count
    tokens: Count
    metric: str
    condition: str
    k: Count | None
    n: Count
    value: Figure


class SampleShape(Shape):
    """One row of a record's `samples`."""

    step: Count
    condition: str
    prompt: str
    greedy: bool
    response: str
    tokens: list[Count]
    ended: bool


class MeasuredShape(Shape):
    """What one measurement found: figures, answers, or what answers of that step are called."""

    evals: list[EvalShape] = []
    samples: list[SampleShape] = []
    outcomes: list[str] = []
    trained: Count = 0  # tokens, by when the answers were given


class MeasurementsShape(Shape):
    """measurements/<fingerprint>.json"""

    measurements: dict[Fingerprint, MeasuredShape]


class TrainedShape(Shape):
    """What training itself says of a phase."""

    evals: list[EvalShape]
    losses: list[Figure | None]
    grad_norms: list[Figure | None] = []  # of the last steps, where an earlier jaxorg took others
    update_norms: list[Figure | None] = []
    learning_rates: list[Figure | None] = []
    tokens: Count
    diverged: Count | None
    chip_seconds: Seconds

    @model_validator(mode="after")
    def _steps_have_a_loss(self) -> TrainedShape:
        if most := max(len(getattr(self, name)) for name in STEPS.values()) - len(self.losses):
            raise ValueError(f"{most} steps have no loss")
        return self


class ProgressShape(TrainedShape):
    """The same of a phase that is not done, and what was measured so far."""

    measured: dict[Fingerprint, MeasuredShape]


class RecordShape(TrainedShape):
    """phases/<fingerprint>/record.json"""

    parameters: Count
    prereg: str = ""
    device: str = ""
    versions: str = ""
    git_commit: str = ""


class PartialShape(Shape):
    """Beside the state in partial/<fingerprint>.safetensors."""

    step: Count
    record: ProgressShape


class RoundShape(Shape):
    """Beside the arrays in rounds/<fingerprint>/<n>.safetensors."""

    memory: list[str] = []
    notes: list[Annotated[tuple[str, Count | None, Count, Figure], Strict(False)]] = []


class FailureShape(Shape):
    """failed/<fingerprint>.json"""

    error: str
    trace: str


class AnswersShape(Shape):
    """answers/<key>.json"""

    answers: dict[str, str]


class PoolShape(FilesShape):
    """datasets/<fingerprint>/manifest.json"""

    longest: Count
    pad_id: Count


class PartShape(FilesShape):
    """parts/<part>.json"""

    source: str
