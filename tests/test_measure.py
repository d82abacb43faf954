"""What is measured does not depend on how rows are put together."""

from pathlib import Path

import numpy as np
import pytest
from tiny import TINY
from weights import random_weights

from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import Scorer, stack
from jaxorg.engine.measure import scoring
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.params import Params
from jaxorg.planning.signature import ModelSignature
from sweeps import assert_same_rows, run

ORGANISMS = ("treatment=null", "reversal=null", "grid=[{organism.payload_repeats: [1, 2]}]")


def test_rows_do_not_depend_on_the_lengths_that_they_are_padded_to(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = run(tmp_path / "alike" / "out", tiny_base, *ORGANISMS)
    monkeypatch.setattr(scoring, "EVAL_PAD_MULTIPLE", 8)
    apart = run(tmp_path / "apart" / "out", tiny_base, *ORGANISMS)
    assert_same_rows(alike, apart, rtol=1e-4)


def test_logits_where_completions_are_say_what_all_logits_say() -> None:
    """Those of rows that end where their completion does, and of rows that hold nothing, too."""
    model = ModelSignature(TINY)
    scorer = Scorer(model, make_mesh(parse("cpu-1")), 1)
    params = Params(scorer.place(stack([random_weights(model)[0]])), {})
    tokens = np.random.default_rng(0).integers(0, TINY.vocab_size, (1, 6, 24), np.int32)
    spans = np.array([[[20, 24], [16, 24], [1, 8], [23, 24], [10, 13], [0, 0]]], np.int32)
    batch = Batch(tokens, spans)
    found = scorer.score(params, scoring.to_score(batch, 8))
    expected = np.asarray(scorer.log_probs(params, batch)).sum(axis=-1)
    np.testing.assert_allclose(found.log_prob, expected, rtol=1e-5, atol=1e-6)
    assert np.all(expected[0, :5] < -1)
    assert found.exact[0].tolist() == [False] * 5 + [True]
