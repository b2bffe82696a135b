"""How the processes of `dragoman serve` are started, and what it says about how to reach them."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence

import pytest
from rich.console import Console

from drafter_service.settings import DrafterSettings
from dragoman.child_words import ChildWords
from dragoman.curl_command import curl
from dragoman.devices import runs_on_cpu
from dragoman.gateway_backend import LateBackend, verifier_backend
from dragoman.local_fleet import LocalModels
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from tests.support.gateways import clients_of, gateway_to
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine
from transport.security import Security
from verifier_service.settings import VerifierSettings


def models(device: str, *drafters: tuple[str, str]) -> LocalModels:
    return LocalModels(
        VerifierSettings(
            model="target", device=device, threads=3, kv_memory="1GiB", tensor_parallel=2, trust_remote_code=True
        ),
        [DrafterSettings(model=name, device=place, dtype="float32") for name, place in drafters],
        log_options=("--verbose",),
    )


@pytest.mark.parametrize(
    ("device", "drafters", "turns"),
    [
        ("cpu", [("small", "cpu")], True),
        ("cpu", [("lookup", "cpu"), ("small", "cpu")], True),
        ("cpu", [("lookup", "cpu")], False),
        ("cpu", [], False),
        ("cpu", [("small", "cuda:1")], False),
        ("cuda", [("small", "cpu")], False),
        ("cuda", [("small", "cuda")], False),
    ],
)
def test_turns_are_taken_where_two_models_share_the_processors(
    device: str, drafters: Sequence[tuple[str, str]], turns: bool
):
    arguments = models(device, *drafters).verifier_arguments()
    assert (set(TAKING_TURNS_OPTIONS) <= set(arguments)) is turns
    assert ("--no-adaptive" in arguments) is turns


def test_children_are_told_what_the_command_was_told():
    chosen = models("cpu", ("small", "cpu"))
    verifier, drafter = chosen.verifier_arguments(), chosen.drafter_arguments(chosen.drafters[0], "127.0.0.1:9")
    assert {"--threads=3", "--kv-memory=1GiB", "--trust-remote-code", "--max-sessions=64"} <= set(verifier)
    assert "--tensor-parallel=2" in verifier
    assert {"--verifier=127.0.0.1:9", "--dtype=float32", "--threads=0", "--verbose"} <= set(drafter)
    assert "--prefix-memory=256MiB" in drafter and not any("prefix-memory" in each for each in verifier)
    assert "--trust-remote-code" not in drafter


def test_a_named_device_is_what_it_says():
    assert runs_on_cpu("cpu") and not runs_on_cpu("cuda:1")


def test_what_is_found_for_auto_is_what_torch_finds():
    import torch

    assert runs_on_cpu("auto") is not torch.cuda.is_available()


@pytest.mark.parametrize(
    ("security", "words"),
    [
        (Security(), []),
        (Security(tls_cert="c", tls_key="k"), []),
        (Security(tls_cert="c", tls_key="k", tokens="t"), ["-H", "authorization: Bearer KEY"]),
        (
            Security(tls_cert="c", tls_key="k", tls_ca="the ca"),
            ["--cacert", "the ca", "--cert", "CERTIFICATE", "--key", "KEY"],
        ),
    ],
)
def test_the_command_to_try(security: Security, words: list[str]):
    written = shlex.split(curl("http://x", security).replace("\\\n", ""))
    assert written[:4] == ["curl", "http://x/v1/completions", "-H", "content-type: application/json"]
    assert written[4:-2] == words and written[-2] == "-d"


async def test_before_the_backend_is_there_clients_are_told_to_come_again():
    late = LateBackend()
    async with gateway_to(late) as (_, address), clients_of(address) as (_, http, _), serving(TextEngine()) as (_, at):
        for path in ("/health", "/v1/models"):
            response = await http.get(path)
            assert response.status_code == 503 and "still being loaded" in response.text
        assert (await http.post("/tokenize", json={"prompt": "a"})).status_code == 503
        async with verifier_backend(at) as backend:
            late.arrive(backend)
            assert (await http.get("/health")).status_code == 200
            told = (await http.post("/tokenize", json={"prompt": "a"})).json()
            assert (await http.post("/detokenize", json={"tokens": told["tokens"]})).json() == {"prompt": "a"}


def said(*, terminal: bool, **options: bool) -> str:
    """What is left on the screen after a start, and a line after it."""
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=60, color_system=None)
    with ChildWords(console=screen, **options) as words:
        words.starting("the target m")
        words.heard("target m", "reading [1/2]")
        words.started()
        words.heard("target m", "a warning")
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_what_children_say_goes_where_somebody_reads_it():
    into_a_file = "starting the target m ...\ntarget m: reading [1/2]\ntarget m: a warning\n"
    assert said(terminal=False) == said(terminal=True, log=True) == into_a_file
    assert said(terminal=False, bare=True) == "reading [1/2]\na warning\n"
    erased = "\x1b[2K"
    drawn, left = said(terminal=True).split(erased)
    assert "starting target m: reading [1/2]" in drawn and left == "target m: a warning\n"
