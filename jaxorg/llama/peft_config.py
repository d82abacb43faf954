"""adapter_config.json of a PEFT LoRA adapter: what it says, and which modules of a base it means.

It comes from anywhere. What changes weights is read as PEFT applies it, or refused by name; what
only says how the adapter was trained is passed over. Facts are those of PEFT 0.21; rules that
changed between its releases are those of this one.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator

from jaxorg.config import Config, misfit
from jaxorg.errors import Refusal, short
from jaxorg.llama import files

CONFIG = "adapter_config.json"
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"  # modules, by their names in Transformers

MERGE = "merge the adapter into its base with PEFT and give that model"

# Keys that change no weight: notes, and how the adapter was trained. `fan_in_fan_out` is about
# other classes than nn.Linear, and the group size counts with `use_qalora` only.
_PASSED_OVER = {
    *("auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode"),
    *("lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision"),
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config", "runtime_config"),
}
_FRESH = ("gaussian", "eva", "orthogonal", "mica")  # ways to begin that leave the base alone
_DEFAULT_TARGETS = ("q_proj", "v_proj")  # of Llama, Mistral, Qwen2 and Qwen3

MOST_RANK = 2**17  # no matrix of a base that is believed is wider
MOST_ALPHA = 1e6
MOST_NAMES = 2**11  # of a list; Llama-3.1 405B has 882 matrices in its layers
LONGEST = 2**11  # characters of a pattern, repeats of what a count repeats among them

Rank = Annotated[int, Field(ge=1, le=MOST_RANK)]
Alpha = Annotated[float, Field(ge=-MOST_ALPHA, le=MOST_ALPHA)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Some = Annotated[list[Name], Field(max_length=MOST_NAMES)]
PlainName = Annotated[Name, Field(pattern=r"^[A-Za-z0-9_.]+$")]
Pattern = Annotated[str, Field(min_length=1, max_length=LONGEST)]
Index = Annotated[int, Field(ge=0, le=2**31)]
Indices = Annotated[list[Index], Field(max_length=2**22)]


class Lora(NamedTuple):
    """One module's adapter: its rank, and what B A is multiplied by."""

    rank: int
    scale: float


class PeftConfig(Config):
    """What an adapter_config.json says of weights; names and defaults are PEFT's."""

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"] = "CAUSAL_LM"
    r: Rank = 8
    lora_alpha: Alpha = 8.0
    rank_pattern: Annotated[dict[Name, Rank], Field(max_length=MOST_NAMES)] = {}
    alpha_pattern: Annotated[dict[Name, Alpha], Field(max_length=MOST_NAMES)] = {}
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    init_lora_weights: bool | str = True
    target_modules: Some | Pattern = list(_DEFAULT_TARGETS)
    exclude_modules: Some | Pattern = []
    layers_to_transform: Indices | Index | None = None
    layers_pattern: Some | Pattern | Literal[""] = []
    modules_to_save: Annotated[list[PlainName], Field(max_length=MOST_NAMES)] = []
    ensure_weight_tying: bool = False
    trainable_token_indices: Indices | dict[Name, Indices] = []

    @field_validator("init_lora_weights")
    @classmethod
    def _base_untouched(cls, value: bool | str) -> bool | str:
        if isinstance(value, bool) or value.lower() in _FRESH:
            return value
        raise ValueError(
            "it may have changed the base before training; save it again with "
            "path_initial_model_for_weight_conversion, or merged into its base"
        )

    @model_validator(mode="after")
    def _possible(self) -> PeftConfig:
        """What PEFT itself refuses, or warns of and cannot merge."""
        pattern, layers = isinstance(self.target_modules, str), self.layers_to_transform
        if pattern and layers is not None:
            raise misfit("layers_to_transform", layers, "target_modules must be a list beside it")
        if self.layers_pattern and layers is None:
            raise misfit("layers_pattern", self.layers_pattern, "it needs layers_to_transform")
        if self.lora_bias and self.use_dora:
            raise misfit("lora_bias", True, "PEFT has none with use_dora")
        return self

    @property
    def tokens(self) -> list[int]:
        """The rows of the embedding that the adapter brings whole."""
        given = self.trainable_token_indices
        return given if isinstance(given, list) else [i for rows in given.values() for i in rows]

    def adapted(self, modules: Sequence[str]) -> dict[str, Lora]:
        """Those of a base's `modules` that get an adapter, and which, as PEFT decides it.

        Args:
            modules: the matrices, by their names in Transformers.

        Raises:
            Refusal: a pattern that cannot be matched in bounded time, or is none.
        """
        chosen = self._targeted(modules)
        ranks = _by_pattern("rank_pattern", self.rank_pattern, self.r, chosen)
        alphas = _by_pattern("alpha_pattern", self.alpha_pattern, self.lora_alpha, chosen)
        power = 0.5 if self.use_rslora else 1.0
        return {name: Lora(ranks[name], alphas[name] / ranks[name] ** power) for name in chosen}

    def saved(self, module: str) -> bool:
        """Whether a module is one that the adapter brings whole, or inside one."""
        parts = module.split(".")
        around = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        return any(name.endswith(tuple(self.modules_to_save)) for name in around)

    def _targeted(self, modules: Sequence[str]) -> list[str]:
        out = self._excluded(modules)
        left = [name for name in modules if name not in out]
        targets = self.target_modules
        if not isinstance(targets, str):
            exact, ends = set(targets), _ending(left, targets) & self._in_layers(left)
            return [name for name in left if name in exact or name in ends]
        if targets.lower() == "all-linear":
            return [name for name in left if name not in (EMBEDDING, HEAD)]
        found = matching("target_modules", targets, left)
        return [name for name in left if name in found]

    def _excluded(self, modules: Sequence[str]) -> set[str]:
        saved = (
            matching("modules_to_save", name, modules, r"(.*\.)?", r"(\..*)?")
            for name in self.modules_to_save
        )
        if isinstance(self.exclude_modules, str):
            excluded = matching("exclude_modules", self.exclude_modules, modules)
        else:
            excluded = _ending(modules, self.exclude_modules)
        return excluded.union(*saved)

    def _in_layers(self, modules: Sequence[str]) -> set[str]:
        """Those in a layer that is to be adapted; all where nothing is said of layers."""
        layers = self.layers_to_transform
        if layers is None or layers == []:
            return set(modules)
        numbers = {layers} if isinstance(layers, int) else set(layers)
        patterns = self.layers_pattern or [r"[^.]*"]
        patterns = [patterns] if isinstance(patterns, str) else patterns
        found: set[str] = set()
        for pattern in patterns:
            found |= matching("layers_pattern", pattern, modules, r"(.*\.)?", r"\.\d+\..*")
        layer = {name: re.search(r"\.(\d+)\.", name) for name in found}
        return {name for name, at in layer.items() if at and int(at[1]) in numbers}


def read_peft_config(folder: Path) -> PeftConfig:
    """What an adapter folder's adapter_config.json says.

    Raises:
        Refusal: there is none, or a setting that is not read here.
    """
    path = folder / CONFIG
    if not files.find(folder, CONFIG):
        raise Refusal(f"{path}: cannot be read, there is none; give a folder that PEFT saved")
    said = {key: value for key, value in files.read_object(path).items() if value is not None}
    others = said.keys() - PeftConfig.model_fields.keys() - _PASSED_OVER
    for key in sorted(others):
        if said.pop(key):  # off otherwise, whatever it is
            raise Refusal(f"{path}: has {short(key)}, which is not read here; {MERGE}")
    try:
        return PeftConfig.model_validate({k: v for k, v in said.items() if k not in _PASSED_OVER})
    except ValidationError as error:
        raise Refusal(f"{path}: {_first_mistake(error)}") from error


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = first["loc"][0]
    if first["type"] == "missing":
        return f"{key} is missing; add it"
    remedy = re.sub(r"^(Value error, )?(Input|String|List) should", "it must", first["msg"])
    remedy = remedy.removeprefix("Value error, ")
    if first["type"] == "literal_error":
        remedy += f"; otherwise {MERGE}"
    return f"{key} is {short(first['input'])}; {remedy}"


def matching(
    key: str, pattern: str, names: Sequence[str], before: str = "", after: str = ""
) -> set[str]:
    """Those of `names` that a stranger's pattern matches as a whole, as `re.fullmatch` would.

    `re` may take forever; RE2 (Cox 2007, "Regular Expression Matching Can Be Simple And Fast"),
    which pyarrow brings, takes time linear in pattern and name. What the two read differently is
    refused.

    Args:
        key: the setting that the pattern stands in, for messages.
        pattern: a regular expression.
        names: what it is matched with, ASCII.
        before: a pattern of ours for what may stand before it.
        after: the same for what may come after.

    Raises:
        Refusal: it is no pattern for either of them, or too large.
    """
    import pyarrow as pa  # takes a moment, and most models come without an adapter
    import pyarrow.compute as pc

    try:
        _check_pattern(pattern)
        texts = pa.array(names, pa.string())
        found = pc.match_substring_regex(texts, f"^{before}(?:{pattern}){after}$").to_pylist()
    except (ValueError, re.error, RecursionError, OverflowError, Warning) as error:
        raise Refusal(
            f"{CONFIG}: {key} has {short(pattern)}, which is no regular expression that is read "
            f"here ({short(str(error))}); write the modules' names instead"
        ) from error
    return {name for name, matched in zip(names, found, strict=True) if matched}


def _check_pattern(pattern: str) -> None:
    """Raises where `re` finds a mistake, reads something else than RE2, or work would be large."""
    counts = re.findall(r"\{(\d*),?(\d*)\}", pattern)
    repeats = [max(int(count or 1) for count in pair) or 1 for pair in counts]
    if len(pattern) * math.prod(repeats) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters, counts multiplied out")
    if not pattern.isascii() or "[:" in pattern or "{," in pattern:
        raise ValueError("it is not ASCII, or has [: or {,")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is to mean something else in a Python to come
        re.compile(pattern)


def _by_pattern(
    key: str, patterns: Mapping[str, Any], default: float, modules: Sequence[str]
) -> dict[str, Any]:
    """Each module's value: that of the first pattern that matches the end of its name."""
    values: dict[str, Any] = {}
    for pattern, value in patterns.items():
        left = [name for name in modules if name not in values]
        values |= dict.fromkeys(matching(key, pattern, left, r"(.*\.)?"), value)
    return {name: values.get(name, default) for name in modules}


def _ending(modules: Iterable[str], ends: Iterable[str]) -> set[str]:
    """Those that are among `ends`, or end with one of them after a dot."""
    known = set(ends)
    return {
        name
        for name in modules
        if any(name[at:] in known for at in [0, *(m.end() for m in re.finditer(r"\.", name))])
    }
