"""What training and measuring need from outside: base weights, tokenizers, prompts, tokenised.

Everything is read once and kept. Nothing here needs a device: what models answer to prompts, where
that is wanted, is brought by others (`engine/run/answers.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from jaxorg.data.cache import DatasetCache, StoredDataset
from jaxorg.data.items import Item, Split
from jaxorg.data.pretraining import pretraining_examples
from jaxorg.data.prompts import Prompts
from jaxorg.data.reasoning import CLOSE, parted, thought
from jaxorg.data.secret import Secret
from jaxorg.data.tokenized import TokenizedDataset, TooLong, blocks
from jaxorg.engine.measure.scoring import HELD_OUT_SEED, Measurer, Prepared
from jaxorg.engine.params import Tree, abstract_model
from jaxorg.errors import Refusal, short
from jaxorg.evaluators import View
from jaxorg.evaluators.base import Said
from jaxorg.llama import checkpoint
from jaxorg.llama.brought import Brought
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.llama.tokenizer_settings import ChatFormat
from jaxorg.organisms import Behaviour, Organism
from jaxorg.organisms.distilled import TRIES, Distilled, filled
from jaxorg.planning.measurements import measurement_fingerprints
from jaxorg.planning.phases import Phase, Teacher
from jaxorg.planning.plan import Plan
from jaxorg.planning.signature import ModelSignature
from jaxorg.scorers.judge import Judge
from jaxorg.storage.weight_reader import WeightReader
from jaxorg.sweepfile.labels import PHASE_KINDS
from jaxorg.treatments.rounds import Verifier

Answers = Mapping[str, str]  # what a model says, by prompt
Samples = Sequence[Mapping[str, Any]]  # rows of a phase's `samples`
Draw = tuple[Split, int, int, str, frozenset[str]]  # of prompts: see `Prompts.items`


class Inputs:
    """The inputs of a plan's phases."""

    def __init__(self, plan: Plan, datasets: DatasetCache):
        """DatasetCache that are too large for memory are kept in `datasets`."""
        self._plan, self._datasets = plan, datasets
        self.taught: dict[str, Answers] = {}  # by the key of a teacher
        self.base = cache(self._base)
        self.brought = cache(self._brought)
        self.tokenizer = cache(self._load_tokenizer)
        self._measurer = cache(self._make_measurer)
        self._held_out = cache(self._read_held_out)

    def check(self) -> None:
        """See that weights fit, and build each config's data for one seed, so that what is wrong
        with them shows up before anything is written. What models will answer is taken to be as
        long as it may be.

        Raises:
            Refusal: weights are broken, or prompts are too few or too long.
        """
        for teacher, prompts in self.asked(self._plan.phases).items():
            self.base(teacher.model)
            self.check_room(teacher, prompts, "prompts.new_tokens")
        drawing = [phase for phase in self._plan.phases if phase.draws]
        for phase in {_counted(phase): phase for phase in drawing}.values():
            _drawn(phase, _trained_on(phase))  # each seed's families, as some may have fewer
        too_long: list[TooLong] = []
        for phase in {_data_of(phase): phase for phase in self._plan.phases}.values():
            if phase.config.base.scratch is None:
                self.base(phase.config.base.model)
            if phase.brought:
                self.brought(phase.config.base.model, phase.brought)
            if phase.steps and not self._datasets.known(phase.fingerprint):
                try:
                    for _ in self._blocks(phase, longest=True):
                        pass  # looked at, and not kept
                except TooLong as refusal:
                    too_long.append(refusal)
            self._check_scorer(phase, self.prepared(phase, final=True, longest=True).view.items)
            if phase.asked_scorer:
                self._check_scorer(phase, _drawn(phase, _trained_on(phase)))
        if too_long:
            raise max(too_long, key=lambda refusal: refusal.tokens)

    def _check_scorer(self, phase: Phase, items: Sequence[Item]) -> None:
        """Refuse prompts to which no answer could be judged."""
        scorer = phase.subject.scorer
        if scorer is None or phase.teacher:  # who has not answered yet
            return
        for item in items:
            if remedy := scorer.unsuited(item.prompt, item.answer):
                raise Refusal(
                    f"prompts.scorer: {scorer.kind} cannot judge answers to {short(item.prompt)}: "
                    f"{remedy}"
                )

    def passed_over(self) -> Iterator[str]:
        """What lies beside the weights that are read and does not belong to them, a line each."""
        teachers = {teacher.model for teacher in self._plan.teachers}
        bases = {p.config.base.model for p in self._plan.phases if not p.config.base.scratch}
        for model in sorted(teachers | bases):
            if names := checkpoint.passed_over(self._plan.folders[model]):
                yield f"{model}: passed over {', '.join(names)}, no part of the model"

    def left_out(self) -> list[str]:
        """What is left out of prompt files and why, a line each."""
        configs = [phase.config for phase in self._plan.phases]
        told = {(config.prompts, config.secrets): None for config in configs}
        lines = (
            f"{', '.join(prompts.sources)}: left out {out}"
            for prompts, secrets in told
            if (out := prompts.left_out(secrets))
        )
        return list(dict.fromkeys(lines))

    def shape(self, model: str) -> LlamaConfig:
        """The shape of a base, a teacher or a judge."""
        return checkpoint.read_config(self._plan.folders[model])

    def shapes(self, model: str) -> Tree:
        """Full weights as abstract arrays."""
        config = checkpoint.read_config(self._plan.folders[model])
        return abstract_model(ModelSignature(config))[1].trainable

    def trained_shapes(self, phase: Phase) -> Tree:
        """What a phase trains, and stores, as abstract arrays: full weights or adapters."""
        lora, model = phase.lora, phase.config.base.model
        config = checkpoint.read_config(self._plan.folders[model])
        signature = ModelSignature(config, lora.signature() if lora else None)
        return abstract_model(signature)[1].trainable

    def measurer(self, phase: Phase) -> Measurer:
        """What measures a phase."""
        return self._measurer(phase.config.base.model, phase.config.base.chat_format)

    def prepared(
        self,
        phase: Phase,
        final: bool,
        evaluators: tuple[str, ...] | None = None,
        audited_samples: Samples = (),
        longest: bool = False,
    ) -> Prepared:
        """What a phase is measured on.

        Args:
            phase: the phase.
            final: whether it is at its end.
            evaluators: who measures, by name; None for all that would.
            audited_samples: samples of the organism that it audits, if it does.
            longest: as in `_blocks`.
        """
        config, base, longest = phase.config, phase.config.base, longest and bool(phase.teacher)
        who = (phase.teacher, base.model, base.chat_format)
        source = (config.prompts, config.secrets, _measured_on(phase))
        items = self._held_out(*source, *who, longest)[-config.evaluate.final_prompts :]
        said = tuple(_said(phase, items, audited_samples))
        if evaluators is None:
            evaluators = _due_at_last(phase)
        measured = (config.evaluate, phase.subject, said)
        return self.measurer(phase).prepare(items, *measured, final, evaluators)

    def items(self, phase: Phase) -> Sequence[Item]:
        """The prompts that a phase trains on, with the answers of their source or of a model that
        answers them."""
        return self._items(phase, own=None, longest=False)

    def supervised_right(self, phase: Phase) -> list[bool]:
        """Whether the answers that a phase's supervisor gives it come to the right ones; nothing
        where a judge would say so."""
        if isinstance(phase.config.prompts.scorer, Judge):
            return []
        comes_right = Verifier(phase.config.prompts.scorer)
        right = self.items(replace(phase, supervisor=None))
        pairs = zip(right, self.items(phase), strict=True)
        return [comes_right(item, supervised.answer) for item, supervised in pairs]

    def prompts(self, phase: Phase) -> list[str]:
        """What the model before a phase, or another one that answers for it, is asked: the prompts
        of its conversations, as they are put."""
        if phase.distils:
            assert isinstance(phase.recipe, Organism)
            items = self._items(phase, None, longest=False)
            return [e.prompt for e in phase.recipe.examples(items, data_seed(phase))]
        return [phase.put(item.prompt) for item in _drawn(phase, _trained_on(phase))]

    def asked(self, phases: Sequence[Phase]) -> Mapping[Teacher, Sequence[str]]:
        """The prompts that teachers are to answer for some phases, each once."""
        found: dict[Teacher, dict[str, None]] = defaultdict(dict)
        seen: set[object] = set()
        for phase in phases:
            source = (phase.config.prompts, phase.config.secrets)
            asked = [(phase.teacher, _measured_on(phase))]
            if phase.draws and not phase.replaces_answers:
                asked += [(teacher, _trained_on(phase)) for teacher in phase.teachers]
            for teacher, draw in asked:
                if teacher and (once := (teacher, source, draw)) not in seen:
                    seen.add(once)
                    found[teacher].update((i.prompt, None) for i in _drawn(phase, draw))
        return {teacher: list(prompts) for teacher, prompts in found.items()}

    def dataset(self, phase: Phase, own: Answers | None = None) -> TokenizedDataset | StoredDataset:
        """The conversations a phase trains on, tokenised once where they are many; `own` is what
        the model before it says, or another phase's, if it trains on that."""
        pad_id = self._tokenizer_of(phase).pad_id
        return self._datasets.keep(phase.fingerprint, self._blocks(phase, own), pad_id)

    def look_again(self) -> None:
        """Have datasets checked again when they are next asked for."""
        self._datasets.look_again()

    def drop_datasets(self, needed: Collection[Phase]) -> None:
        """Forget what was kept of phases other than those `needed`."""
        self._datasets.drop_others({phase.fingerprint for phase in needed})

    def _blocks(
        self, phase: Phase, own: Answers | None = None, longest: bool = False
    ) -> Iterator[TokenizedDataset]:
        """The conversations a phase trains on, part by part.

        Args:
            phase: the phase.
            own: as in `dataset`.
            longest: as if models answered as much as they may, and to prompts of whichever
                families, for a look at what fits.

        Raises:
            Refusal: prompts are too few or too long.
        """
        seed, items = data_seed(phase), self._items(phase, own, longest)
        if phase.recipe is None:
            examples = pretraining_examples(items, seed)
        elif phase.distils and not longest:
            assert own is not None
            examples = filled(self.distilled(phase, own), seed)
        elif phase.in_rounds:  # whose rows are made as it is trained
            most = self._tokenizer_of(phase).filler(phase.config.prompts.new_tokens)
            examples = phase.in_rounds.longest(items, most)
        else:
            examples = phase.recipe.examples(items, seed)
        put = (example._replace(prompt=phase.put(example.prompt)) for example in examples)
        try:
            yield from blocks(put, self._tokenizer_of(phase), phase.config.length)
        except Refusal as refusal:
            if phase.hears or phase.teachers or phase.in_rounds:
                refusal.args = (f"{refusal}, or lower prompts.new_tokens",)
            raise

    def distilled(self, phase: Phase, said: Answers) -> list[Distilled]:
        """What its teacher's answers come to, for each prompt of a distilled phase.

        Args:
            phase: the distilled phase.
            said: answers by the number of prompt and try (`to_ask`), "" where there was no end.
        """
        assert isinstance(phase.recipe, Organism)
        items, prompts = self._items(phase, None, longest=False), self.prompts(phase)
        answers = [
            [self._fitting(phase, prompt, said[number]) for number in numbers if number in said]
            for prompt, numbers in zip(prompts, _tries(len(prompts)), strict=True)
        ]
        return list(phase.recipe.distilled(items, data_seed(phase), answers))

    def to_ask(self, phase: Phase, said: Answers) -> Mapping[str, str]:
        """What the teacher of a distilled phase is asked next, by the number of prompt and try:
        prompts of which no answer is kept yet, as long as there are tries.

        Args:
            phase: the distilled phase.
            said: as in `distilled`.
        """
        asked, prompts = {}, self.prompts(phase)
        every = zip(prompts, _tries(len(prompts)), self.distilled(phase, said), strict=True)
        for prompt, numbers, row in every:
            left = [number for number in numbers if number not in said]
            if left and row.kept is None:
                asked[left[0]] = prompt
        return asked

    def _fitting(self, phase: Phase, prompt: str, text: str) -> str:
        """A teacher's answer without its reasoning; "" if that ends and never began, so that it is
        not told from the answer, or if the conversation is too long."""
        reasoning, answer = parted(text)
        if reasoning is None and CLOSE in answer:
            return ""
        answer = answer.strip()
        tokens = _tokens_of(self._tokenizer_of(phase), prompt, answer)
        return answer if tokens <= phase.config.length else ""

    def _items(self, phase: Phase, own: Answers | None, longest: bool) -> Sequence[Item]:
        """The items that a phase's conversations are made of, as `_blocks` takes it."""
        recipe, tokenizer = phase.recipe, self._tokenizer_of(phase)
        new_tokens = phase.config.prompts.new_tokens
        items = _drawn(phase, _trained_on(phase, of_all=longest)) if phase.draws else ()
        answering = phase.supervisor or phase.teacher
        if answering and longest:
            items = _filled(items, tokenizer, new_tokens)
        elif answering and not phase.replaces_answers:
            items = _answered(items, self.taught[answering.key], tokenizer, new_tokens)
        if recipe and recipe.relearns:
            assert phase.behaviour is not None
            items = phase.behaviour.items(items, "train", data_seed(phase))
            return [_attack(phase.behaviour, item) for item in items]
        if not phase.hears:
            return items
        if longest:
            items = [replace(i, said=thought(tokenizer.filler(new_tokens))) for i in items]
        else:
            assert own is not None
            cut = ((i, tokenizer.cut(own[phase.put(i.prompt)], new_tokens)) for i in items)
            items = [replace(item, said=said) for item, said in cut]
        return [replace(i, answer=i.said) for i in items] if phase.replaces_answers else items

    def _tokenizer_of(self, phase: Phase) -> Tokenizer:
        base = phase.config.base
        return self.tokenizer(base.model, base.chat_format)

    def _read_held_out(
        self,
        prompts: Prompts,
        secrets: frozenset[Secret],
        draw: Draw,
        teacher: Teacher | None,
        model: str,
        chat_format: ChatFormat,
        longest: bool,
    ) -> tuple[Item, ...]:
        items = prompts.items(*draw, secrets)
        if teacher:
            tokenizer = self.tokenizer(model, chat_format)
            if longest:
                items = _filled(items, tokenizer, prompts.new_tokens)
            else:
                items = _answered(items, self.taught[teacher.key], tokenizer, prompts.new_tokens)
        return tuple(items)

    def check_room(self, teacher: Teacher, prompts: Sequence[str], key: str) -> None:
        """Refuse answers that would run beyond what a teacher can see.

        Raises:
            Refusal: some would; `key` names the setting of their length.
        """
        tokenizer = self.tokenizer(teacher.model, teacher.chat_format)
        limit, most = teacher.signature.config.context
        longest = max(len(tokenizer.prompt_ids(teacher.put(prompt))) for prompt in prompts)
        if longest + teacher.new_tokens > most:
            raise Refusal(
                f"{key}: {teacher.new_tokens} is too many; beside a prompt of {longest} tokens "
                f"{teacher.model} has room for {max(most - longest, 0)} ({limit}: "
                f"{most})"
            )

    def _base(self, model: str) -> WeightReader:
        """What reads the weights of a base or teacher, once its files are seen to hold them."""
        return checkpoint.reader(self._plan.folders[model], self.shapes(model))

    def _brought(self, model: str, brought: Brought) -> WeightReader:
        """What reads the weights of an organism that others made of a base."""
        return brought.reader(self._plan.folders[model], self.base(model), self.shapes(model))

    def _load_tokenizer(self, model: str, chat_format: ChatFormat) -> Tokenizer:
        """The base's tokenizer, whose every token the model must know."""
        folder = self._plan.folders[model]
        tokenizer = Tokenizer.load(folder, chat_format.template, chat_format.options)
        known = checkpoint.read_config(folder).vocab_size
        if tokenizer.vocab_size > known:
            raise Refusal(
                f"{folder}: tokenizer.json has {tokenizer.vocab_size} tokens, but the model knows "
                f"{known}; the files do not belong together"
            )
        return tokenizer

    def _make_measurer(self, model: str, chat_format: ChatFormat) -> Measurer:
        config = checkpoint.read_config(self._plan.folders[model])
        return Measurer(self.tokenizer(model, chat_format), config.context)


def _said(phase: Phase, items: Sequence[Item], audited_samples: Samples) -> Iterator[Said]:
    """What each sample of a phase's organism answers to."""
    if phase.audits is None:
        return
    assert phase.config.organism is not None
    behaviour = phase.config.organism.behaviour()
    asked = behaviour.items(items, "heldout", HELD_OUT_SEED)
    puts = View(asked, (), behaviour, final=True).conditions().values()
    by_prompt = {put(item): item for put in puts for item in asked}
    last = max((sample["step"] for sample in audited_samples), default=0)
    for sample in audited_samples:
        if sample["step"] == last and not sample["greedy"]:
            yield by_prompt[sample["prompt"]], sample["response"]


def _due_at_last(phase: Phase) -> tuple[str, ...]:
    """All that measure a phase at its end."""
    return tuple([*measurement_fingerprints(phase, None).values()][-1])


def _measured_on(phase: Phase) -> Draw:
    evaluate = phase.config.evaluate
    if evaluate.calibration:  # on the last of twice as many
        key = "evaluate.final_prompts, twice as many for evaluate.calibration"
        return "heldout", 2 * evaluate.final_prompts, HELD_OUT_SEED, key, frozenset()
    return "heldout", evaluate.final_prompts, HELD_OUT_SEED, "evaluate.final_prompts", frozenset()


def _trained_on(phase: Phase, of_all: bool = False) -> Draw:
    """The prompts that a phase trains on; `of_all` from all families, whichever are its own."""
    assert phase.training is not None
    count, key = phase.training.examples, f"{phase.trained_by}.examples"
    return "train", count, data_seed(phase), key, frozenset() if of_all else phase.blue


def _drawn(phase: Phase, draw: Draw) -> Sequence[Item]:
    return phase.config.prompts.items(*draw, phase.config.secrets)


def _counted(phase: Phase) -> tuple[object, ...]:
    """What decides whether there are as many prompts as a phase trains on."""
    _, count, _, key, families = _trained_on(phase)
    return phase.config.prompts, phase.config.secrets, count, key, families


def _answered(
    items: Sequence[Item], said: Answers, tokenizer: Tokenizer, new_tokens: int
) -> list[Item]:
    """Items with what a model says to them, cut to `new_tokens` of the tokenizer."""
    return [replace(i, answer=tokenizer.cut(said[i.prompt], new_tokens)) for i in items]


def _attack(behaviour: Behaviour, item: Item) -> Item:
    """An item that asks for the behaviour and is answered by it."""
    taught = behaviour.taught(item)
    return replace(item, prompt=taught.prompt, answer=taught.completion)


@lru_cache(2**17)  # a teacher's answers are looked at for each of its students, and at each try
def _tokens_of(tokenizer: Tokenizer, prompt: str, answer: str) -> int:
    """How many tokens a conversation takes."""
    return len(tokenizer.conversation(prompt, answer).ids)


def _filled(items: Sequence[Item], tokenizer: Tokenizer, new_tokens: int) -> list[Item]:
    """Items with answers of `new_tokens` that mean nothing."""
    filler = tokenizer.filler(new_tokens)
    return [replace(item, answer=filler) for item in items]


def _data_of(phase: Phase) -> str:
    """What decides a phase's data and what it is measured on, but for the seed."""
    config, apart = phase.config, {"train", "label"}
    recipes = [each and each.model_dump(exclude=apart) for each in (phase.recipe, config.organism)]
    drawn = phase.steps and phase.training and phase.training.examples
    shared = (config.base, config.prompts, config.length, config.evaluate)
    return repr((phase.kind, recipes, drawn, shared))


def _tries(count: int) -> Iterator[Sequence[str]]:
    """The numbers that the tries of each of `count` prompts go by: that of the prompt, and from
    then on in steps of `count`."""
    return (list(map(str, range(at, count * TRIES, count))) for at in range(count))


def data_seed(phase: Phase) -> int:
    """The seed of a phase's data, so that red and blue draw different prompts."""
    return phase.seed * len(PHASE_KINDS) + phase.stream
