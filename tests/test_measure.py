"""What is measured does not depend on how rows are put together."""

from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import TINY
from weights import random_weights

from jaxorg.data.tokenized import Example, TokenizedDataset
from jaxorg.engine import arrays
from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import Scorer, stack
from jaxorg.engine.measure import calls, scoring
from jaxorg.engine.measure.generating import generated
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.params import Params
from jaxorg.evaluators import View
from jaxorg.planning.signature import ModelSignature
from sweeps import assert_same_rows, run

ORGANISMS = ("treatment=null", "reversal=null", "grid=[{organism.payload_repeats: [1, 2]}]")


def test_rows_do_not_depend_on_the_lengths_that_they_are_padded_to(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = run(tmp_path / "alike" / "out", tiny_base, *ORGANISMS)
    monkeypatch.setattr(calls, "PROMPT_PAD_MULTIPLE", 16)
    monkeypatch.setattr(calls, "PAD_MULTIPLE", 16)
    apart = run(tmp_path / "apart" / "out", tiny_base, *ORGANISMS)
    assert_same_rows(alike, apart, rtol=1e-4)


def test_completions_after_prompts_that_are_read_once_score_as_whole_conversations() -> None:
    """Those that share a prompt, those as long as there is room for, and rows that hold nothing."""
    model = ModelSignature(TINY)
    scorer = Scorer(model, make_mesh(parse("cpu-1")), 1)
    params = Params(scorer.place(stack([random_weights(model)[0]])), {})
    drawn = np.random.default_rng(0).integers(0, TINY.vocab_size, (4, 24), np.int32)
    rows = [(0, 16, 24), (0, 16, 17), (1, 20, 24), (2, 1, 8), (3, 10, 13)]
    tokens = np.stack([drawn[row] for row, _, _ in rows])
    tokens[1, 16] = (tokens[0, 16] + 1) % TINY.vocab_size  # another answer to the same prompt
    spans = np.array([[start, end] for _, start, end in rows], np.int32)
    examples = [Example(str(number), "") for number in range(len(rows))]
    parts = calls.parts_of(examples, TokenizedDataset(tokens, spans))
    assert sum(len(part.prompts) for part in parts.values()) == 4  # one is shared
    prepared = scoring.Prepared(View([], [], None, True), parts)
    (found,) = scoring.scores(scorer, [prepared], scoring.Passing(scorer.passes, params))
    whole = scorer.log_probs(params, Batch(tokens[None], spans[None]))
    expected = np.asarray(whole)[0].sum(axis=-1)
    scored = [found[example].log_prob for example in examples]
    np.testing.assert_allclose(scored, expected, rtol=1e-5, atol=1e-6)
    assert np.all(expected < -1)
    assert not any(found[example].exact for example in examples)


def test_what_greedy_decoding_says_is_exact() -> None:
    model = ModelSignature(TINY)
    scorer = Scorer(model, make_mesh(parse("cpu-1")), 1)
    params = Params(scorer.place(stack([random_weights(model)[0]])), {})
    prompts = [[3, 1, 4, 1, 5], [9, 2, 6]]
    generator = scorer.generator(6, ())
    keys = jax.vmap(lambda key: jax.random.split(key, 2))(arrays.keys([0], 0))
    said = generated(scorer, generator, params, [prompts], (2, 8), keys, (0.0,))[0, 0]
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, said.tolist(), strict=True)]
    rows += [[*row[:-1], (row[-1] + 1) % TINY.vocab_size] for row in rows]
    tokens = np.array([row + [0] * (11 - len(row)) for row in rows], np.int32)
    spans = np.array([[5, 11], [3, 9], [5, 11], [3, 9]], np.int32)
    examples = [Example(str(number), "") for number in range(4)]
    parts = calls.parts_of(examples, TokenizedDataset(tokens, spans))
    prepared = scoring.Prepared(View([], [], None, True), parts)
    (found,) = scoring.scores(scorer, [prepared], scoring.Passing(scorer.passes, params))
    assert [found[example].exact for example in examples] == [True, True, False, False]
