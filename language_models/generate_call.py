"""One call of transformers' ``generate`` with a callable in the place of its loop: what it asks for, and its text.

Logits processors and stopping criteria are the library's own objects, the user's among them. Processors are called as
the library's loop calls them: once for each token, in the order of the text, with all ids before it; whatever they
remember is right. ``generate`` has put temperature and cuts among them, so all that is left to do is the draw.

A step may go on behind a token at which a criterion ends the text. So what a processor raises is held until the text
has come there, and raised in the caller's thread, whatever it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import EosTokenCriteria, GenerateDecoderOnlyOutput

from speculation.errors import InputError
from speculation.sampling.params import SamplingParams
from speculation.sampling.warpers import check_top

#: Settings of another kind of decoding, which are to be left out.
_OTHER_DECODING = (
    "prompt_lookup_num_tokens",
    "assistant_early_exit",
    "use_mtp",
    "penalty_alpha",
    "dola_layers",
    "constraints",
    "force_words_ids",
    "token_healing",
)
#: What ``generate`` itself hands on for a prompt of plain ids.
_USUAL = frozenset({"attention_mask", "position_ids", "past_key_values", "logits_to_keep", "use_cache"})


@dataclass(frozen=True, slots=True)
class Unhanded:
    """Arguments of ``generate`` that it hands to no callable."""

    streamer: Any = None
    assistant_model: Any = None

    @classmethod
    def of(cls, frame: FrameType | None) -> Unhanded:
        """``frame``: of who called the callable. transformers (5.17 to 5.23) keeps both to itself: a streamer would get
        the prompt and then nothing, not even the end, and whoever reads from it would wait for ever."""
        if frame is None or frame.f_code.co_name != "generate":
            return cls()
        held = inspect.getargvalues(frame).locals
        return cls(held.get("streamer"), held.get("assistant_model"))

    def or_streamer(self, streamer: Any) -> Unhanded:
        """The same, with one that was given otherwise, if any was."""
        return self if streamer is None else Unhanded(streamer, self.assistant_model)


class GenerateCall:
    """Of one text. ``processors`` [ids [1, n], scores [1, V]] and ``criteria`` as ``generate`` made them,
    ``model_kwargs``: the rest of what it hands over.

    Raises InputError for what cannot be drafted for, naming the argument.
    """

    def __init__(
        self,
        input_ids: Tensor,
        processors: Callable[[Tensor, Tensor], Tensor],
        criteria: Any,
        config: GenerationConfig,
        *,
        unhanded: Unhanded,
        model_kwargs: Mapping[str, Any],
    ) -> None:
        _check_settings(config, unhanded)
        _check_inputs(input_ids, model_kwargs)
        self.prompt_ids: tuple[int, ...] = tuple(input_ids[0].tolist())
        self.greedy = not config.do_sample
        self.written = 0
        self._config = config
        self._prompt = self._ids = input_ids
        self._processors, self._criteria = processors, criteria
        self._streamer = unhanded.streamer
        #: What a processor raised, and after how many tokens of text.
        self._raised: tuple[int, BaseException] | None = None
        keeps = bool(config.return_dict_in_generate)
        self._scores: list[Tensor] | None = [] if keeps and config.output_scores else None
        self._logits: list[Tensor] | None = [] if keeps and config.output_logits else None

    @property
    def max_tokens(self) -> int:
        """That the criteria allow; 0: they name no length."""
        longest = self._criteria.max_length
        return 0 if longest is None else max(1, longest - len(self.prompt_ids))

    def ends_with(self, end_ids: Iterable[int]) -> bool:
        """Whether each of these tokens ends the text."""
        # Of the library's own alone: others may end the text at such a token only sometimes.
        ends = {int(token) for one in self._criteria if type(one) is EosTokenCriteria for token in one.eos_token_id}
        return ends.issuperset(end_ids)

    def settings(self, seed: int | None) -> SamplingParams:
        """What drafters are told, and the seed of the draws: by default a number from torch's own generator, which
        ``torch.manual_seed`` decides."""
        if self.greedy:
            return SamplingParams(repetition_penalty=self._config.repetition_penalty or 1.0)
        if seed is None:
            seed = int(torch.randint(2**63 - 1, ()))
        top_p, min_p = self._config.top_p, self._config.min_p
        return SamplingParams(
            temperature=1.0 if self._config.temperature is None else self._config.temperature,
            top_k=self._config.top_k or 0,
            top_p=top_p if top_p is not None and 0 < top_p <= 1 else 1.0,
            min_p=min_p or 0.0,
            repetition_penalty=self._config.repetition_penalty or 1.0,
            seed=seed,
        )

    def process(self, generated: Sequence[int], logits: Tensor) -> Tensor:
        """The scores [V] to draw from after ``generated``. In whatever thread. Raises nothing that a processor does:
        the text goes on anyhow, and ``take`` raises it."""
        if self._raised is None:
            try:
                return self._processed(generated, logits)
            except BaseException as error:
                self._raised = len(generated), error
        return logits

    def _processed(self, generated: Sequence[int], logits: Tensor) -> Tensor:
        # Ordinary tensors: they are the processors' to keep and to change.
        with torch.inference_mode(False), torch.no_grad():
            device = self._prompt.device
            ids = torch.cat([self._prompt, torch.tensor([list(generated)], dtype=torch.int64, device=device)], dim=-1)
            raw = logits.to(device=device, dtype=torch.float32, copy=True)[None]
            if self._logits is not None:
                self._logits.append(raw.clone())
            scores = self._processors(ids, raw)
            if self._scores is not None:
                self._scores.append(scores)
            check_top(scores[0], int(scores[0].argmax()))
            return scores[0]

    def check(self) -> None:
        """Raises what a processor raised for the token that comes next."""
        if self._raised is not None and self._raised[0] == self.written:
            raise self._raised[1]

    def take(self, token_ids: Iterable[int]) -> bool:
        """The text goes on with these; whether it has come to its end. What lies behind that is dropped.

        Raises what a processor raised for one of them, and what the criteria and the streamer raise.
        """
        for token in token_ids:
            self.check()
            new = torch.tensor([token], dtype=self._ids.dtype, device=self._ids.device)
            self._ids = torch.cat([self._ids, new[None]], dim=-1)
            self.written += 1
            scores = None if self._scores is None else tuple(self._scores[: self.written])
            ended = bool(torch.as_tensor(self._criteria(self._ids, scores)).all())
            if self._streamer is not None:
                self._streamer.put(new.cpu())
            if ended:
                return True
        return False

    def result(self) -> Tensor | GenerateDecoderOnlyOutput:
        """What ``generate`` returns: prompt and text [1, n], or more if that was asked for."""
        if self._streamer is not None:
            self._streamer.end()
        if not self._config.return_dict_in_generate:
            return self._ids
        return GenerateDecoderOnlyOutput(
            sequences=self._ids,
            scores=None if self._scores is None else tuple(self._scores[: self.written]),
            logits=None if self._logits is None else tuple(self._logits[: self.written]),
        )


def _check_settings(config: GenerationConfig, unhanded: Unhanded) -> None:
    for name in ("num_beams", "num_return_sequences"):
        if (getattr(config, name) or 1) > 1:
            problem = "cannot be drafted for: one text at a time is written"
            raise InputError(name, getattr(config, name), problem, remedy="leave it at 1 and call generate again")
    if unhanded.assistant_model is not None:
        name = type(unhanded.assistant_model).__name__
        raise InputError("assistant_model", name, "comes with a remote drafter", remedy="give one of the two")
    for name in _OTHER_DECODING:
        if value := getattr(config, name, None):
            raise InputError(name, value, "is another way of decoding", remedy="leave it out")
    if config.cache_implementation not in (None, "dynamic"):
        problem = "cannot be drafted for: the KV cache here is one that rolls back"
        raise InputError("cache_implementation", config.cache_implementation, problem, remedy="leave it out")
    for name in ("output_attentions", "output_hidden_states"):
        if config.return_dict_in_generate and getattr(config, name):
            problem = "is not kept where drafts are verified"
            raise InputError(name, getattr(config, name), problem, remedy="leave it out")


def _check_inputs(input_ids: Tensor, model_kwargs: Mapping[str, Any]) -> None:
    if model_kwargs.get("inputs_embeds") is not None:
        raise InputError("inputs_embeds", "a tensor", "is no text that drafters could read", remedy="give input_ids")
    rows, tokens = input_ids.shape
    if rows != 1:
        problem = "one text at a time is drafted for"
        raise InputError("input_ids", f"{rows} rows", problem, remedy="call generate for each prompt")
    if not tokens:
        raise InputError("input_ids", "no tokens", "give nothing to continue", remedy="give a prompt")
    mask = model_kwargs.get("attention_mask")
    if mask is not None and not bool(mask.all()):  # transformers 5.17 hands on one of ones as well
        problem = "hides tokens of the prompt, which drafters would read"
        raise InputError("attention_mask", "one with zeros", problem, remedy="leave padding out of the prompt")
    positions = model_kwargs.get("position_ids")
    if positions is not None and positions.flatten().tolist() != list(range(tokens)):
        problem = "are not those of a text from its first token on"
        raise InputError("position_ids", "some of your own", problem, remedy="leave them out")
    cache = model_kwargs.get("past_key_values")
    if getattr(cache, "_is_user_defined", False) or (cache is not None and cache.get_seq_length()):
        problem = "cannot be drafted for: the KV cache here is one that rolls back"
        raise InputError("past_key_values", type(cache).__name__, problem, remedy="leave it out")
    for name, value in model_kwargs.items():
        if name not in _USUAL and value is not None:
            raise InputError(name, type(value).__name__, "is no text that drafters could read", remedy="leave it out")
