"""What training and measuring need from outside: base weights, tokenizers, prompts, tokenised.

Everything is read once and kept. Nothing here needs a device.
"""

from __future__ import annotations

from functools import cache

from jaxorg.data.pool import Pool
from jaxorg.data.pretraining import pretraining_examples
from jaxorg.engine.measure import Measurer, Prepared
from jaxorg.engine.step import Tree, abstract_model
from jaxorg.llama import checkpoint
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.plan import KINDS, Phase, Plan
from jaxorg.runtime import Refusal
from jaxorg.signature import ModelStatic


class Inputs:
    """The inputs of a plan's phases."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self.base_weights = cache(self._load_base)
        self._verified = cache(self._verify)
        self._tokenizer = cache(self._load_tokenizer)
        self._measurer = cache(self._make_measurer)

    def check(self) -> None:
        """See that base weights fit, and build each config's data for one seed, so that what is
        wrong with them shows up before anything is written.

        Raises:
            Refusal: weights are broken, or prompts are too few or too long.
        """
        configs = {(phase.kind, repr(phase.config)): phase for phase in self._plan.phases}
        for phase in configs.values():
            if phase.config.base.scratch is None:
                self._verified(phase.config.base.model)
            if phase.steps:
                self.pool(phase)
            self.prepared(phase, final=True)

    def shapes(self, model: str) -> Tree:
        """Full weights as abstract arrays."""
        config = checkpoint.read_config(self._plan.folders[model])
        return abstract_model(ModelStatic(config))[1]

    def trained_shapes(self, phase: Phase) -> Tree:
        """What a phase trains, and stores, as abstract arrays: full weights or adapters."""
        lora, model = phase.lora, phase.config.base.model
        config = checkpoint.read_config(self._plan.folders[model])
        return abstract_model(ModelStatic(config, lora.static() if lora else None))[1]

    def measurer(self, phase: Phase) -> Measurer:
        """What measures a phase."""
        return self._measurer(phase.config.base.model, phase.config.base.chat_template)

    def prepared(self, phase: Phase, final: bool) -> Prepared:
        """What a phase is measured on."""
        config = phase.config
        return self.measurer(phase).prepare(config.prompts, config.evaluate, phase.behaviour, final)

    def pool(self, phase: Phase) -> Pool:
        """The conversations a phase trains on."""
        assert phase.training is not None
        key, seed = f"{phase.kind}.train.examples", data_seed(phase)
        items = phase.config.prompts.items("train", phase.training.examples, seed, key)
        if phase.recipe is None:
            examples = pretraining_examples(items, seed)
        else:
            examples = phase.recipe.examples(items, seed)
        base = phase.config.base
        tokenizer = self._tokenizer(base.model, base.chat_template)
        return Pool.encode(examples, tokenizer, phase.config.length)

    def _verify(self, model: str) -> None:
        checkpoint.verify(self._plan.folders[model], self.shapes(model))

    def _load_base(self, model: str) -> Tree:
        return checkpoint.load(self._plan.folders[model], self.shapes(model))

    def _load_tokenizer(self, model: str, chat_template: str | None) -> Tokenizer:
        """The base's tokenizer, whose every token the model must know."""
        folder = self._plan.folders[model]
        tokenizer = Tokenizer.load(folder, chat_template)
        known = checkpoint.read_config(folder).vocab_size
        if tokenizer.vocab_size > known:
            raise Refusal(
                f"{folder}: tokenizer.json has {tokenizer.vocab_size} tokens, but the model knows "
                f"{known}; the files do not belong together"
            )
        return tokenizer

    def _make_measurer(self, model: str, chat_template: str | None) -> Measurer:
        config = checkpoint.read_config(self._plan.folders[model])
        return Measurer(self._tokenizer(model, chat_template), config.max_position_embeddings)


def data_seed(phase: Phase) -> int:
    """The seed of a phase's data, so that red and blue draw different prompts."""
    return phase.seed * len(KINDS) + KINDS.index(phase.kind)
