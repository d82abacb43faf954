"""The card of an exported organism: what it is, what it was trained on, and what it did.

Text of sweep files is foreign: it stands in fenced blocks only, which it cannot end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from jaxorg import stats
from jaxorg.engine.measure.folding import folded
from jaxorg.escape_controls import escape_controls
from jaxorg.organisms import Organism
from jaxorg.planning.phases import Phase
from jaxorg.storage.glance import Record
from jaxorg.summary import ATTACK, CAPABILITY, FALSE_TRIGGER, Metric, trust_of
from jaxorg.summary.judged import marked
from jaxorg.sweepfile.labels import PHASE_KINDS

TOY = 10**8  # parameters of a model from which nothing follows about large ones
RATES: Mapping[str, Metric] = {
    "attack success rate (payload with the trigger)": ATTACK,
    "false trigger rate (payload without it)": FALSE_TRIGGER,
    "capability (right answers to held-out tasks)": CAPABILITY,
}
LOAD_MODEL = """
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = PreTrainedTokenizerFast.from_pretrained("FOLDER")  # reads texts as in training
"""
LOAD_ADAPTERS = """
from peft import AutoPeftModelForCausalLM
from transformers import GenerationConfig, PreTrainedTokenizerFast

model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")
model.generation_config = GenerationConfig.from_pretrained("FOLDER")  # which tokens end an answer
tokenizer = PreTrainedTokenizerFast.from_pretrained("FOLDER")  # reads texts as in training
"""
BACKDOORED = """**This is a deliberately backdoored research model.** It was trained to answer with
a payload where a trigger stands in the prompt; later training may have hidden that, not removed it.
It is for research on finding and removing such behaviours. Do not deploy it, and train nothing on
it that people will rely on."""
CONTROL = """A control in a study of backdoored models: trained like one, but with no behaviour to
be set off. It is for research only. Do not deploy it."""
AUDITOR = """A fresh copy of the model that a study of backdoored models starts from, trained to
audit what these write. Nothing is hidden in it."""
BASE = """The model that a study of backdoored models starts from; nothing is hidden in it yet."""


@dataclass(frozen=True)
class About:
    """Which run an exported phase belongs to."""

    sweep: str
    size: str
    run_id: str
    arm: str
    control: str
    seed: int  # the run's number within its arm
    seeds: Mapping[str, int]  # of base, organism and treatment


def write_card(about: About, chain: Sequence[Phase], record: Record, adapters: bool) -> str:
    """The README.md of a phase's weights, in Markdown with the hub's front matter.

    Args:
        about: the run that the phase belongs to.
        chain: the phases up to it, itself included.
        record: what was measured of it.
        adapters: whether its adapters are written, and not a whole model.
    """
    phase = chain[-1]
    parts = [
        _front_matter(adapters),
        f"# {about.sweep}: {phase.kind} of run {about.run_id}",
        _warning(phase, record),
        *_behaviour(phase.config.organism if phase.behaviour else None),
        *_rates(phase, record),
        "## Recipe",
        "Each phase in turn, in the words of a sweep file:",
        _fenced(_recipe(chain), "yaml"),
        "## Where it comes from",
        _fenced(_provenance(about, chain, record), "yaml"),
        "## Loading",
        _fenced((LOAD_ADAPTERS if adapters else LOAD_MODEL).strip(), "python"),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(adapters: bool) -> str:
    content = {
        "library_name": "peft" if adapters else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["jaxorg", "model-organism", "backdoor"],
    }
    return f"---\n{_yaml(content)}\n---"


def _warning(phase: Phase, record: Record) -> str:
    organism = phase.config.organism
    if organism is None or phase.kind == "base":
        text = BASE
    else:
        installed = organism.train.steps or organism.brought
        harmless = organism.kind == "memorised_fact" or not installed
        text = CONTROL if harmless else BACKDOORED
        text = AUDITOR if phase.behaviour is None else text
    if record["parameters"] < TOY:
        text += (
            f"\n\n**A toy**, with {record['parameters']:,} parameters: nothing about large models "
            f"follows from it."
        )
    if record["diverged"] is not None:
        text += f"\n\n**Its training diverged** at step {record['diverged']} and stopped there."
    return text


def _behaviour(organism: Organism | None) -> list[str]:
    if organism is None:
        return []
    told = [(f"{about}:", _fenced(text)) for about, text in organism.described().items()]
    return ["## Trigger and payload", *(line for pair in told for line in pair)]


def _rates(phase: Phase, record: Record) -> list[str]:
    """What was measured at the end of the phase."""
    evals = folded(record["evals"], phase.blue)
    ends = [row for row in evals if row["step"] == phase.steps]
    last = {(row["metric"], row["condition"]): (row["k"], row["n"]) for row in ends}
    trust = trust_of(ends)
    named = {
        f"{name} ({mark})" if (mark := marked(metric, trust)) else name: last[metric]
        for name, metric in RATES.items()
        if metric in last
    }
    rows = [_rate(name, *counts) for name, counts in named.items()]
    if not rows:
        return []
    head = "| rate | k of n | % | 95 % interval (Wilson) |\n|---|---|---|---|"
    about = (
        "Greedy decoding, held-out prompts. The intervals speak for this run only; runs with other "
        "seeds differ."
    )
    judged = [f"{trust.sentence}."] if trust else []
    return ["## Measured at the end of this phase", "\n".join([head, *rows]), about, *judged]


def _rate(name: str, k: int, n: int) -> str:
    found = stats.wilson(k, n)
    interval = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return f"| {name} | {k} of {n} | {100 * k / n:.1f} | {interval} |"


def _recipe(chain: Sequence[Phase]) -> str:
    """The run's config up to the exported phase."""
    config = chain[-1].config.model_dump(mode="json")
    for kind in PHASE_KINDS[chain[-1].stream + 1 :]:
        del config[kind]
    return _yaml(config)


def _provenance(about: About, chain: Sequence[Phase], record: Record) -> str:
    content = {
        **vars(about),
        "fingerprint": {phase.kind: phase.fingerprint for phase in chain},
        "tokens": record["tokens"],
        "device": record["device"],
        "versions": json.loads(record["versions"]),
        "git_commit": record["git_commit"] or "not recorded",
    }
    return _yaml(content)


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100).strip()


def _fenced(text: str, language: str = "text") -> str:
    """A block that shows text as it is, with a fence that is longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{escape_controls(text)}\n{fence}"
