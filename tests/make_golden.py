"""Makes tests/golden: small models as Hugging Face Transformers saves them, and their logits.

    python tests/make_golden.py [NAME ...]

Needs the `parity` extra. Under Transformers 4 it adds only that version's config.json, whose
rotary settings are spelled differently, in `transformers4/`. Both versions draw the same weights.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
BATCH, LENGTH = 2, 32
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # logits that differ by whole units, so that errors show
}
# LENGTH goes beyond the original length, and the frequencies fall on both sides of the ramp.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
SHAPES: dict[str, dict[str, Any]] = {
    "mha_untied": {"vocab_size": 61, "num_key_value_heads": 4, "tie_word_embeddings": False},
    "gqa_tied": {"vocab_size": 67, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "mqa_two_layers": {"vocab_size": 31, "num_key_value_heads": 1, "num_hidden_layers": 2},
    "llama3_rope": {"vocab_size": 53, "num_key_value_heads": 2, "rope_scaling": LLAMA3},
    "llama3_rope_high_theta": {
        "vocab_size": 47,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "rope_theta": 500_000.0,
        "rope_scaling": {**LLAMA3, "factor": 32.0},
        "tie_word_embeddings": True,
    },
    "wide_heads": {"vocab_size": 59, "num_key_value_heads": 2, "head_dim": 12},
    "biases": {
        "vocab_size": 71,
        "num_key_value_heads": 2,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "low_theta_large_eps": {
        "vocab_size": 43,
        "num_key_value_heads": 4,
        "rope_theta": 100.0,
        "rms_norm_eps": 1e-2,
    },
    # Large enough for a byte-level tokenizer.
    "bytes": {"vocab_size": 320, "num_key_value_heads": 2, "rope_scaling": LLAMA3},
    "mistral": {
        "model_type": "mistral",
        "vocab_size": 41,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "sliding_window": None,
    },
    "qwen2": {
        "model_type": "qwen2",
        "vocab_size": 37,
        "num_key_value_heads": 1,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "model_type": "qwen3",
        "vocab_size": 73,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "head_dim": 6,
        "rope_theta": 1_000_000.0,
    },
    "linear_rope": {
        "vocab_size": 57,
        "num_key_value_heads": 2,
        "rope_scaling": LINEAR,
    },
}


def random_shape(seed: int, family: str = "llama") -> dict[str, Any]:
    """A random configuration; every setting that the family has varies by itself."""
    rng = np.random.default_rng(seed)
    pairs, groups = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    width = 2 * int(rng.integers(2, 13))
    own_width = bool(rng.integers(2))
    hidden = (12 if own_width else width) * pairs * groups
    shape = {
        **COMMON,
        "model_type": family,
        "vocab_size": int(rng.integers(17, 200)),
        "hidden_size": hidden,
        "initializer_range": 1.7 / hidden**0.5,  # as in COMMON
        "intermediate_size": int(rng.integers(8, 99)),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": pairs * groups,
        "num_key_value_heads": pairs,
        "head_dim": width if own_width else None,
        "rope_theta": float(rng.choice([100.0, 10_000.0, 500_000.0])),
        "rope_scaling": (None, LINEAR, LLAMA3)[rng.integers(3)],
        "rms_norm_eps": float(rng.choice([1e-6, 1e-5, 1e-2])),
        "tie_word_embeddings": bool(rng.integers(2)),
        "attention_bias": bool(rng.integers(2)),
        "mlp_bias": bool(rng.integers(2)),
    }
    window = LENGTH if rng.integers(2) else None  # which no text of LENGTH tokens outgrows
    if family == "mistral":
        shape["sliding_window"] = window
    if window and family in ("qwen2", "qwen3"):
        shape |= {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
    if family in ("mistral", "qwen2"):
        del shape["attention_bias"]
    if family != "llama":
        del shape["mlp_bias"]
    if family == "qwen3":  # which has no default that follows from the hidden size
        shape["head_dim"] = width
    return shape


def reference(shape: dict[str, Any], seed: int) -> Any:
    """Transformers' model of this shape, a Llama by default, with random weights, biases, norms."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    # Without a scaling, name none: an explicit None reads as a broken setting to some versions.
    given = {k: v for k, v in shape.items() if v is not None or k == "sliding_window"}
    config = AutoConfig.for_model(**{"model_type": "llama"} | given)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero and one at birth, which would hide mistakes
            torch.nn.init.normal_(parameter, std=0.5)
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def random_tokens(vocab_size: int, seed: int) -> np.ndarray:
    """Tokens [BATCH, LENGTH]."""
    return np.random.default_rng(seed).integers(vocab_size, size=(BATCH, LENGTH), dtype=np.int32)


def reference_logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    """Transformers' logits [B, T, V]."""
    import torch

    with torch.no_grad():
        logits: np.ndarray = model(torch.from_numpy(tokens).long()).logits.numpy()
    return logits


def main() -> None:
    """Write the golden folders that are named, or all."""
    import transformers
    from safetensors.numpy import save_file

    current = int(transformers.__version__.split(".")[0]) >= 5
    for seed, (name, special) in enumerate(SHAPES.items()):
        if name not in (sys.argv[1:] or SHAPES):
            continue
        shape = {**COMMON, **special}
        model = reference(shape, seed)
        if not current:
            model.config.save_pretrained(GOLDEN / name / "transformers4")
            continue
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        model.save_pretrained(GOLDEN / name)
        tokens = random_tokens(shape["vocab_size"], seed)
        expected = {"tokens": tokens, "logits": reference_logits(model, tokens)}
        (GOLDEN / name / "expected").mkdir()  # apart from the weights
        save_file(expected, GOLDEN / name / "expected" / "logits.safetensors")
        (GOLDEN / name / "generation_config.json").unlink()


if __name__ == "__main__":
    main()
