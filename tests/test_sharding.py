"""Where the weights of known models lie: a table to read, and to notice changes by.

python tests/test_sharding.py > tests/golden/sharding.txt
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
from jax.sharding import AbstractMesh, PartitionSpec

from jaxorg.engine.mesh import AXES
from jaxorg.engine.params import abstract_model
from jaxorg.engine.sharding import model_specs
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature

GOLDEN = Path(__file__).parent / "golden" / "sharding.txt"
MESH = AbstractMesh((2, 4, 2), AXES)
LORA = LoraConfig(rank=64)

LLAMA_8B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=131_072,
    tie_word_embeddings=False,
)
# Shapes as in the models' own config.json; rotary settings shape no array.
MODELS = {
    "Llama-2-7B": replace(
        LLAMA_8B, vocab_size=32_000, intermediate_size=11_008, num_key_value_heads=32
    ),
    "Llama-3-8B, Llama-3.1-8B": LLAMA_8B,
    "Llama-3.2-1B": replace(
        LLAMA_8B,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        head_dim=64,
        tie_word_embeddings=True,
    ),
    "Llama-3.3-70B": replace(
        LLAMA_8B,
        hidden_size=8192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
    ),
    "Mistral-7B-v0.1": replace(LLAMA_8B, vocab_size=32_000),
    "Qwen2-7B": replace(
        LLAMA_8B,
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        qkv_bias=True,
    ),
    "Qwen3-8B": replace(
        LLAMA_8B,
        vocab_size=151_936,
        intermediate_size=12_288,
        num_hidden_layers=36,
        qk_norm=True,
    ),
}


def table() -> Iterator[str]:
    """A line a parameter of each model: its shape, and the mesh axis of each of its dimensions."""
    for name, config in MODELS.items():
        yield f"{name}, {', '.join(f'{a}={n}' for a, n in MESH.shape.items())}"
        signature = ModelSignature(config, LORA)
        _, shapes = abstract_model(signature)
        for part, specs in zip(shapes[::-1], model_specs(signature, MESH)[::-1], strict=True):
            found = jax.tree_util.tree_leaves_with_path(part)
            laid = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, PartitionSpec))
            for (path, leaf), spec in zip(found, laid, strict=True):
                named = jax.tree_util.keystr(path, simple=True, separator=".")
                axes = " ".join(axis or "-" for axis in spec)
                yield f"  {named:38} {'x'.join(map(str, leaf.shape)):16} {axes}"
        yield ""


def test_known_models_lie_where_the_table_says() -> None:
    assert list(table()) == [*GOLDEN.read_text(encoding="utf-8").splitlines(), ""]


if __name__ == "__main__":
    print("\n".join(table()).rstrip())
