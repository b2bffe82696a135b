"""Guides for texts: compiled in threads of their own, within limits of time and size."""

from __future__ import annotations

import functools
import importlib
import json
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from speculation.errors import InputError, SessionError, UnsupportedFieldError
from speculation.guide import Guide
from speculation.protocol.guide_spec import GuideKind, GuideSpec
from speculation.text.byte_vocab import ByteVocab
from verifier_service.guide_threads import GuideThreads
from verifier_service.schema_rewrite import without_annotations
from verifier_service.shared_work import SharedWork

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from verifier_service.grammar_guide import GrammarGuide

#: Seconds that a guide may take to be compiled, waiting included. Mostly it takes milliseconds.
COMPILE_SECONDS: Final = 10.0
#: Different guides that are compiled or wait for it.
MOST_WAITING: Final = 128
#: Compiled guides that are kept for who asks for them again: mostly a program has one schema and many texts.
MOST_KEPT: Final = 32
#: JSON as Python's ``json.dumps`` writes it. White space at will would leave hardly anything for a draft to jump over,
#: and lets small models write nothing else.
_JSON_STYLE: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_UNFORCED: Final = '\n%llguidance {"no_forcing": true}\n'
#: Rules of a grammar, told by their colons: the library takes a place on the stack for each, and for GBNF, which it
#: translates in Python, time by their square.
MOST_RULES: Final = 1000
MOST_GBNF_RULES: Final = 300
_LARK: Final = re.compile(r"[ \t]*(%llguidance\b|start[ \t]*:)")
#: Where the library shows the grammar's lines, which are not the client's own.
_QUOTED: Final = re.compile(r"\n\s*\d+ \|")
#: Characters of a library's words that are passed on.
_WORDS: Final = 200
#: How the library tells special tokens from text.
_MARK: Final = b"\xff"
_LENIENT: Final = 'leave them out, or add "x-guidance": {"lenient": true} to the schema, and they are ignored'
_REMEDY: Final = "install it where the verifier runs: pip install dragoman[guided]"


class Guides:
    """Of one target. Nothing is loaded before the first is asked for."""

    def __init__(self, vocab: ByteVocab) -> None:
        self._vocab = vocab
        self._threads: GuideThreads[GrammarGuide] = GuideThreads(waiting=MOST_WAITING, seconds=COMPILE_SECONDS)
        self._compiled: SharedWork[tuple[GuideSpec, str, str], GrammarGuide] = SharedWork(MOST_KEPT)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._spoken = 0

    async def compile(self, spec: GuideSpec, *, lark: str = "") -> Guide:
        """A guide of one's own, at its beginning. ``lark``: the grammar of one that is a guide only with its prompt's
        tools. Raises InputError, which names the field, for what cannot be compiled, or not in time;
        UnsupportedFieldError where no guide can be had at all; LimitExceededError if too many wait."""
        key = (spec, spec.name, lark)  # with its name, which stands in errors
        return (await self._compiled.get(key, functools.partial(self._in_a_thread, spec, lark))).fresh()

    async def _in_a_thread(self, spec: GuideSpec, lark: str) -> GrammarGuide:
        try:
            return await self._threads.run(functools.partial(self._compile, spec, lark))
        except TimeoutError:
            problem = f"takes longer than {COMPILE_SECONDS:.0f} s to compile"
            raise InputError(spec.name, spec.texts, problem, remedy="make it simpler") from None

    def close(self) -> None:
        """End the threads."""
        self._threads.close()

    # ---- in a thread of its own -------------------------------------------------------------------------------

    def _compile(self, spec: GuideSpec, lark: str) -> GrammarGuide:
        from verifier_service.grammar_guide import GrammarGuide, spoken_tokens

        with self._lock:
            if self._tokenizer is None:
                self._tokenizer, self._spoken = _tokenizer(spec, self._vocab), spoken_tokens(self._vocab)
        try:
            grammar = lark or _grammar(spec)
            # Our line last: the lines of an error are those of the grammar, and nothing in it has the last word.
            forcing, matcher = (_matcher(spec, self._tokenizer, grammar + tail) for tail in ("", _UNFORCED))
            guide = GrammarGuide(matcher, forcing, self._vocab, spoken=self._spoken)
            guide.masks([()])  # much is made only when it is needed, which for the first must not be in a step
            guide.forced()
            guide.masks([()])
        except SessionError as error:
            raise _unusable(spec, error.message) from error
        except (ValueError, TypeError, RuntimeError, RecursionError) as error:  # the library's, at odd texts
            raise _unusable(spec, str(error)) from error
        return guide


class _Vocabulary:
    """As LLTokenizer wants it. Special tokens but the end have no bytes, so no guide can ask for one."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: tuple[int, ...] = ()

    def __init__(self, vocab: ByteVocab) -> None:
        self.eos_token_id = vocab.end_ids[0]
        self.tokens = [data or b"" for data in vocab.token_bytes]
        self.tokens[vocab.end_ids[0]] = _MARK + b"<end>"
        self._vocab = vocab

    def __call__(self, text: str) -> list[int]:
        """Never called by matchers that are asked for masks and bytes; here for the interface."""
        token = self._vocab.longest_match(text.encode(), 0)
        return [] if token is None else [token]


def _tokenizer(spec: GuideSpec, vocab: ByteVocab) -> LLTokenizer:
    try:
        library: Any = importlib.import_module("llguidance")
    except ImportError:
        raise UnsupportedFieldError(spec.name, None, "needs llguidance", remedy=_REMEDY) from None
    if not vocab.end_ids:
        raise UnsupportedFieldError(spec.name, None, "is not possible with this model, which has no end token")
    tokenizer: LLTokenizer = library.LLTokenizer(_Vocabulary(vocab), eos_token=list(vocab.end_ids))
    return tokenizer


def _grammar(spec: GuideSpec) -> str:
    """In Lark's notation."""
    from llguidance import LLMatcher

    match spec.kind:
        case GuideKind.JSON_SCHEMA:
            return f"start: {json_rule(spec.schema, spec)}"
        case GuideKind.REGEX:
            wrapped = json.loads(LLMatcher.grammar_from_regex(spec.texts[0]))
            return str(wrapped["grammars"][0]["lark_grammar"])
        case GuideKind.CHOICE:
            # One terminal: as rules, thousands of them would exceed the parser's limits.
            return f"start: CHOICE\nCHOICE: {' | '.join(json.dumps(text, ensure_ascii=False) for text in spec.texts)}"
        case GuideKind.GRAMMAR:
            return _lark(spec)
        case GuideKind.TOOL_CALL | GuideKind.TOOL_CALLS:
            raise _unusable(spec, "it comes without tools")


def _lark(spec: GuideSpec) -> str:
    """A client's grammar. The library's own way to tell the notations apart takes time by the square of line breaks."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    [text] = spec.texts
    is_lark = any(_LARK.match(line) for line in text.splitlines())
    most = MOST_RULES if is_lark else MOST_GBNF_RULES
    if text.count(":") > most:
        raise _unusable(spec, f"it has more than {most} rules, or colons")
    try:
        return text if is_lark else str(gbnf_to_lark(text))
    except Exception as error:
        raise _unusable(spec, str(error)) from error


def json_rule(schema: dict[str, Any] | bool, spec: GuideSpec) -> str:
    """The right side of a rule for what fits the schema. Raises InputError, in the words of ``spec``, if nothing
    does."""
    if not isinstance(schema, dict):  # True: anything; False: nothing
        if not schema:
            raise _unusable(spec, "nothing fits it")
        schema = {}
    own = schema.get("x-guidance")
    styled = {**without_annotations(schema), "x-guidance": {**_JSON_STYLE, **(own if isinstance(own, dict) else {})}}
    return f"%json {json.dumps(styled)}"


def _matcher(spec: GuideSpec, tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=limits)
    if matcher.is_error():
        raise _unusable(spec, matcher.get_error())
    return matcher


def _unusable(spec: GuideSpec, words: str) -> InputError:
    problem = " ".join(_QUOTED.split(words)[0].split())
    shown = problem if len(problem) <= _WORDS else f"{problem[:_WORDS]}..."
    value = spec.texts[0] if len(spec.texts) == 1 else spec.texts
    remedy = _LENIENT if "Unimplemented keys" in words else "see docs/guided.md for what is understood"
    return InputError(spec.name, value, f"cannot be compiled: {shown}", remedy=remedy)
