"""Our own model as it stood at the end of a phase, to compare others' with."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from make_golden import random_tokens, reference_logits
from weights import load, merged

from jaxorg.engine.measure import calls
from jaxorg.engine.params import Params, abstract_model
from jaxorg.engine.score import prefill
from jaxorg.llama import checkpoint, lora
from jaxorg.llama.generate import Asked, generate
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning import manifest
from jaxorg.planning.signature import ModelSignature, unrolls
from jaxorg.storage.folder import Folder
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import everything
from jaxorg.sweepfile.labels import PHASE_KINDS, Kind
from jaxorg.sweepfile.run_config import RunConfig
from sweeps import table

TOLERANCE = 1e-4  # of logits that differ by whole units
NEW = 12


def first(out: Path) -> str:
    """A run's id."""
    return str(table(out, "runs").sort_values("seed").run_id.iloc[0])


class Ours:
    """The model that a sweep's first run has at the end of a phase, adapters beside the weights."""

    def __init__(self, out: Path, base: Path, kind: Kind):
        run_id = first(out)
        config = RunConfig.model_validate_json(
            table(out, "runs").set_index("run_id").config[run_id]
        )
        recipe = getattr(config, kind)
        adapters = None if kind == "base" else recipe.train.lora
        shape = checkpoint.read_config(base)
        lowered = adapters and adapters.signature()
        signature = ModelSignature(shape, lowered, unroll=unrolls(shape))
        graph, (shapes, _) = abstract_model(signature)
        known = manifest.read(out)
        assert known is not None
        fingerprint = dict(zip(PHASE_KINDS, known.runs[run_id], strict=True))[kind]
        store = Store(Folder(out, pytest.fail))
        parts: tuple[Any, Any] = load(base), {}
        if kind != "base":
            trained = everything(store.reader(fingerprint), shapes)
            below = (
                Ours(out, base, PHASE_KINDS[PHASE_KINDS.index(kind) - 1]).merged()
                if adapters
                else {}
            )
            parts = lora.scaled(trained, adapters.scale) if adapters else trained, below
        self.signature, self.graph, self.parts = signature, graph, parts
        chat_format = config.base.chat_format
        self.tokenizer = Tokenizer.load(base, chat_format.template, chat_format.options)

    def merged(self) -> Any:
        trainable, frozen = self.parts
        if self.signature.lora is None:
            return trainable
        return merged(frozen, trainable, 1.0)

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        model = jax.jit(lambda parts, tokens: nnx.merge(self.graph, *parts)(tokens)[0])
        return np.asarray(model(self.parts, tokens))

    def answers(self, prompts: Sequence[str]) -> list[str]:
        """Greedy."""
        ids = [self.tokenizer.prompt_ids(prompt) for prompt in prompts]
        ends = tuple(sorted(self.tokenizer.end_ids))
        (padded,), (lengths,) = calls.padded([ids], len(ids), max(map(len, ids)))
        rows = Asked(np.arange(len(ids)), lengths, np.array([row[-1] for row in ids]))
        prefix = jax.jit(partial(prefill, self.graph))(Params(*self.parts), padded)
        program = jax.jit(partial(generate, self.graph, new_tokens=NEW, end_ids=ends))
        keys = jax.random.split(jax.random.key(0), len(ids))
        tokens = program(self.parts, prefix, rows, keys, jnp.zeros(len(ids)))
        return [self.tokenizer.decode(row) for row in tokens.tolist()]


def assert_same(theirs: Any, folder: Path, ours: Ours, prompts: Sequence[str]) -> None:
    """That a model of Transformers or PEFT and its tokenizer agree with ours."""
    transformers = pytest.importorskip("transformers")
    tokens = random_tokens(ours.signature.config.vocab_size, seed=0)
    expected = ours.logits(tokens)
    assert np.std(expected) > 0.5
    np.testing.assert_allclose(reference_logits(theirs, tokens), expected, rtol=0, atol=TOLERANCE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for prompt, expected_answer in zip(prompts, ours.answers(prompts), strict=True):
        turn = [{"role": "user", "content": prompt}]
        asked = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert asked["input_ids"][0].tolist() == ours.tokenizer.prompt_ids(prompt)
        said = theirs.generate(**asked, do_sample=False, max_new_tokens=NEW)
        answer = tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer == expected_answer
