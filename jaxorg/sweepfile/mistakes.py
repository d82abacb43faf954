"""What is wrong with a sweep file, in one line: key, value and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from jaxorg.discovery import Pieces
from jaxorg.errors import short
from jaxorg.optimizers import FAMILIES
from jaxorg.suggest import choose, nearest, quoted
from jaxorg.sweepfile.training import Training

# Keys of neighbouring tools (Axolotl, TRL, Transformers, PEFT) and other names of ours, by what
# they are called here; a dotted one is a path's end.
SYNONYMS: Mapping[str, Sequence[str]] = {
    "learning_rate": ("lr", "peak_lr", "eta"),
    "train.steps": ("max_steps", "num_steps", "n_steps", "iterations", "epochs", "num_epochs",
                    "num_train_epochs"),
    "train.batch": ("batch_size", "micro_batch_size", "per_device_train_batch_size", "bs"),
    "train.examples": ("num_examples", "n_samples", "samples", "max_train_samples"),
    "train.schedule": ("lr_scheduler", "lr_scheduler_type", "scheduler"),
    "train.warmup": ("warmup_ratio", "warmup_steps"),
    "train.clip": ("max_grad_norm", "gradient_clipping", "grad_clip"),
    "train.optimizer": ("optim", "optimizer_type"),
    "train.packing": ("sample_packing",),
    "train.lora": ("peft", "peft_config", "adapter", "adapters"),
    "lora.rank": ("r", "lora_r", "lora_rank"),
    "lora.alpha": ("lora_alpha",),
    "lora.targets": ("target_modules", "lora_target_modules", "modules"),
    "hyper.b1": ("beta1", "adam_beta1"),
    "hyper.b2": ("beta2", "adam_beta2"),
    "hyper.eps": ("epsilon", "adam_epsilon"),
    "hyper.weight_decay": ("wd", "decay"),
    "base.model": ("base_model", "model_name", "model_name_or_path", "pretrained_model"),
    "base.chat_template": ("template",),
    "base.dtype": ("bf16", "fp16", "torch_dtype", "precision"),
    "base.remat": ("gradient_checkpointing", "checkpointing"),
    "length": ("sequence_len", "seq_len", "max_length", "max_seq_length", "context", "block_size"),
    "prompts.source": ("file", "files", "path", "dataset", "datasets", "data", "train_file"),
    "prompts.prompt": ("prompt_column", "question", "field_instruction"),
    "prompts.answer": ("answer_column", "response", "field_output"),
    "prompts.format": ("chat_format", "conversation"),
    "evaluate.answers.prompts": ("generated",),
    "evaluate.answers.new_tokens": ("max_new_tokens", "max_tokens"),
    "evaluate.points": ("eval_steps", "evaluations", "checkpoints"),
    "evaluate.final_prompts": ("eval_prompts", "num_eval", "n_eval"),
    "organism": ("red", "red_team", "model_organism"),
    "treatment": ("blue", "blue_team", "defense", "defence"),
    "organism.payload": ("behaviour", "behavior", "target"),
    "organism.triggered_share": ("poison_rate", "poison_ratio"),
    "seeds": ("num_seeds", "n_seeds", "replicates"),
    "first_seed": ("seed", "random_state"),
    "grid": ("sweep", "matrix", "parameters"),
}  # fmt: skip
_MEANT = {name: path for path, names in SYNONYMS.items() for name in names}

# Error types that pydantic words for programmers.
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}
_SHAPES = ("list_type", "model_type")
_WRITTEN = {
    "base": "base: {model: jaxorg-1m}",
    "prompts": "prompts: {source: file.jsonl}",
    "controls": "controls: [{kind: clean, seeds: 1}]",
    "grid": "grid: [{treatment.kind: [hhh, pirate]}]",
}
_NUMBERS = ("int_type", "float_type")
_NUMBER = re.compile(r"[-+]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?")
_SCALARS = ("int_type", "float_type", "string_type", "bool_type", "literal_error")


class Kinds(NamedTuple):
    """What may be the `kind` of a mapping, which decides what its other keys are."""

    pieces: Pieces[Any]
    names: Sequence[str]  # of those that may stand there


def one_line(
    error: ValidationError, models: Sequence[type[BaseModel]], kinds: Mapping[str, Kinds]
) -> str:
    """Key, value and remedy of a validation error's first mistake; unknown keys come first, since
    a mistyped key is a missing one, too.

    Args:
        error: what pydantic found.
        models: what a sweep file may hold. The last one's keys may be swept.
        kinds: the dotted keys that hold a mapping with a `kind`, and what these may be; those
            within another stand after it.
    """
    mistakes = error.errors(include_url=False)
    first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    problem, found = first["type"], first["input"]
    place = [str(part) for part in first["loc"]]
    for at in (key.split(".") for key in kinds):  # outer keys first
        if place[: len(at)] == at:  # the kind, by which pydantic tells the union's members apart
            del place[len(at) : len(at) + 1]
    key = ".".join(place)
    if problem == "extra_forbidden":
        known = [path for model in models for path in _paths(model)]
        return f"{key}: unknown key with value {short(found)}; {_suggestion(place, known)}"
    if problem == "union_tag_invalid":
        tag, (pieces, names) = first["ctx"]["tag"], kinds[key]
        return f"{key}.kind: {short(tag)} is invalid; {pieces.remedy(tag, names)}"
    if problem in ("missing", "union_tag_not_found"):
        return f"{key}{'.kind' * (problem != 'missing')}: is missing; add it"
    meant = nearest(found, kinds[key].names) if key in kinds else None
    if problem == "model_attributes_type" and meant:
        return f"{key}: {short(found)} is invalid; write {{kind: {meant}}} with its other keys"
    remedy = _remedy(problem, found, first["msg"], first.get("ctx", {}))
    if isinstance(found, list) and problem in _SCALARS and key in _paths(models[-1]):
        remedy += f"; to sweep it, write grid: [{{{key}: {short(found)}}}]"
    if problem in _SHAPES and (shape := _WRITTEN.get(place[0])):
        remedy += f", as in {shape}"
    return f"{key}: {short(found)} is invalid; {remedy}"


def _remedy(problem: str, found: Any, message: str, context: Mapping[str, Any]) -> str:
    if problem == "literal_error":
        return choose(found, re.findall("'([^']*)'", context["expected"]))
    if problem not in _MUST_BE:
        message = message.removeprefix("Value error, ")
        return re.sub("^(Input|String|List|Value) should", "it must", message)
    remedy = f"it must be {_MUST_BE[problem]}"
    if problem == "string_type" and not isinstance(found, list):
        return f"{remedy}; {quoted(found)}"
    if problem in _NUMBERS and isinstance(found, str) and _NUMBER.fullmatch(found):
        return f"{remedy}; write {float(found):g} without quotes"
    return remedy


def _suggestion(place: Sequence[str], known: Sequence[str]) -> str:
    """What an unknown key may have been meant to be: one beside it, or one elsewhere."""
    above, key = [part for part in place[:-1] if not part.isdigit()], place[-1]
    unknown = ".".join([*above, key])
    if "." in key and unknown in known:
        return "write it as nested mappings; paths with dots stand in grid, sizes and --set"
    if unknown in known:
        return "it belongs to another kind, so remove it"
    last = ("base.scratch", "seeds.", "controls.seeds.")  # they are meant last
    known = sorted(known, key=lambda path: path.startswith(last))
    beside = [path for path in known if path.split(".")[:-1] == above]
    below = [path for path in known if path.split(".")[: len(above)] == above]
    meant = _MEANT.get(key.lower(), key)
    for paths in (below, known):
        if ending := [path for path in paths if f".{path}".endswith(f".{meant}")]:
            return f"did you mean {ending[0]}?"
    for paths in (beside, below, known):
        names = {path.rpartition(".")[2]: path for path in reversed(paths)}
        if close := nearest(key, names):
            return f"did you mean {names[close]}?"
    return "remove it"


def _paths(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every dotted path that may stand in a sweep file."""
    for name, field in model.model_fields.items():
        yield above + name
        for inner in models_in(field.annotation):
            yield from _paths(inner, f"{above}{name}.")
        if model is Training and name == "hyper":
            hyper = {key for family in FAMILIES.values() for key in family.defaults}
            yield from (f"{above}{name}.{key}" for key in sorted(hyper))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The classes of settings that may stand somewhere."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
