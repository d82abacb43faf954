"""What makes a valid file hostile: wrong values, changed trees, changed bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

NASTY_NUMBERS = [0, -1, 2**31, 2**32 - 1, 2**63, 10**9, 10**18, 10**400, 1e308, 5e-324, -0.5]
NASTY_TEXTS = ["", " ", "\0", "\ud800", "a\nb", "\x1b[2J", "\u202e", "x" * 70_000, "../../x", "/"]
NASTY: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(NASTY_NUMBERS),
    st.sampled_from(NASTY_TEXTS),
    st.text(st.characters(codec=None), max_size=20),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        ),
        max_leaves=8,
    ),
    st.integers(1, 400).map(lambda depth: _nested(depth)),
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def like(old: Any) -> st.SearchStrategy[Any]:
    """Values of the same kind, which may well do."""
    if isinstance(old, bool | None):
        return st.sampled_from([True, False, None])
    if isinstance(old, int):
        return st.one_of(st.integers(0, 64), st.integers(old - 2, old + 2), st.just(old * 10))
    if isinstance(old, float):
        return st.floats(0, 2, exclude_min=True)
    if isinstance(old, str):
        return st.sampled_from([old + "x", old.upper(), old[:-1], f" {old}", *WORDS])
    return st.sampled_from([old * 2, old[:1]]) if isinstance(old, list) else st.just({})


WORDS = [
    "hhh",
    "plain",
    "muon",
    "cosine",
    "bfloat16",
    "nowhere",
    "base",
    "end",
    "toy",
    "F16",
    "<|end|>",
]


def paths(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places in a tree of mappings and lists, few of each long list or mapping."""
    keys: list[Any] = []
    if isinstance(tree, dict):
        keys = list(tree)[:40]
    elif isinstance(tree, list):
        keys = list(range(min(3, len(tree))))
    return [p for k in keys for p in [(*above, k), *paths(tree[k], (*above, k))]]


@st.composite
def changed(draw: Callable[..., Any], tree: Any, values: st.SearchStrategy[Any] = NASTY) -> Any:
    """The tree with one to three places replaced, removed, renamed, doubled or wrapped."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        places = paths(tree)
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        parent = tree
        for key in above:
            parent = parent[key]
        match draw(
            st.sampled_from(("like", "like", "like", "set", "set", "remove", "add", "wrap"))
        ):
            case "like":
                parent[last] = draw(like(parent[last]))
            case "set":
                parent[last] = draw(values)
            case "remove":
                del parent[last]
            case "wrap":
                parent[last] = [parent[last]] * draw(st.sampled_from((1, 2, 1000)))
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=8))] = draw(values)
            case _:
                parent[last] = (
                    parent[draw(st.sampled_from(list(parent)))]
                    if isinstance(parent, dict)
                    else parent[0]
                )
    return tree


TOKENS = [
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"9" * 20,
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"*a",
    b"&a",
]
TOKENS += [b'"\\ud800"', b"[" * 500, b"{", b"}", b'"', b"\n", b"\r", b"!!", b": ", b","]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, inserted, removed, doubled or cut off, mostly near either end."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        size = len(data) or 1
        near = rng.randrange(min(size, 3000))
        at = rng.choice((near, size - 1 - near, rng.randrange(size)))
        match rng.randrange(6):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x30, 0x22))
            case 2:
                data[at:at] = rng.choice(TOKENS)
            case 3:
                del data[at : at + rng.choice((1, 2, 8, 64))]
            case 4:
                data[at:at] = data[at : at + rng.choice((1, 8, 64))]
            case _:
                if rng.random() < 0.2:
                    del data[at:]
                data[at : at + 4] = rng.randbytes(4)
    readable = b"\n" in content and rng.random() < 0.8  # else most cases end as no UTF-8
    return bytes(byte & 0x7F for byte in data) if readable else bytes(data)
