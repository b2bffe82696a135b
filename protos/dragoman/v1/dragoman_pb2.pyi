from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Rule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RULE_UNSPECIFIED: _ClassVar[Rule]
    RULE_RACE: _ClassVar[Rule]
    RULE_EXACT: _ClassVar[Rule]
    RULE_REJECTION: _ClassVar[Rule]
    RULE_STRING_REJECTION: _ClassVar[Rule]
    RULE_AUTO: _ClassVar[Rule]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]

class DraftSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRAFT_SOURCE_UNSPECIFIED: _ClassVar[DraftSource]
    DRAFT_SOURCE_DRAFTER: _ClassVar[DraftSource]
    DRAFT_SOURCE_PREDICTION: _ClassVar[DraftSource]
    DRAFT_SOURCE_LOOKUP: _ClassVar[DraftSource]
    DRAFT_SOURCE_REPLAY: _ClassVar[DraftSource]
    DRAFT_SOURCE_GRAMMAR: _ClassVar[DraftSource]
    DRAFT_SOURCE_RECYCLED: _ClassVar[DraftSource]

class ToolFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOOL_FORMAT_UNSPECIFIED: _ClassVar[ToolFormat]
    TOOL_FORMAT_TEXT: _ClassVar[ToolFormat]
    TOOL_FORMAT_HERMES: _ClassVar[ToolFormat]
    TOOL_FORMAT_LLAMA_JSON: _ClassVar[ToolFormat]
RULE_UNSPECIFIED: Rule
RULE_RACE: Rule
RULE_EXACT: Rule
RULE_REJECTION: Rule
RULE_STRING_REJECTION: Rule
RULE_AUTO: Rule
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
DRAFT_SOURCE_UNSPECIFIED: DraftSource
DRAFT_SOURCE_DRAFTER: DraftSource
DRAFT_SOURCE_PREDICTION: DraftSource
DRAFT_SOURCE_LOOKUP: DraftSource
DRAFT_SOURCE_REPLAY: DraftSource
DRAFT_SOURCE_GRAMMAR: DraftSource
DRAFT_SOURCE_RECYCLED: DraftSource
TOOL_FORMAT_UNSPECIFIED: ToolFormat
TOOL_FORMAT_TEXT: ToolFormat
TOOL_FORMAT_HERMES: ToolFormat
TOOL_FORMAT_LLAMA_JSON: ToolFormat

class ChatMessage(_message.Message):
    __slots__ = ("role", "content", "tool_calls", "tool_call_id")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    tool_call_id: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., tool_call_id: _Optional[str] = ...) -> None: ...

class Tool(_message.Message):
    __slots__ = ("name", "description", "parameters")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    parameters: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., parameters: _Optional[str] = ...) -> None: ...

class ToolCall(_message.Message):
    __slots__ = ("id", "name", "arguments")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    arguments: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., arguments: _Optional[str] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("text", "messages", "tools", "template_kwargs", "special_tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_KWARGS_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    template_kwargs: str
    special_tokens: bool
    def __init__(self, text: _Optional[bytes] = ..., messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ..., tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ..., template_kwargs: _Optional[str] = ..., special_tokens: bool = ...) -> None: ...

class SamplingParams(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "seed")
    class LogitBiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: _containers.ScalarMap[int, float]
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., logit_bias: _Optional[_Mapping[int, float]] = ..., seed: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("protocol_version",)
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    def __init__(self, protocol_version: _Optional[int] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("protocol_version", "version", "model", "vocab_size", "vocab_hash", "context_length", "dtype", "device", "drafters", "sessions", "kv_cache_bytes", "parameter_bytes")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DRAFTERS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_BYTES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    version: str
    model: str
    vocab_size: int
    vocab_hash: str
    context_length: int
    dtype: str
    device: str
    drafters: _containers.RepeatedCompositeFieldContainer[DrafterStatus]
    sessions: int
    kv_cache_bytes: int
    parameter_bytes: int
    def __init__(self, protocol_version: _Optional[int] = ..., version: _Optional[str] = ..., model: _Optional[str] = ..., vocab_size: _Optional[int] = ..., vocab_hash: _Optional[str] = ..., context_length: _Optional[int] = ..., dtype: _Optional[str] = ..., device: _Optional[str] = ..., drafters: _Optional[_Iterable[_Union[DrafterStatus, _Mapping]]] = ..., sessions: _Optional[int] = ..., kv_cache_bytes: _Optional[int] = ..., parameter_bytes: _Optional[int] = ...) -> None: ...

class DrafterStatus(_message.Message):
    __slots__ = ("name", "model", "vocab_size", "vocab_hash", "sessions", "spans", "stale_spans", "rejected_messages", "round_trip", "seconds_per_token", "draft_tokens", "accepted_tokens")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    STALE_SPANS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    vocab_size: int
    vocab_hash: str
    sessions: int
    spans: int
    stale_spans: int
    rejected_messages: int
    round_trip: float
    seconds_per_token: float
    draft_tokens: int
    accepted_tokens: int
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., vocab_size: _Optional[int] = ..., vocab_hash: _Optional[str] = ..., sessions: _Optional[int] = ..., spans: _Optional[int] = ..., stale_spans: _Optional[int] = ..., rejected_messages: _Optional[int] = ..., round_trip: _Optional[float] = ..., seconds_per_token: _Optional[float] = ..., draft_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("protocol_version", "prompt", "sampling", "max_tokens", "stop", "rule", "no_draft", "ignore_end", "received", "prediction", "priority", "guide", "logprobs", "tell_steps", "cache_salt")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    NO_DRAFT_FIELD_NUMBER: _ClassVar[int]
    IGNORE_END_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    GUIDE_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TELL_STEPS_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    prompt: Prompt
    sampling: SamplingParams
    max_tokens: int
    stop: _containers.RepeatedScalarFieldContainer[bytes]
    rule: Rule
    no_draft: bool
    ignore_end: bool
    received: bytes
    prediction: bytes
    priority: int
    guide: Guide
    logprobs: int
    tell_steps: bool
    cache_salt: str
    def __init__(self, protocol_version: _Optional[int] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., sampling: _Optional[_Union[SamplingParams, _Mapping]] = ..., max_tokens: _Optional[int] = ..., stop: _Optional[_Iterable[bytes]] = ..., rule: _Optional[_Union[Rule, str]] = ..., no_draft: bool = ..., ignore_end: bool = ..., received: _Optional[bytes] = ..., prediction: _Optional[bytes] = ..., priority: _Optional[int] = ..., guide: _Optional[_Union[Guide, _Mapping]] = ..., logprobs: _Optional[int] = ..., tell_steps: bool = ..., cache_salt: _Optional[str] = ...) -> None: ...

class Guide(_message.Message):
    __slots__ = ("json_schema", "regex", "choice", "grammar", "tool_call", "tool_calls", "calls_or_json")
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    CALLS_OR_JSON_FIELD_NUMBER: _ClassVar[int]
    json_schema: str
    regex: str
    choice: Choices
    grammar: str
    tool_call: ToolNames
    tool_calls: ToolNames
    calls_or_json: CallsOrJson
    def __init__(self, json_schema: _Optional[str] = ..., regex: _Optional[str] = ..., choice: _Optional[_Union[Choices, _Mapping]] = ..., grammar: _Optional[str] = ..., tool_call: _Optional[_Union[ToolNames, _Mapping]] = ..., tool_calls: _Optional[_Union[ToolNames, _Mapping]] = ..., calls_or_json: _Optional[_Union[CallsOrJson, _Mapping]] = ...) -> None: ...

class CallsOrJson(_message.Message):
    __slots__ = ("names", "several", "json_schema")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    SEVERAL_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    several: bool
    json_schema: str
    def __init__(self, names: _Optional[_Iterable[str]] = ..., several: bool = ..., json_schema: _Optional[str] = ...) -> None: ...

class ToolNames(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Choices(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("started", "chunk", "finished")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    started: GenerateStarted
    chunk: TextChunk
    finished: GenerateFinished
    def __init__(self, started: _Optional[_Union[GenerateStarted, _Mapping]] = ..., chunk: _Optional[_Union[TextChunk, _Mapping]] = ..., finished: _Optional[_Union[GenerateFinished, _Mapping]] = ...) -> None: ...

class GenerateStarted(_message.Message):
    __slots__ = ("session", "prompt_tokens", "drafters", "received_bytes", "model", "vocab_hash", "dtype", "rule", "guided", "logprobs", "tool_format", "template_kwargs", "special_tokens", "cache_salt")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DRAFTERS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    GUIDED_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TOOL_FORMAT_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_KWARGS_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    session: str
    prompt_tokens: int
    drafters: int
    received_bytes: int
    model: str
    vocab_hash: str
    dtype: str
    rule: Rule
    guided: bool
    logprobs: bool
    tool_format: ToolFormat
    template_kwargs: bool
    special_tokens: bool
    cache_salt: bool
    def __init__(self, session: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., drafters: _Optional[int] = ..., received_bytes: _Optional[int] = ..., model: _Optional[str] = ..., vocab_hash: _Optional[str] = ..., dtype: _Optional[str] = ..., rule: _Optional[_Union[Rule, str]] = ..., guided: bool = ..., logprobs: bool = ..., tool_format: _Optional[_Union[ToolFormat, str]] = ..., template_kwargs: bool = ..., special_tokens: bool = ..., cache_salt: bool = ...) -> None: ...

class TextChunk(_message.Message):
    __slots__ = ("runs", "token_ids", "logprobs", "step")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[TextRun]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprobs]
    step: VerifyStep
    def __init__(self, runs: _Optional[_Iterable[_Union[TextRun, _Mapping]]] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprobs, _Mapping]]] = ..., step: _Optional[_Union[VerifyStep, _Mapping]] = ...) -> None: ...

class TokenLogprobs(_message.Message):
    __slots__ = ("chosen", "top")
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    chosen: TokenLogprob
    top: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, chosen: _Optional[_Union[TokenLogprob, _Mapping]] = ..., top: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token", "logprob", "text", "special")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    token: int
    logprob: float
    text: bytes
    special: str
    def __init__(self, token: _Optional[int] = ..., logprob: _Optional[float] = ..., text: _Optional[bytes] = ..., special: _Optional[str] = ...) -> None: ...

class VerifyStep(_message.Message):
    __slots__ = ("draft_tokens", "accepted_tokens", "positions", "rejected", "rejected_source", "plan", "round_trip")
    DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SOURCE_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    draft_tokens: int
    accepted_tokens: int
    positions: int
    rejected: bytes
    rejected_source: DraftSource
    plan: SpeculationPlan
    round_trip: float
    def __init__(self, draft_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., positions: _Optional[int] = ..., rejected: _Optional[bytes] = ..., rejected_source: _Optional[_Union[DraftSource, str]] = ..., plan: _Optional[_Union[SpeculationPlan, _Mapping]] = ..., round_trip: _Optional[float] = ...) -> None: ...

class TextRun(_message.Message):
    __slots__ = ("text", "drafted", "source")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    drafted: bool
    source: DraftSource
    def __init__(self, text: _Optional[bytes] = ..., drafted: bool = ..., source: _Optional[_Union[DraftSource, str]] = ...) -> None: ...

class GenerateFinished(_message.Message):
    __slots__ = ("finish_reason", "prompt_tokens", "completion_tokens", "speculation", "replayed_tokens", "stop_string", "stop_token")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_STRING_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    speculation: SpeculationStats
    replayed_tokens: int
    stop_string: bytes
    stop_token: int
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., speculation: _Optional[_Union[SpeculationStats, _Mapping]] = ..., replayed_tokens: _Optional[int] = ..., stop_string: _Optional[bytes] = ..., stop_token: _Optional[int] = ...) -> None: ...

class SpeculationStats(_message.Message):
    __slots__ = ("steps", "draft_tokens", "accepted_tokens", "spans", "stale_spans", "bytes_up", "bytes_down", "accepted_tokens_per_pos", "verify_seconds", "overhead_p50_seconds", "plans", "rule", "sources", "drafters_connected")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    STALE_SPANS_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_PER_POS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OVERHEAD_P50_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PLANS_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    DRAFTERS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    steps: int
    draft_tokens: int
    accepted_tokens: int
    spans: int
    stale_spans: int
    bytes_up: int
    bytes_down: int
    accepted_tokens_per_pos: _containers.RepeatedScalarFieldContainer[int]
    verify_seconds: float
    overhead_p50_seconds: float
    plans: _containers.RepeatedCompositeFieldContainer[PlanChange]
    rule: Rule
    sources: _containers.RepeatedCompositeFieldContainer[SourceStats]
    drafters_connected: int
    def __init__(self, steps: _Optional[int] = ..., draft_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., spans: _Optional[int] = ..., stale_spans: _Optional[int] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ..., accepted_tokens_per_pos: _Optional[_Iterable[int]] = ..., verify_seconds: _Optional[float] = ..., overhead_p50_seconds: _Optional[float] = ..., plans: _Optional[_Iterable[_Union[PlanChange, _Mapping]]] = ..., rule: _Optional[_Union[Rule, str]] = ..., sources: _Optional[_Iterable[_Union[SourceStats, _Mapping]]] = ..., drafters_connected: _Optional[int] = ...) -> None: ...

class SourceStats(_message.Message):
    __slots__ = ("source", "name", "model", "instance", "draft_tokens", "accepted_tokens")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    source: DraftSource
    name: str
    model: str
    instance: str
    draft_tokens: int
    accepted_tokens: int
    def __init__(self, source: _Optional[_Union[DraftSource, str]] = ..., name: _Optional[str] = ..., model: _Optional[str] = ..., instance: _Optional[str] = ..., draft_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ...) -> None: ...

class PlanChange(_message.Message):
    __slots__ = ("committed_tokens", "seconds", "plan")
    COMMITTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    committed_tokens: int
    seconds: float
    plan: SpeculationPlan
    def __init__(self, committed_tokens: _Optional[int] = ..., seconds: _Optional[float] = ..., plan: _Optional[_Union[SpeculationPlan, _Mapping]] = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ("protocol_version", "prompt")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    prompt: Prompt
    def __init__(self, protocol_version: _Optional[int] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("token_ids", "template_kwargs", "special_tokens")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_KWARGS_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    template_kwargs: bool
    special_tokens: bool
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., template_kwargs: bool = ..., special_tokens: bool = ...) -> None: ...

class DetokenizeRequest(_message.Message):
    __slots__ = ("protocol_version", "token_ids")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, protocol_version: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class DetokenizeResponse(_message.Message):
    __slots__ = ("pieces",)
    PIECES_FIELD_NUMBER: _ClassVar[int]
    pieces: _containers.RepeatedCompositeFieldContainer[TokenPiece]
    def __init__(self, pieces: _Optional[_Iterable[_Union[TokenPiece, _Mapping]]] = ...) -> None: ...

class TokenPiece(_message.Message):
    __slots__ = ("text", "special")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    special: str
    def __init__(self, text: _Optional[bytes] = ..., special: _Optional[str] = ...) -> None: ...

class AssistRequest(_message.Message):
    __slots__ = ("hello", "span", "resync", "decline", "pong", "vocabulary", "several")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    RESYNC_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    SEVERAL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    span: DraftSpan
    resync: Resync
    decline: Decline
    pong: Pong
    vocabulary: VocabularyRequest
    several: AssistRequests
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., span: _Optional[_Union[DraftSpan, _Mapping]] = ..., resync: _Optional[_Union[Resync, _Mapping]] = ..., decline: _Optional[_Union[Decline, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., vocabulary: _Optional[_Union[VocabularyRequest, _Mapping]] = ..., several: _Optional[_Union[AssistRequests, _Mapping]] = ...) -> None: ...

class AssistRequests(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[AssistRequest]
    def __init__(self, messages: _Optional[_Iterable[_Union[AssistRequest, _Mapping]]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "name", "model", "vocab_size", "vocab_hash", "max_sessions", "seconds_per_token", "version", "instance", "takes_several")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    TAKES_SEVERAL_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    name: str
    model: str
    vocab_size: int
    vocab_hash: str
    max_sessions: int
    seconds_per_token: float
    version: str
    instance: str
    takes_several: bool
    def __init__(self, protocol_version: _Optional[int] = ..., name: _Optional[str] = ..., model: _Optional[str] = ..., vocab_size: _Optional[int] = ..., vocab_hash: _Optional[str] = ..., max_sessions: _Optional[int] = ..., seconds_per_token: _Optional[float] = ..., version: _Optional[str] = ..., instance: _Optional[str] = ..., takes_several: bool = ...) -> None: ...

class DraftSpan(_message.Message):
    __slots__ = ("session", "base_offset", "base_digest", "text", "ends", "tokens", "alternative", "rests", "confidence", "drawn", "zero_width")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BASE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVE_FIELD_NUMBER: _ClassVar[int]
    RESTS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    DRAWN_FIELD_NUMBER: _ClassVar[int]
    ZERO_WIDTH_FIELD_NUMBER: _ClassVar[int]
    session: str
    base_offset: int
    base_digest: int
    text: bytes
    ends: bool
    tokens: int
    alternative: int
    rests: bool
    confidence: float
    drawn: _containers.RepeatedCompositeFieldContainer[DrawnToken]
    zero_width: int
    def __init__(self, session: _Optional[str] = ..., base_offset: _Optional[int] = ..., base_digest: _Optional[int] = ..., text: _Optional[bytes] = ..., ends: bool = ..., tokens: _Optional[int] = ..., alternative: _Optional[int] = ..., rests: bool = ..., confidence: _Optional[float] = ..., drawn: _Optional[_Iterable[_Union[DrawnToken, _Mapping]]] = ..., zero_width: _Optional[int] = ...) -> None: ...

class DrawnToken(_message.Message):
    __slots__ = ("token", "id_steps", "weights")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ID_STEPS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    token: int
    id_steps: _containers.RepeatedScalarFieldContainer[int]
    weights: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, token: _Optional[int] = ..., id_steps: _Optional[_Iterable[int]] = ..., weights: _Optional[_Iterable[int]] = ...) -> None: ...

class VocabularyRequest(_message.Message):
    __slots__ = ("vocab_hash",)
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    vocab_hash: str
    def __init__(self, vocab_hash: _Optional[str] = ...) -> None: ...

class Resync(_message.Message):
    __slots__ = ("session", "offset")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    session: str
    offset: int
    def __init__(self, session: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Decline(_message.Message):
    __slots__ = ("session", "reason")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session: str
    reason: str
    def __init__(self, session: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("number", "seconds_per_token")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    number: int
    seconds_per_token: float
    def __init__(self, number: _Optional[int] = ..., seconds_per_token: _Optional[float] = ...) -> None: ...

class AssistResponse(_message.Message):
    __slots__ = ("welcome", "offer", "verdict", "closed", "drain", "ping", "vocabulary", "several")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    SEVERAL_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    offer: SessionOffer
    verdict: Verdict
    closed: SessionClosed
    drain: Drain
    ping: Ping
    vocabulary: VocabularyChunk
    several: AssistResponses
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., offer: _Optional[_Union[SessionOffer, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., closed: _Optional[_Union[SessionClosed, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., vocabulary: _Optional[_Union[VocabularyChunk, _Mapping]] = ..., several: _Optional[_Union[AssistResponses, _Mapping]] = ...) -> None: ...

class AssistResponses(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[AssistResponse]
    def __init__(self, messages: _Optional[_Iterable[_Union[AssistResponse, _Mapping]]] = ...) -> None: ...

class VocabularyChunk(_message.Message):
    __slots__ = ("vocab_hash", "index", "chunks", "data")
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    vocab_hash: str
    index: int
    chunks: int
    data: bytes
    def __init__(self, vocab_hash: _Optional[str] = ..., index: _Optional[int] = ..., chunks: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "model", "vocab_size", "vocab_hash", "limits", "takes_several")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TAKES_SEVERAL_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    model: str
    vocab_size: int
    vocab_hash: str
    limits: Limits
    takes_several: bool
    def __init__(self, protocol_version: _Optional[int] = ..., model: _Optional[str] = ..., vocab_size: _Optional[int] = ..., vocab_hash: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., takes_several: bool = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("span_bytes", "pool_bytes", "malformed_messages")
    SPAN_BYTES_FIELD_NUMBER: _ClassVar[int]
    POOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MALFORMED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    span_bytes: int
    pool_bytes: int
    malformed_messages: int
    def __init__(self, span_bytes: _Optional[int] = ..., pool_bytes: _Optional[int] = ..., malformed_messages: _Optional[int] = ...) -> None: ...

class SpeculationPlan(_message.Message):
    __slots__ = ("width", "lookahead", "stop_threshold", "span_tokens", "patience", "alternatives", "alternative_threshold", "verify_threshold", "top_k")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    LOOKAHEAD_FIELD_NUMBER: _ClassVar[int]
    STOP_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SPAN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    VERIFY_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    width: int
    lookahead: int
    stop_threshold: float
    span_tokens: int
    patience: float
    alternatives: int
    alternative_threshold: float
    verify_threshold: float
    top_k: int
    def __init__(self, width: _Optional[int] = ..., lookahead: _Optional[int] = ..., stop_threshold: _Optional[float] = ..., span_tokens: _Optional[int] = ..., patience: _Optional[float] = ..., alternatives: _Optional[int] = ..., alternative_threshold: _Optional[float] = ..., verify_threshold: _Optional[float] = ..., top_k: _Optional[int] = ...) -> None: ...

class SessionOffer(_message.Message):
    __slots__ = ("session", "prompt", "sampling", "rule", "committed", "zero_width", "plan", "number", "vocab_hash", "traceparent")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ZERO_WIDTH_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    session: str
    prompt: Prompt
    sampling: SamplingParams
    rule: Rule
    committed: bytes
    zero_width: int
    plan: SpeculationPlan
    number: int
    vocab_hash: str
    traceparent: str
    def __init__(self, session: _Optional[str] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., sampling: _Optional[_Union[SamplingParams, _Mapping]] = ..., rule: _Optional[_Union[Rule, str]] = ..., committed: _Optional[bytes] = ..., zero_width: _Optional[int] = ..., plan: _Optional[_Union[SpeculationPlan, _Mapping]] = ..., number: _Optional[int] = ..., vocab_hash: _Optional[str] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("session", "base_offset", "text", "digest", "zero_width", "draft_tokens", "accepted_tokens", "plan")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BASE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ZERO_WIDTH_FIELD_NUMBER: _ClassVar[int]
    DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    session: str
    base_offset: int
    text: bytes
    digest: int
    zero_width: int
    draft_tokens: int
    accepted_tokens: int
    plan: SpeculationPlan
    def __init__(self, session: _Optional[str] = ..., base_offset: _Optional[int] = ..., text: _Optional[bytes] = ..., digest: _Optional[int] = ..., zero_width: _Optional[int] = ..., draft_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., plan: _Optional[_Union[SpeculationPlan, _Mapping]] = ...) -> None: ...

class SessionClosed(_message.Message):
    __slots__ = ("session", "reason")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session: str
    reason: str
    def __init__(self, session: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reconnect_after_ms",)
    RECONNECT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    reconnect_after_ms: int
    def __init__(self, reconnect_after_ms: _Optional[int] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("registration", "verifier", "drafter", "leave")
    REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_FIELD_NUMBER: _ClassVar[int]
    DRAFTER_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    registration: Registration
    verifier: VerifierReport
    drafter: DrafterReport
    leave: Leave
    def __init__(self, registration: _Optional[_Union[Registration, _Mapping]] = ..., verifier: _Optional[_Union[VerifierReport, _Mapping]] = ..., drafter: _Optional[_Union[DrafterReport, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ...) -> None: ...

class Registration(_message.Message):
    __slots__ = ("protocol_version", "instance", "name", "version", "model", "vocab_size", "vocab_hash", "max_sessions", "verifier", "drafter", "dtype", "notes")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_FIELD_NUMBER: _ClassVar[int]
    DRAFTER_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    instance: str
    name: str
    version: str
    model: str
    vocab_size: int
    vocab_hash: str
    max_sessions: int
    verifier: VerifierKind
    drafter: DrafterKind
    dtype: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol_version: _Optional[int] = ..., instance: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., model: _Optional[str] = ..., vocab_size: _Optional[int] = ..., vocab_hash: _Optional[str] = ..., max_sessions: _Optional[int] = ..., verifier: _Optional[_Union[VerifierKind, _Mapping]] = ..., drafter: _Optional[_Union[DrafterKind, _Mapping]] = ..., dtype: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class VerifierKind(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class DrafterKind(_message.Message):
    __slots__ = ("seconds_per_token",)
    SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    seconds_per_token: float
    def __init__(self, seconds_per_token: _Optional[float] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VerifierReport(_message.Message):
    __slots__ = ("links", "sessions", "committed_tokens", "kv_cache_bytes", "draining")
    LINKS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[LinkReport]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionReport]
    committed_tokens: int
    kv_cache_bytes: int
    draining: bool
    def __init__(self, links: _Optional[_Iterable[_Union[LinkReport, _Mapping]]] = ..., sessions: _Optional[_Iterable[_Union[SessionReport, _Mapping]]] = ..., committed_tokens: _Optional[int] = ..., kv_cache_bytes: _Optional[int] = ..., draining: bool = ...) -> None: ...

class LinkReport(_message.Message):
    __slots__ = ("link", "instance", "name", "model", "max_sessions", "sessions", "round_trip", "seconds_per_token", "spans", "stale_spans", "rejected_messages", "draft_tokens", "accepted_tokens")
    LINK_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    STALE_SPANS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    link: int
    instance: str
    name: str
    model: str
    max_sessions: int
    sessions: int
    round_trip: float
    seconds_per_token: float
    spans: int
    stale_spans: int
    rejected_messages: int
    draft_tokens: int
    accepted_tokens: int
    def __init__(self, link: _Optional[int] = ..., instance: _Optional[str] = ..., name: _Optional[str] = ..., model: _Optional[str] = ..., max_sessions: _Optional[int] = ..., sessions: _Optional[int] = ..., round_trip: _Optional[float] = ..., seconds_per_token: _Optional[float] = ..., spans: _Optional[int] = ..., stale_spans: _Optional[int] = ..., rejected_messages: _Optional[int] = ..., draft_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ...) -> None: ...

class SessionReport(_message.Message):
    __slots__ = ("session", "links", "declined_links", "no_draft", "committed_tokens", "steps", "draft_tokens", "accepted_tokens", "plan", "costs", "rule", "sources")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    DECLINED_LINKS_FIELD_NUMBER: _ClassVar[int]
    NO_DRAFT_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    session: str
    links: _containers.RepeatedScalarFieldContainer[int]
    declined_links: _containers.RepeatedScalarFieldContainer[int]
    no_draft: bool
    committed_tokens: int
    steps: int
    draft_tokens: int
    accepted_tokens: int
    plan: SpeculationPlan
    costs: StepCosts
    rule: Rule
    sources: _containers.RepeatedCompositeFieldContainer[SourceStats]
    def __init__(self, session: _Optional[str] = ..., links: _Optional[_Iterable[int]] = ..., declined_links: _Optional[_Iterable[int]] = ..., no_draft: bool = ..., committed_tokens: _Optional[int] = ..., steps: _Optional[int] = ..., draft_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., plan: _Optional[_Union[SpeculationPlan, _Mapping]] = ..., costs: _Optional[_Union[StepCosts, _Mapping]] = ..., rule: _Optional[_Union[Rule, str]] = ..., sources: _Optional[_Iterable[_Union[SourceStats, _Mapping]]] = ...) -> None: ...

class StepCosts(_message.Message):
    __slots__ = ("step", "step_per_token", "acceptance", "drafted_steps", "alone_share")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    ALONE_SHARE_FIELD_NUMBER: _ClassVar[int]
    step: float
    step_per_token: float
    acceptance: _containers.RepeatedScalarFieldContainer[float]
    drafted_steps: int
    alone_share: float
    def __init__(self, step: _Optional[float] = ..., step_per_token: _Optional[float] = ..., acceptance: _Optional[_Iterable[float]] = ..., drafted_steps: _Optional[int] = ..., alone_share: _Optional[float] = ...) -> None: ...

class DrafterReport(_message.Message):
    __slots__ = ("sessions", "seconds_per_token", "attached_to")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_TO_FIELD_NUMBER: _ClassVar[int]
    sessions: int
    seconds_per_token: float
    attached_to: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sessions: _Optional[int] = ..., seconds_per_token: _Optional[float] = ..., attached_to: _Optional[_Iterable[str]] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("joined", "placement", "plan", "attach", "drain")
    JOINED_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    joined: Joined
    placement: PlacementOrder
    plan: PlanOrder
    attach: AttachOrder
    drain: DrainOrder
    def __init__(self, joined: _Optional[_Union[Joined, _Mapping]] = ..., placement: _Optional[_Union[PlacementOrder, _Mapping]] = ..., plan: _Optional[_Union[PlanOrder, _Mapping]] = ..., attach: _Optional[_Union[AttachOrder, _Mapping]] = ..., drain: _Optional[_Union[DrainOrder, _Mapping]] = ...) -> None: ...

class Joined(_message.Message):
    __slots__ = ("protocol_version", "report_seconds", "version", "plan_limits")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLAN_LIMITS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    report_seconds: float
    version: str
    plan_limits: PlanLimits
    def __init__(self, protocol_version: _Optional[int] = ..., report_seconds: _Optional[float] = ..., version: _Optional[str] = ..., plan_limits: _Optional[_Union[PlanLimits, _Mapping]] = ...) -> None: ...

class PlanLimits(_message.Message):
    __slots__ = ("width", "lookahead", "alternatives")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    LOOKAHEAD_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    width: int
    lookahead: int
    alternatives: int
    def __init__(self, width: _Optional[int] = ..., lookahead: _Optional[int] = ..., alternatives: _Optional[int] = ...) -> None: ...

class PlacementOrder(_message.Message):
    __slots__ = ("session", "links")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    session: str
    links: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session: _Optional[str] = ..., links: _Optional[_Iterable[int]] = ...) -> None: ...

class PlanOrder(_message.Message):
    __slots__ = ("session", "plan")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    session: str
    plan: SpeculationPlan
    def __init__(self, session: _Optional[str] = ..., plan: _Optional[_Union[SpeculationPlan, _Mapping]] = ...) -> None: ...

class AttachOrder(_message.Message):
    __slots__ = ("verifiers",)
    VERIFIERS_FIELD_NUMBER: _ClassVar[int]
    verifiers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, verifiers: _Optional[_Iterable[str]] = ...) -> None: ...

class DrainOrder(_message.Message):
    __slots__ = ("draining", "hand_over")
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    HAND_OVER_FIELD_NUMBER: _ClassVar[int]
    draining: bool
    hand_over: bool
    def __init__(self, draining: bool = ..., hand_over: bool = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("protocol_version",)
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    def __init__(self, protocol_version: _Optional[int] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("protocol_version", "version", "uptime_seconds", "members", "sessions")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    version: str
    uptime_seconds: float
    members: _containers.RepeatedCompositeFieldContainer[MemberStatus]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionStatus]
    def __init__(self, protocol_version: _Optional[int] = ..., version: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., members: _Optional[_Iterable[_Union[MemberStatus, _Mapping]]] = ..., sessions: _Optional[_Iterable[_Union[SessionStatus, _Mapping]]] = ...) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("instance", "name", "model", "sessions", "max_sessions", "uptime_seconds", "silent_seconds", "rejected_reports", "verifier", "drafter", "notes")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_REPORTS_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_FIELD_NUMBER: _ClassVar[int]
    DRAFTER_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    instance: str
    name: str
    model: str
    sessions: int
    max_sessions: int
    uptime_seconds: float
    silent_seconds: float
    rejected_reports: int
    verifier: VerifierStatus
    drafter: FleetDrafterStatus
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, instance: _Optional[str] = ..., name: _Optional[str] = ..., model: _Optional[str] = ..., sessions: _Optional[int] = ..., max_sessions: _Optional[int] = ..., uptime_seconds: _Optional[float] = ..., silent_seconds: _Optional[float] = ..., rejected_reports: _Optional[int] = ..., verifier: _Optional[_Union[VerifierStatus, _Mapping]] = ..., drafter: _Optional[_Union[FleetDrafterStatus, _Mapping]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class VerifierStatus(_message.Message):
    __slots__ = ("address", "tokens_per_second", "committed_tokens", "kv_cache_bytes", "draining", "dtype", "vocab_hash")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    address: str
    tokens_per_second: float
    committed_tokens: int
    kv_cache_bytes: int
    draining: bool
    dtype: str
    vocab_hash: str
    def __init__(self, address: _Optional[str] = ..., tokens_per_second: _Optional[float] = ..., committed_tokens: _Optional[int] = ..., kv_cache_bytes: _Optional[int] = ..., draining: bool = ..., dtype: _Optional[str] = ..., vocab_hash: _Optional[str] = ...) -> None: ...

class FleetDrafterStatus(_message.Message):
    __slots__ = ("seconds_per_token", "attached_to", "round_trip", "acceptance_rate", "spans", "stale_spans", "draft_tokens", "accepted_tokens")
    SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_TO_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_RATE_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    STALE_SPANS_FIELD_NUMBER: _ClassVar[int]
    DRAFT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    seconds_per_token: float
    attached_to: _containers.RepeatedScalarFieldContainer[str]
    round_trip: float
    acceptance_rate: float
    spans: int
    stale_spans: int
    draft_tokens: int
    accepted_tokens: int
    def __init__(self, seconds_per_token: _Optional[float] = ..., attached_to: _Optional[_Iterable[str]] = ..., round_trip: _Optional[float] = ..., acceptance_rate: _Optional[float] = ..., spans: _Optional[int] = ..., stale_spans: _Optional[int] = ..., draft_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ...) -> None: ...

class SessionStatus(_message.Message):
    __slots__ = ("session", "verifier", "drafters", "committed_tokens", "tokens_per_second", "tokens_per_step", "acceptance_rate", "acceptance_history", "round_trip", "plan", "expected_speed_up", "sources")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_FIELD_NUMBER: _ClassVar[int]
    DRAFTERS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_STEP_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_RATE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SPEED_UP_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    session: str
    verifier: str
    drafters: _containers.RepeatedScalarFieldContainer[str]
    committed_tokens: int
    tokens_per_second: float
    tokens_per_step: float
    acceptance_rate: float
    acceptance_history: _containers.RepeatedScalarFieldContainer[float]
    round_trip: float
    plan: SpeculationPlan
    expected_speed_up: float
    sources: _containers.RepeatedCompositeFieldContainer[SourceStats]
    def __init__(self, session: _Optional[str] = ..., verifier: _Optional[str] = ..., drafters: _Optional[_Iterable[str]] = ..., committed_tokens: _Optional[int] = ..., tokens_per_second: _Optional[float] = ..., tokens_per_step: _Optional[float] = ..., acceptance_rate: _Optional[float] = ..., acceptance_history: _Optional[_Iterable[float]] = ..., round_trip: _Optional[float] = ..., plan: _Optional[_Union[SpeculationPlan, _Mapping]] = ..., expected_speed_up: _Optional[float] = ..., sources: _Optional[_Iterable[_Union[SourceStats, _Mapping]]] = ...) -> None: ...

class RouteRequest(_message.Message):
    __slots__ = ("protocol_version", "model", "prefix_digest", "exclude", "vocab_hash", "dtype")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREFIX_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    model: str
    prefix_digest: int
    exclude: _containers.RepeatedScalarFieldContainer[str]
    vocab_hash: str
    dtype: str
    def __init__(self, protocol_version: _Optional[int] = ..., model: _Optional[str] = ..., prefix_digest: _Optional[int] = ..., exclude: _Optional[_Iterable[str]] = ..., vocab_hash: _Optional[str] = ..., dtype: _Optional[str] = ...) -> None: ...

class RouteResponse(_message.Message):
    __slots__ = ("protocol_version", "candidates")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    candidates: _containers.RepeatedCompositeFieldContainer[RouteCandidate]
    def __init__(self, protocol_version: _Optional[int] = ..., candidates: _Optional[_Iterable[_Union[RouteCandidate, _Mapping]]] = ...) -> None: ...

class RouteCandidate(_message.Message):
    __slots__ = ("instance", "name", "address", "model", "vocab_hash", "dtype")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOCAB_HASH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    name: str
    address: str
    model: str
    vocab_hash: str
    dtype: str
    def __init__(self, instance: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., model: _Optional[str] = ..., vocab_hash: _Optional[str] = ..., dtype: _Optional[str] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("protocol_version", "verifier", "hand_over", "undo")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_FIELD_NUMBER: _ClassVar[int]
    HAND_OVER_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    verifier: str
    hand_over: bool
    undo: bool
    def __init__(self, protocol_version: _Optional[int] = ..., verifier: _Optional[str] = ..., hand_over: bool = ..., undo: bool = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("protocol_version", "instance", "name", "sessions", "draining")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    instance: str
    name: str
    sessions: int
    draining: bool
    def __init__(self, protocol_version: _Optional[int] = ..., instance: _Optional[str] = ..., name: _Optional[str] = ..., sessions: _Optional[int] = ..., draining: bool = ...) -> None: ...
