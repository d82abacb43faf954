"""PEFT adapter folders that others trained: adapter_config.json and adapter_model.safetensors.

LoRA (Hu et al. 2021), rsLoRA (Kalajdzievski 2023) and DoRA (Liu et al. 2024) are read, and what
PEFT saves beside them: whole modules, biases and rows of the embedding. The name and shape of every
tensor is checked before any is read. PEFT passes over tensors that it does not expect, and makes up
those that it misses; here both are refused. `peft_merged.py` puts an adapter into its base.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxorg.errors import Refusal, short
from jaxorg.llama import files
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.peft_config import (
    CONFIG,
    EMBEDDING,
    HEAD,
    MERGE,
    Lora,
    PeftConfig,
    read_peft_config,
)
from jaxorg.llama.tensors import Tensor, Tensors, read_header
from jaxorg.storage.weight_reader import Bounds, Names

WEIGHTS = "adapter_model.safetensors"
TOKENS = f"{EMBEDDING}.trainable_tokens"

_PREFIX = "base_model.model."
_LAYER = "model.layers.{}"
_OF_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
_INNER = re.compile(r"\.(lora_|base_layer\.|token_adapter\.)")
_ADAPTER = re.compile(r"\.lora_(?:embedding_)?A\.([^.]+)(?:\.weight)?$")

LONGEST_NAME = 120  # of a tensor, in a message
Shape = tuple[int, ...]


class Module(NamedTuple):
    """A module of a base: its name in Transformers, and the shapes of its parameters there."""

    name: str  # `{}` is the layer's number
    weight: Shape
    bias: bool = False


class _Wanted(NamedTuple):
    """A tensor that may be in an adapter's file."""

    name: str  # here
    spelled: tuple[str, ...]  # there, without PEFT's prefix and the adapter's name
    shape: Shape
    required: bool = True


class AdapterTensors(Tensors):
    """The tensors of an adapter, by names that are the same for all modules: `.lora_A`, `.lora_B`,
    `.lora_B.bias`, `.magnitude`, `.weight` and `.bias` behind the module's, and `TOKENS`."""

    def holds(self, name: str) -> bool:
        """Whether it is in the file."""
        return name in self._known

    def shape(self, name: str) -> Shape:
        """Of a tensor that is in the file."""
        return self._known[name].shape

    def part(self, name: str, bounds: Bounds) -> np.ndarray:
        """The part of a tensor within `bounds`, fp32."""
        part = np.empty([stop - start for start, stop in bounds], np.float32)
        self.read(name, bounds, part)
        return part


@dataclass(frozen=True)
class Adapter:
    """An adapter, every tensor of which is known to fit its base."""

    modules: Mapping[Names, Module]  # of the base, by our names for them
    loras: Mapping[str, Lora]  # of the modules that are adapted, by their names in Transformers
    config: PeftConfig
    tensors: AdapterTensors

    def changes(self, module: str) -> bool:
        """Whether a module is another with the adapter."""
        stored = any(self.tensors.holds(f"{module}.{part}") for part in ("weight", "bias"))
        tokens = module == EMBEDDING and self.tensors.holds(TOKENS)
        return module in self.loras or stored or tokens


def read_adapter(folder: Path, config: LlamaConfig) -> Adapter:
    """An adapter folder, checked as a whole; of its tensors only the headers are read, unless it
    holds both an embedding and a head for a base that ties them.

    Args:
        folder: where PEFT saved the adapter.
        config: the shape of the base.

    Raises:
        Refusal: a setting that is not read here, a broken file, or a tensor that is missing, left
            over, or of another shape than the base and the settings ask for.
    """
    said = read_peft_config(folder)
    modules = base_modules(config)
    each = [module for place in modules.values() for module in _in_layers(place, config)]
    if config.tie_word_embeddings:
        each.append(Module(HEAD, (config.vocab_size, config.hidden_size)))
    loras = said.adapted([module.name for module in each if len(module.weight) == 2])
    _check_loras(folder / CONFIG, said, loras, each, config)
    wanted = [tensor for module in each for tensor in _wanted(module, loras, said, config)]
    tensors = _read_tensors(folder, wanted, {module.name for module in each}, config)
    if config.tie_word_embeddings:
        _tie(tensors, said, config)
    return Adapter(modules, loras, said, tensors)


def base_modules(config: LlamaConfig) -> dict[Names, Module]:
    """The modules of a base that have parameters, by our names for them."""
    hidden, wide, width = config.hidden_size, config.intermediate_size, config.head_dim
    queries, pairs = config.num_attention_heads * width, config.num_key_value_heads * width
    shapes = {"q": (queries, hidden), "k": (pairs, hidden), "v": (pairs, hidden)}
    block: dict[Names, Module] = {
        ("attention_norm",): Module(f"{_LAYER}.input_layernorm", (hidden,)),
        ("mlp_norm",): Module(f"{_LAYER}.post_attention_layernorm", (hidden,)),
    }
    for part, shape in {**shapes, "o": (hidden, queries)}.items():
        bias = config.attention_bias or (config.qkv_bias and part != "o")
        block["attention", part] = Module(f"{_LAYER}.self_attn.{part}_proj", shape, bias)
    for part in "qk" if config.qk_norm else "":
        block["attention", f"{part}_norm"] = Module(f"{_LAYER}.self_attn.{part}_norm", (width,))
    for part, shape in (("gate", (wide, hidden)), ("up", (wide, hidden)), ("down", (hidden, wide))):
        block["mlp", part] = Module(f"{_LAYER}.mlp.{part}_proj", shape, config.mlp_bias)
    table = (config.vocab_size, hidden)
    return {
        ("embedding",): Module(EMBEDDING, table),
        **({} if config.tie_word_embeddings else {("head",): Module(HEAD, table)}),
        ("norm",): Module("model.norm", (hidden,)),
        **{("blocks", *names): module for names, module in block.items()},
    }


def _in_layers(module: Module, config: LlamaConfig) -> Iterator[Module]:
    """The module of every layer, or the one beside them."""
    if "{}" not in module.name:
        yield module
        return
    for layer in range(config.num_hidden_layers):
        yield module._replace(name=module.name.format(layer))


def _wanted(
    module: Module, loras: Mapping[str, Lora], said: PeftConfig, config: LlamaConfig
) -> Iterator[_Wanted]:
    """What of one module must be in an adapter's file, or may be.

    Args:
        module: of the base.
        loras: the modules that are adapted.
        said: the adapter's settings.
        config: the base's.
    """
    name, lora = module.name, loras.get(module.name)
    if name == EMBEDDING and said.tokens:
        spelled = f"{name}.token_adapter.trainable_tokens_delta"
        yield _Wanted(TOKENS, (spelled,), (len(said.tokens), config.hidden_size))
    if lora:
        looked_up = name == EMBEDDING  # for which PEFT has parameters, not modules
        ins, outs = module.weight if looked_up else module.weight[::-1]
        for side, shape in (("A", (lora.rank, ins)), ("B", (outs, lora.rank))):
            spelled = f"lora_embedding_{side}" if looked_up else f"lora_{side}.weight"
            yield _Wanted(f"{name}.lora_{side}", (f"{name}.{spelled}",), shape)
        if said.use_dora:
            spelled = f"{name}.lora_magnitude_vector"
            yield _Wanted(f"{name}.magnitude", (spelled, f"{spelled}.weight"), (outs,))
        if said.lora_bias:
            yield _Wanted(f"{name}.lora_B.bias", (f"{name}.lora_B.bias",), (outs,))
    saved, base = said.saved(name), f"{name}.base_layer" if lora else name
    either = config.tie_word_embeddings and name in (EMBEDDING, HEAD)  # one will do for both
    yield _Wanted(f"{name}.weight", (f"{base}.weight",), module.weight, saved and not either)
    if module.bias:
        trained = said.bias == "all" or (said.bias == "lora_only" and lora is not None)
        spelled = f"{base}.bias"
        yield _Wanted(f"{name}.bias", (spelled,), module.weight[:1], saved or trained)


def _check_loras(
    path: Path,
    said: PeftConfig,
    loras: Mapping[str, Lora],
    modules: list[Module],
    config: LlamaConfig,
) -> None:
    """Refuse settings that ask for what PEFT cannot merge, or merges into another thing than it
    ran.

    Args:
        path: of adapter_config.json.
        said: what it says.
        loras: the modules that are adapted.
        modules: all of the base.
        config: the base's shape.
    """
    tables = sorted({EMBEDDING, HEAD} & loras.keys())
    if not loras:
        raise Refusal(
            f"{path}: target_modules is {short(said.target_modules)}, which the base has none of; "
            f"give the base that it was trained on"
        )
    if twice := [name for name in loras if said.saved(name)]:
        raise Refusal(f"{path}: modules_to_save takes in {twice[0]}, which is adapted; {MERGE}")
    if config.tie_word_embeddings and tables:
        raise Refusal(
            f"{path}: target_modules takes in {tables[0]}, but the base ties its embedding and "
            f"head, and PEFT merges into both what ran in one; give a base that does not"
        )
    if said.use_dora and EMBEDDING in loras:
        raise Refusal(f"{path}: use_dora is true for {EMBEDDING}; {MERGE}")
    biased = {module.name for module in modules if module.bias}
    if said.lora_bias and loras.keys() - biased:
        raise Refusal(
            f"{path}: lora_bias is true for {min(loras.keys() - biased)}, which has no bias in the "
            f"base; PEFT cannot merge it either, so train the adapter without"
        )
    _check_tokens(path, said, config.vocab_size, EMBEDDING in loras)


def _check_tokens(path: Path, said: PeftConfig, known: int, adapted: bool) -> None:
    given = said.trainable_token_indices
    if isinstance(given, dict) and (other := given.keys() - {"embed_tokens", EMBEDDING}):
        raise Refusal(f"{path}: trainable_token_indices names {short(min(other))}; {MERGE}")
    if said.tokens and (adapted or said.saved(EMBEDDING)):
        raise Refusal(f"{path}: trainable_token_indices stands beside all of {EMBEDDING}; {MERGE}")
    if len(set(said.tokens)) < len(said.tokens) or max(said.tokens, default=0) >= known:
        raise Refusal(
            f"{path}: trainable_token_indices is {short(given)}; the tokens must differ and be "
            f"less than the base's vocab_size, {known}"
        )


def _read_tensors(
    folder: Path, wanted: list[_Wanted], modules: set[str], config: LlamaConfig
) -> AdapterTensors:
    """The file's tensors, once they are all that are required, and no others than may be."""
    path = files.find(folder, WEIGHTS)
    if path is None and files.find(folder, "adapter_model.bin"):
        raise Refusal(
            f"{folder}: holds adapter_model.bin, and nothing pickled is loaded; save the adapter "
            f"with safe_serialization"
        )
    if path is None:
        raise Refusal(f"{folder / WEIGHTS}: is not there; copy the folder again")
    spelled = {spelling: each for each in wanted for spelling in each.spelled}
    known: dict[str, Tensor] = {}
    for tensor, name in _named(path):
        each = spelled.get(name)
        if each is None:
            raise Refusal(f"{path}: tensor {_shown(tensor.name)} {_strange(name, modules, config)}")
        if tensor.shape != each.shape:
            raise Refusal(
                f"{path}: tensor {_shown(tensor.name)} has shape {short(tensor.shape)}, but "
                f"{CONFIG} and the base ask for {each.shape}; give the base that it was trained on"
            )
        if known.setdefault(each.name, tensor) != tensor:
            raise Refusal(f"{path}: tensor {_shown(tensor.name)} is there twice; keep one")
    if missing := [each for each in wanted if each.required and each.name not in known]:
        raise Refusal(
            f"{path}: tensor '{_PREFIX}{missing[0].spelled[0]}' is missing, which {CONFIG} asks "
            f"for; save the adapter again"
        )
    tensors = AdapterTensors(path, known)
    for each in wanted:
        if tensors.holds(each.name):
            tensors.check(each.name, each.shape)  # its dtype
    return tensors


def _named(path: Path) -> Iterator[tuple[Tensor, str]]:
    """The file's tensors, and their names without PEFT's prefix and the adapter's name."""
    header = read_header(path)
    ends = (_ADAPTER.search(name) for name in header)
    adapters = sorted({end[1] for end in ends if end} - {"weight"})
    if len(adapters) > 1:
        first, second = (short(name) for name in adapters[:2])
        raise Refusal(f"{path}: holds the adapters {first} and {second}; save one")
    for name, tensor in header.items():
        if not name.startswith(_PREFIX):
            raise Refusal(
                f"{path}: tensor {_shown(name)} does not begin with {_PREFIX}; save the adapter "
                f"with PEFT's save_pretrained"
            )
        parts = name.removeprefix(_PREFIX).split(".")
        for at in (-1, -2):
            if adapters and parts[at:][:1] == adapters:
                del parts[at]
                break
        yield tensor, ".".join(parts)


def _shown(name: str) -> str:
    """A tensor's name as a message shows it."""
    return repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...")


def _strange(name: str, modules: set[str], config: LlamaConfig) -> str:
    """What is wrong with a tensor that was not expected, and what helps."""
    module = _INNER.split(name, maxsplit=1)[0]
    layer = _OF_LAYER.match(name)
    if layer and int(layer[1]) >= config.num_hidden_layers:
        return (
            f"is of layer {layer[1]}, but the base has {config.num_hidden_layers}; give the base "
            f"that it was trained on"
        )
    if module in modules or name.rpartition(".")[0] in modules:
        return f"is not what {CONFIG} asks for; save the adapter again with its own settings"
    return "belongs to no module of the base; give the base that it was trained on"


def _tie(tensors: AdapterTensors, said: PeftConfig, config: LlamaConfig) -> None:
    """Make one of the embedding and the head that the file brings for a base that ties them.

    Raises:
        Refusal: with the adapter they would not be the same. PEFT trains a copy of its own of
            either in `modules_to_save`, unless `ensure_weight_tying` is true.
    """
    tables = {module for module in (EMBEDDING, HEAD) if tensors.holds(f"{module}.weight")}
    saved = {module for module in (EMBEDDING, HEAD) if said.saved(module)}
    if saved and not tables:
        name = f"{_PREFIX}{min(saved)}.weight"
        raise Refusal(f"{tensors.place}: tensor '{name}' is missing; save the adapter again")
    if saved and not said.ensure_weight_tying:
        raise Refusal(
            f"{tensors.place}: brings {min(saved)} apart from the other, but the base ties "
            f"embedding and head (tie_word_embeddings); {MERGE}, which must not tie them"
        )
    tensors.tie((config.vocab_size, config.hidden_size))
