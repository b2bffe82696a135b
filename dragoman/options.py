"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class RuleName(StrEnum):
    RACE = "race"
    EXACT = "exact"
    REJECTION = "rejection"
    STRING_REJECTION = "string-rejection"
    AUTO = "auto"


class EngineName(StrEnum):
    AUTO = "auto"
    PAGED = "paged"
    TRANSFORMERS = "transformers"


class Compare(StrEnum):
    """With what each request of a benchmark is compared."""

    NO_DRAFT = "no-draft"


class LogFormat(StrEnum):
    """``json``: an object a line."""

    TEXT = "text"
    JSON = "json"


LOCAL_VERIFIER = "127.0.0.1:50061"
MODEL_HELP = "Embedded name, folder, .gguf file or hub id; @sha256:DIGEST behind it pins its files"
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16, or int8 (drafters on a CPU)")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: all cores", min=0, max=1024)]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run the Python code that the model brings")]
Verifier = Annotated[str | None, typer.Option(help=f"Address of the verifier  [default: {LOCAL_VERIFIER}]")]
Coordinator = Annotated[str | None, typer.Option(help="Join the fleet of the coordinator at this address")]
MaxTokens = Annotated[int, typer.Option(help="Tokens to write at most; 0: as far as the context reaches")]
Priority = Annotated[
    int, typer.Option(help="Where the target's KV memory is short, lower ones get it first; -1000..1000")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        help="End the text before this; may be repeated. Its tokens were written: --json has them in token_ids "
        "and usage; stop_reason names it"
    ),
]
PredictionFile = Annotated[
    Path | None, typer.Option(help="File with what the answer may be, or be made of; - is standard input")
]
JsonSchema = Annotated[
    Path | None, typer.Option(help="File with a JSON schema that the text must fit; - is standard input")
]
Regex = Annotated[str | None, typer.Option(help="Regular expression that the whole text must fit")]
Choice = Annotated[list[str] | None, typer.Option(help="The text is this, or another of them; may be repeated")]
Logprobs = Annotated[
    int | None,
    typer.Option(
        help="Tell how likely each token was, and so many of the likeliest at its place: a table after the text, or "
        "logprobs in --json",
        min=0,
        max=20,
        metavar="K",
    ),
]
Grammar = Annotated[
    Path | None, typer.Option(help="File with a grammar of the text, Lark or GBNF; - is standard input")
]
Temperature = Annotated[float, typer.Option(help="0 is greedy")]
TopP = Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass; 1 is off")]
TopK = Annotated[int, typer.Option(help="Keep this many likeliest tokens; 0 is off")]
MinP = Annotated[float, typer.Option(help="Drop tokens below this share of the likeliest; 0 is off")]
Seed = Annotated[int, typer.Option(help="Same seed, same text, with any drafter or none (rules race, exact)")]
RuleOption = Annotated[RuleName, typer.Option("--rule", help="How drafts are verified")]
LogAs = Annotated[LogFormat, typer.Option("--log-format", help="json: an object a line, with session and identity")]
AuditLog = Annotated[
    Path | None,
    typer.Option(
        help="File for who came and what was refused: JSON lines without prompts, in files of 10 MB, ten at most"
    ),
]
HealthListen = Annotated[
    str | None,
    typer.Option(
        help="Answer health checks, and nothing else, in plaintext at this address as well, for probes without TLS"
    ),
]
NoDraft = Annotated[bool, typer.Option("--no-draft", help="Target alone")]
SpecialTokens = Annotated[
    bool, typer.Option("--special-tokens", help="Names of special tokens in the prompt are these tokens")
]
TemplateKwargs = Annotated[
    str, typer.Option(metavar="JSON", help="Told to the chat template: '{\"enable_thinking\": false}', say")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output")]
ReadyJson = Annotated[bool, typer.Option("--ready-json", hidden=True, help="Say ready in JSON, for a parent process")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Log what goes well too: who joins and leaves, and each session's beginning and end, by its id. "
        "Warnings are logged without it",
    ),
]
