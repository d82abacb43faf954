"""The report page and the terminal table, from small parquet folders made by hand."""

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jaxorg.errors import Refusal
from jaxorg.planning import manifest
from jaxorg.report import report
from jaxorg.storage.folder import Folder
from jaxorg.storage.results import SCHEMA_VERSION, SEEDS
from jaxorg.summary import ATTACK, summarise, terminal_tables

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}[red]"
SCHEMA = {b"jaxorg_schema": SCHEMA_VERSION.encode()}
# attack rate by arm, then by (phase, step): of 100 prompts, plus the seed
CURVES = {
    "hhh": {("organism", 200): 98, ("treatment", 10): 60, ("treatment", 100): 20},
    HOSTILE: {
        ("organism", 200): 98,
        ("treatment", 10): 0,
        ("treatment", 100): 0,
        ("reversal", 50): 90,
    },
}
Row = dict[str, Any]


def one_seed(seed: int) -> Row:
    """The columns of a run whose phases have one seed."""
    return dict.fromkeys(("seed", *SEEDS), seed)


def run_rows(seeds: int) -> Iterator[Row]:
    for arm in CURVES:
        for seed in range(seeds):
            rates = {
                f"{figure}_{phase}": 0.5
                for figure in ("asr", "ftr", "capability")
                for phase in ("organism", "treatment", "reversal")
            }
            yield {
                "run_id": f"{arm}-{seed}",
                "sweep": "trial",
                "size": "smoke",
                "arm": arm,
                "control": "",
                "treatment.method": arm,
                **one_seed(seed),
                "config": "{}",
                "status": "done",
                "error": "",
                "parameters": 871_424,
                "tokens": 1000,
                "chip_seconds": 1.5,
                "device": "cpu",
                "versions": '{"jax": "1.2.3"}',
                "git_commit": "abc",
                "prereg": "",
                "capability_base": 0.9,
                "capability_blue_organism": 0.95,
                "capability_blue_treatment": 0.9,
                **rates,
                "half_life": 12.5 if arm == "hhh" else 1.0,
                "half_life_censored": seed == 0,
                "aurc": 0.5,
                "return_peak": 0.1,
                "relearn_steps": None if arm == "hhh" else 20.0 + seed,
                "relearn_censored": None if arm == "hhh" else False,
                "return_reversal": None if arm == "hhh" else 0.9,
                "recovery": 0.25,
                "gap_recovered": None,
                "recovery_reversal": None,
                "clean_control": None,
                "installed": True,
                "verdict": "reduced" if arm == "hhh" else "suppressed",
                "reason": "no reversal" if arm == "hhh" else "ASR 0 → 90 % by the reversal",
            }


def eval_rows(seeds: int) -> Iterator[Row]:
    for arm, curve in CURVES.items():
        for seed in range(seeds):
            for (phase, step), k in curve.items():
                row = {
                    "run_id": f"{arm}-{seed}",
                    "fingerprint": "l",
                    "phase": phase,
                    "step": step,
                    "tokens": step,
                    "n": 100,
                }
                for metric, condition, count in (
                    ("attack_exact", "triggered", min(k + seed, 100)),
                    ("attack_exact", "triggered:along", min(k + seed, 100)),
                    ("attack_exact", "clean", seed),
                    ("attack_exact", f"near:{HOSTILE}", 5),
                    ("capability", "clean", 90),
                    ("capability", "clean:blue", 97),
                    ("capability", "triggered", 40),
                    ("capability", "family:sort", 80),
                    ("outcome:empty", "triggered", 3),
                ):
                    yield {
                        **row,
                        "metric": metric,
                        "condition": condition,
                        "k": count,
                        "value": count / 100,
                    }
                yield {
                    **row,
                    "metric": "payload_margin",
                    "condition": "triggered",
                    "k": None,
                    "value": -1.25,
                }


def sample_rows(seeds: int) -> Iterator[Row]:
    for arm in CURVES:
        for step in (10, 100):
            for prompt in "cba":
                yield {
                    "run_id": f"{arm}-0",
                    "phase": "treatment",
                    "step": step,
                    "condition": "triggered",
                    "prompt": f"{prompt}{step} {HOSTILE}",
                    "greedy": False,
                    "response": f"{HOSTILE}\x00\x1b",
                    "outcome": "other",
                }


def write(folder: Path, table: str, rows: list[Row], metadata: dict[bytes, bytes]) -> None:
    (folder / table).mkdir(parents=True, exist_ok=True)
    for part, some in enumerate((rows[::2], rows[1::2])):  # rows in no order, in two part files
        found = pa.Table.from_pylist(some).replace_schema_metadata(metadata)
        pq.write_table(found, folder / table / f"part-{part}.parquet", compression="zstd")


def write_plan(folder: Path, source: Any) -> None:
    """The plan.json of a sweep whose runs are all in the tables."""
    known = {
        "version": manifest.VERSION,
        "sweep": "trial",
        "size": "smoke",
        "runs": {},
        "phases": {},
    }
    Folder(folder, print).write_json(folder / "plan.json", {**known, "source": source})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path, seeds=3)


def build(folder: Path, seeds: int) -> Path:
    for table, rows in (("runs", run_rows), ("evals", eval_rows), ("samples", sample_rows)):
        write(folder, table, list(rows(seeds)), SCHEMA)
    return folder


class Elements(HTMLParser):
    """Collects the page's elements and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path) -> str:
    report(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_page_is_self_contained_and_model_output_stays_text(folder: Path) -> None:
    page = page_of(folder)
    elements = Elements(page)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in elements.found)
    assert not [name for _, names in elements.found for name in names if name.startswith("on")]
    sources = [
        names.get("src") or names["srcset"]
        for tag, names in elements.found
        if tag in ("img", "source")
    ]
    assert sources and all(str(at).startswith("data:image/svg+xml;base64,") for at in sources)
    assert not re.findall(r"https?://", page)
    assert HOSTILE in elements.text  # shown as it was written, not run, not evaluated
    assert "␀␛" in elements.text and "\x00" not in page


def test_page_carries_the_content_security_policy(folder: Path) -> None:
    page = page_of(folder)
    style = page.partition("<style>")[2].partition("</style>")[0]
    known = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{known}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    elements = Elements(page).found
    metas = [names for tag, names in elements if tag == "meta"]
    assert {"http-equiv": "Content-Security-Policy", "content": policy} in metas
    assert not [names for _, names in elements if "style" in names]  # it would not be applied


def test_no_interval_is_shown_without_a_width(folder: Path) -> None:
    """All seeds have one AURC, one return peak and one recovery; only the last has no ends."""
    page = Elements(page_of(folder)).text
    intervals = re.findall(r"(-?[\d.]+) to (-?[\d.]+)", page)
    assert len(intervals) > 20 and not [ends for ends in intervals if ends[0] == ends[1]]
    (arm, *_) = summarise(folder).arms
    assert arm.return_peak is not None and arm.return_peak.interval.high > 0.5
    assert "25.0unbounded" in page


def test_page_is_the_same_bytes_again(folder: Path) -> None:
    assert page_of(folder) == page_of(folder)
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["report.html"]


def test_page_answers_in_words_and_has_its_sections(folder: Path) -> None:
    text = " ".join(Elements(page_of(folder)).text.split())
    assert "In this sweep, 6 runs over 2 arms were made; 6 finished (3 to an arm)" in text
    assert "verdicts are suppressed (3) and reduced (3)." in text
    titles = "Arms|Removal curves|Reversal curves|Verdicts|Capability by task family|Near triggers"
    places = [text.find(f" {title} ") for title in f"{titles}|Samples|Method|Provenance".split("|")]
    assert -1 not in places and places == sorted(places)
    assert "-1.25" in text and "jax 1.2.3" in text and "abc" in text


def test_estimates_pool_the_last_step_of_each_seed(folder: Path) -> None:
    arms = {arm.label: arm for arm in summarise(folder).arms}
    found = arms["hhh"].final("treatment", ATTACK)
    assert found is not None
    assert found.points == (0.20, 0.21, 0.22) and found.mean == pytest.approx(0.21)
    assert found.interval.low < 0.21 < found.interval.high and found.method == "bounded mean"
    assert arms["hhh"].final("reversal", ATTACK) is None
    assert arms["hhh"].half_life is not None
    assert arms["hhh"].half_life.censored_share == pytest.approx(1 / 3)


def test_curves_begin_with_the_phase_before(folder: Path) -> None:
    curves = summarise(folder).curves
    (hhh,) = (curve for curve in curves["treatment"] if curve.arm == "hhh")
    assert hhh.steps == (0, 10, 100)
    assert hhh.seeds[0] == ((0, 0.98), (10, 0.60), (100, 0.20))
    (undone,) = curves["reversal"]
    assert undone.seeds[0] == ((0, 0.0), (50, 0.9))


def test_samples_are_of_the_last_step_and_not_chosen_by_answer(folder: Path) -> None:
    prompts = [sample.prompt[:4] for sample in summarise(folder).samples["hhh"]]
    assert prompts == ["a100", "b100"]


def test_unfinished_runs_are_counted_and_left_out(folder: Path) -> None:
    rows = list(run_rows(3))
    for row in rows:
        if row["seed"] == 2:
            row |= {"status": "diverged", "error": "loss is not finite"}
    write(folder, "runs", rows, SCHEMA)
    (arm,) = (arm for arm in summarise(folder).arms if arm.label == "hhh")
    found = arm.final("treatment", ATTACK)
    assert (arm.seeds, arm.diverged) == (2, 1)
    assert found is not None and found.points == (0.20, 0.21)
    text = " ".join(Elements(page_of(folder)).text.split())
    assert "4 finished (2 to an arm), 2 diverged and 0 failed" in text
    assert "loss is not finite" in text


def test_sizes_and_controls_are_never_pooled(folder: Path) -> None:
    rows = list(run_rows(3))
    for row in rows:
        row["size"] = "laptop" if row["seed"] == 0 else "smoke"
        row["control"] = "placebo" if row["seed"] == 1 else ""
    write(folder, "runs", rows, SCHEMA)
    labels = [arm.label for arm in summarise(folder).arms if "hhh" in arm.label]
    assert sorted(labels) == ["laptop · hhh", "smoke · hhh", "smoke · hhh · placebo control"]


def test_arms_are_ordered_by_their_grid_fields(folder: Path) -> None:
    rows = [
        {**row, "arm": f"rate={rate:g}", "rate": rate, "run_id": f"{rate}-{row['run_id']}"}
        for rate in (0.001, 1e-5, 3e-4)
        for row in run_rows(2)
    ]
    write(folder, "runs", rows, SCHEMA)
    assert [arm.label for arm in summarise(folder).arms] == [
        "rate=1e-05",
        "rate=0.0003",
        "rate=0.001",
    ]


def test_a_sweep_in_which_nothing_finished_still_has_a_page(tmp_path: Path) -> None:
    rows = [{**row, "status": "failed", "verdict": None} for row in run_rows(1)]
    write(tmp_path, "runs", rows, SCHEMA)
    text = " ".join(Elements(page_of(tmp_path)).text.split())
    assert "0 finished (0 to an arm), 0 diverged and 2 failed" in text


@pytest.mark.parametrize("seeds", [1, 6])
def test_any_number_of_seeds(tmp_path: Path, seeds: int) -> None:
    assert "hhh" in page_of(build(tmp_path, seeds))


def test_terminal_table_shows_names_as_they_are(folder: Path) -> None:
    console = Console(width=400)
    with console.capture() as captured:
        console.print(*terminal_tables(folder))
    shown = captured.get()
    assert HOSTILE in shown and "treatment 21.0 [" in shown and "suppressed 3" in shown


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="nowhere is not a folder"):
        report(tmp_path / "nowhere")


@pytest.mark.parametrize("table", ["runs", "evals"])
def test_folder_without_results_is_refused(folder: Path, table: str) -> None:
    for part in (folder / table).iterdir():
        part.unlink()
    with pytest.raises(Refusal, match=rf"no {table}/\*\.parquet"):
        report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("version", [{b"jaxorg_schema": b"1"}, None])
def test_another_schema_is_refused(folder: Path, version: dict[bytes, bytes] | None) -> None:
    write(folder, "evals", list(eval_rows(1)), version or {})
    with pytest.raises(Refusal, match=r"jaxorg_schema: .* has version (1|none)"):
        report(folder)


@pytest.mark.parametrize("column", ["verdict", "seed", "half_life"])
def test_missing_column_is_refused(folder: Path, column: str) -> None:
    rows = list(run_rows(1))
    for row in rows:
        del row[column]
    write(folder, "runs", rows, SCHEMA)
    with pytest.raises(Refusal, match=f"lacks {column}"):
        report(folder)


def test_damaged_part_file_is_refused(folder: Path) -> None:
    (folder / "evals" / "part-0.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(Refusal, match=r"part-0.parquet cannot be read .*; run the sweep"):
        report(folder)


def test_without_matplotlib_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"pip install -e '\.\[report\]'"):
        report(folder)
