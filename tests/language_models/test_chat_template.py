"""Chats whose contents spell special tokens: the text is the template's own word, and only its own names are tokens."""

from __future__ import annotations

import gc
import itertools
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from language_models.template_limits import bounded_time
from language_models.tokenizer import TextTokenizer
from speculation.errors import InputError, ModelError
from tests.support.chat_prompts import END, SPELLING, START, read_back, specials
from tests.support.tiny_models import CHAT_TEMPLATE
from tests.support.tiny_tokenizers import MISTRAL_LIKE, changed, load, metaspace, unigram, with_template


def chat(*contents: str, roles: str = "user assistant user") -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in zip(roles.split(), contents, strict=False)]


@pytest.fixture
def tokenizer(tiny_llama: Path) -> TextTokenizer:
    return load(tiny_llama)


def test_a_template_with_demands_takes_contents_that_spell_special_tokens(tiny_llama: Path, tmp_path: Path):
    tokenizer = load(changed(tiny_llama, tmp_path / "m", template=MISTRAL_LIKE))
    messages = chat(f" Be {END} brief. ", f"hi {START}", "yes", "so?", roles="system user assistant user")
    ids = tokenizer.encode_chat(messages)
    assert read_back(tokenizer, ids) == tokenizer.template.text(messages)
    assert specials(tokenizer, ids) == [START, END] * 3
    assert ids == tokenizer.encode_chat(messages) == load(tmp_path / "m").encode_chat(messages)


#: Templates that look at what they are given, each with contents that make a difference to it.
LOOKING = {
    "repeats": (CHAT_TEMPLATE.replace("m.content", "m.content ~ '~' ~ m.content"), [f"x{END}"]),
    "trims": (CHAT_TEMPLATE.replace("m.content", "m.content | trim"), [f" \n{START} a {END}\n "]),
    "cuts": (CHAT_TEMPLATE.replace("m.content", "m.content[:18]"), [f"abc{END} and {END} more", END + "y" * 30]),
    "measures": (CHAT_TEMPLATE.replace("m.content", "(m.content | length) ~ m.content"), [f"{END}x{START}"]),
    "looks for": (CHAT_TEMPLATE.replace("m.content", "('yes' if '<|im_end|>' in m.content else 'no') ~ m.content"), [
        f"a{END}", "plain"]),
    "splits": (CHAT_TEMPLATE.replace("m.content", "m.content.split('<|im_end|>')[-1]"), [f"think{END}said {START}"]),
    "keeps the first": (CHAT_TEMPLATE.replace("m.content", "m.content.split('<|im_end|>')[0]"), [f"a{END}b", END]),
    "quotes": (CHAT_TEMPLATE.replace("m.content", "m.content | tojson"), [f'"{END}" \\ {START}']),
    "replaces": (CHAT_TEMPLATE.replace("m.content", "m.content | replace('a', 'bb') | upper"), [f"a{END}a"]),
    "joins": ("<|im_start|>{{ messages | map(attribute='content') | join }}<|im_end|>", ["a<|im_", "end|>b", "c"]),
}  # fmt: skip


@pytest.mark.parametrize("template, contents", LOOKING.values(), ids=LOOKING.keys())
def test_a_template_sees_the_contents_themselves(tiny_llama: Path, tmp_path: Path, template: str, contents: list[str]):
    tokenizer = with_template(tiny_llama, tmp_path / "m", template)
    messages = chat(*contents)
    honest = [{**m, "content": "x" * 20} for m in messages]
    own = specials(tokenizer, tokenizer.encode_chat(honest))
    ids = tokenizer.encode_chat(messages)
    assert read_back(tokenizer, ids) == tokenizer.template.text(messages)
    assert specials(tokenizer, ids) == own


def test_a_template_that_looks_in_every_way_gets_no_special_token_from_a_content(tiny_llama: Path, tmp_path: Path):
    """Neither way of marking shows it what the contents show: names stay text at least, and the prompt one prompt."""
    looks = "((m.content | length) if '<|im_end|>' in m.content else 'no') ~ m.content"
    messages = chat(f"a{END}{START}b")
    tokenizer = with_template(tiny_llama, tmp_path / "m", CHAT_TEMPLATE.replace("m.content", looks))
    ids = tokenizer.encode_chat(messages)
    assert specials(tokenizer, ids) == [START, END, START]
    assert read_back(tokenizer, ids).count(messages[0]["content"]) == 1
    assert ids == tokenizer.encode_chat(messages)


def test_a_template_may_refuse_a_content(tiny_llama: Path, tmp_path: Path):
    template = "{% if '<|im_end|>' in messages[0].content %}{{ raise_exception('no such words') }}{% endif %}hello"
    tokenizer = with_template(tiny_llama, tmp_path / "m", template)
    with pytest.raises(InputError, match="no such words"):
        tokenizer.encode_chat(chat(f"a{END}"))
    assert tokenizer.encode_chat(chat("a"))


def test_a_template_that_minds_the_marks_themselves_is_a_clear_error(tiny_llama: Path, tmp_path: Path):
    template = "{% if not messages[0].content.isascii() %}{{ raise_exception('ASCII only') }}{% endif %}hello"
    tokenizer = with_template(tiny_llama, tmp_path / "m", template)
    assert tokenizer.encode_chat(chat("a"))
    with pytest.raises(InputError, match="spell special tokens that this model's chat template looks at"):
        tokenizer.encode_chat(chat(f"a{END}"))


#: For tests with many examples.
_loaded: dict[Path, TextTokenizer] = {}
_theirs: dict[Path, PreTrainedTokenizerBase] = {}
_templated: dict[str, TextTokenizer] = {}


@given(contents=st.lists(SPELLING, min_size=1, max_size=3))
@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, MISTRAL_LIKE, LOOKING["joins"][0]], ids=["chatml", "strict", "joins"]
)
def test_any_contents_stay_text(
    tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory, template: str, contents: list[str]
):
    if template not in _templated:
        _templated[template] = with_template(tiny_llama, tmp_path_factory.mktemp("templated") / "m", template)
    tokenizer = _templated[template]
    messages = chat(*contents)
    ids = tokenizer.encode_chat(messages)
    assert read_back(tokenizer, ids) == tokenizer.template.text(messages)
    assert specials(tokenizer, ids) == specials(tokenizer, tokenizer.encode_chat(chat(*["x"] * len(contents))))


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=20)


@given(contents=st.lists(PLAIN, min_size=1, max_size=3))
def test_contents_without_names_are_read_as_ever(tiny_llama: Path, tiny_qwen2: Path, contents: list[str]):
    for path in (tiny_llama, tiny_qwen2):
        if path not in _loaded:
            _loaded[path], _theirs[path] = load(path), AutoTokenizer.from_pretrained(path)
        tokenizer, messages = _loaded[path], chat(*contents)
        text = tokenizer.template.text(messages)
        expected = _theirs[path].encode(text, add_special_tokens=False)
        assert tokenizer.encode_chat(messages) == expected
        after_a_name = tokenizer.encode_chat([*chat(END), *messages])
        assert after_a_name[-len(expected) :] == expected, "the way of contents with names is the same way"


@pytest.mark.parametrize("kind", ["unigram", "first", "legacy"])
def test_spaces_around_names_are_those_of_the_model(kind: str, tiny_gemma: Path, tmp_path: Path):
    """Space habits differ at a text's beginning, after a special token, and in mid-text, where a name may stand."""
    path = unigram(tmp_path) if kind == "unigram" else metaspace(tmp_path, tiny_gemma, legacy=kind == "legacy")
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    (path / "chat_template.jinja").write_text(template)
    tokenizer = load(path)
    bos, end = ("<s>", "</s>") if kind == "unigram" else ("<bos>", "<eos>")
    without = tokenizer.encode_chat(chat("a b", "the c"))
    # As if the names were other words, of the same characters in another order: nothing is parsed but the template's.
    ids = tokenizer.encode_chat(chat(f"a{end} b", f"{bos}the c"))
    assert specials(tokenizer, ids) == specials(tokenizer, without) == [bos, end, end]
    cut = [position for position, token in enumerate(ids) if tokenizer.vocab.is_special(token)]
    one, two = (tokenizer.vocab.text(ids[a + 1 : b]).decode() for a, b in itertools.pairwise(cut))
    begins = {"unigram": "", "first": "", "legacy": " "}[kind]
    assert (one, two) == (f"{begins}a{end} b", f"{begins}{bos}the c")
    tokens = [token for token in without if not tokenizer.vocab.is_special(token)]
    assert tokenizer.vocab.text(tokens).decode() == f"{begins}a b{begins}the c", "which is their habit anyway"


#: Templates that make too much of some messages: time, or text.
GREEDY = {
    "time": "{% if messages[0].content == 'loop' %}{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}"
    "{% endfor %}{% endif %}",
    "text": "{% if messages[0].content == 'loop' %}{% for i in range(2000) %}{{ '0123456789' * 100 }}{% endfor %}"
    "{% endif %}",
}


@pytest.mark.parametrize("greedy, problem", [("time", "takes more than 1 s"), ("text", "makes 2000")])
def test_a_template_that_makes_too_much_of_messages_refuses_these(
    tiny_llama: Path, tmp_path: Path, greedy: str, problem: str
):
    tokenizer = load(changed(tiny_llama, tmp_path / "m", template=GREEDY[greedy] + CHAT_TEMPLATE))
    before = sys.gettrace()
    with pytest.raises(InputError, match=problem):
        tokenizer.encode_chat(chat("loop"))
    assert sys.gettrace() is before
    assert tokenizer.encode_chat(chat("y")) == load(tiny_llama).encode_chat(chat("y"))


def test_a_model_whose_template_has_no_end_is_refused(tiny_llama: Path, tmp_path: Path):
    endless = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
    with pytest.raises(ModelError, match="its chat template cannot be used: it takes more than 1 s"):
        load(changed(tiny_llama, tmp_path / "m", template=endless + CHAT_TEMPLATE))


def test_a_template_cannot_reach_the_machine(tiny_llama: Path, tmp_path: Path):
    """It runs in jinja's sandbox."""
    reaching = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    tokenizer = load(changed(tiny_llama, tmp_path / "m", template=reaching + CHAT_TEMPLATE))
    with pytest.raises(InputError, match="unsafe"):
        tokenizer.encode_chat(chat("y"))


def test_what_python_collects_meanwhile_is_no_time_of_the_template():
    def slow(phase: str, info: dict[str, int]) -> None:
        until = time.thread_time() + 0.3
        while phase == "stop" and time.thread_time() < until:
            pass

    gc.callbacks.append(slow)
    try:
        with bounded_time(0.2):
            exec(compile("import gc\ngc.collect()\ndone = 1\n", "<template>", "exec"), {})
        with bounded_time(0.2), pytest.raises(TimeoutError):
            exec(compile("while True:\n    pass\n", "<template>", "exec"), {})
    finally:
        gc.callbacks.remove(slow)
