"""What a verifier tells of its tokens, over real gRPC on loopback: to a client of its own, and to one of a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import grpc
import pytest
from prometheus_client import CollectorRegistry

from dragoman import FleetClient
from dragoman.client import Client
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import ConnectionFailedError, InputError, NoVerifierError, ProtocolError, WrongServiceError
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.tokenizing import TokenPiece, text_of
from tests.support.coordinators import coordinating, running
from tests.support.service_drivers import PATIENCE, answering, eventually, serving, stub_to
from tests.support.text_engine import TextEngine, TextTokenizer
from tests.support.text_models import TARGET_VOCAB
from transport import prompt_codec
from transport.limits import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, WireLimits
from verifier_service.fleet_member import VerifierMember
from verifier_service.instruments import PrometheusInstruments
from verifier_service.tokenizing import Tokenizing

TEXT = "the cat sat, 猫が座った 🐶"
SPECIAL = next(iter(TARGET_VOCAB.special))


async def test_ids_of_a_text_are_those_of_the_model_and_stand_for_that_text():
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        ids = await client.tokenize(TEXT)
        assert list(ids) == TextTokenizer().encode(TEXT)
        pieces = await client.detokenize(ids)
        assert len(pieces) == len(ids) and text_of(pieces) == TEXT.encode()
        assert await client.detokenize(()) == ()


async def test_messages_are_tokenized_as_a_text_would_be_prompted():
    prompt = Prompt(messages=(ChatMessage("user", "a story"),))
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        completion = await client.complete(prompt, max_tokens=1)
        assert len(await client.tokenize(prompt)) == completion.prompt_tokens


async def test_special_tokens_have_a_name_and_padding_has_nothing():
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        pieces = await client.detokenize((SPECIAL, TARGET_VOCAB.padding_ids[0], 65))
        assert pieces == (TokenPiece(special="<pause>"), TokenPiece(), TokenPiece(b"A"))
        assert [piece.shown for piece in pieces] == ["<pause>", "", "A"]


@pytest.mark.parametrize("token", [TARGET_VOCAB.size, (1 << 32) - 1, 1 << 32, -1])
async def test_what_is_no_token_of_the_model_is_refused(token: int):
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        with pytest.raises(InputError, match=f"token_ids={token}"):
            await client.detokenize((65, token))


async def test_what_is_too_long_for_a_message_is_refused_by_its_field():
    limits = WireLimits(prompt_bytes=100, token_ids=50)
    async with serving(TextEngine(), limits=limits) as (_, address), Client(address) as client:
        for told, asking in (
            ("prompt='10. bytes': is too long; the limit is 100 bytes", client.tokenize("x" * 101)),
            ("token_ids='51 ids': are too many; the limit is 50", client.detokenize((65,) * 51)),
            ("prompt='.* bytes': is too long; the limit is", client.tokenize("x" * MAX_MESSAGE_BYTES)),
            ("token_ids='131073 ids': are too many; the limit is 131072", client.detokenize((65,) * 131_073)),
        ):
            with pytest.raises(InputError, match=told):
                await asking
        assert len(await client.detokenize((65,) * 50)) == 50


class GatedTokenizer(TextTokenizer):
    """Answers when it is let, and counts who asks at a time."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = self.asking = self.most = 0

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        self.asked, self.asking = self.asked + 1, self.asking + 1
        self.most = max(self.most, self.asking)
        self.gate.wait(PATIENCE)
        self.asking -= 1
        return super().prompt_ids(prompt)


async def _code(call: grpc.aio.UnaryUnaryCall) -> grpc.StatusCode:
    try:
        return await call.code()
    finally:
        call.cancel()


async def test_those_who_left_hold_no_place_and_no_thread_and_too_many_are_refused():
    engine, registry = TextEngine(), CollectorRegistry()
    tokenizer = engine.tokenizer = GatedTokenizer()
    async with (
        serving(engine, instruments=PrometheusInstruments(registry, "m")) as (_, address),
        stub_to(address) as stub,
    ):

        def ask() -> grpc.aio.UnaryUnaryCall:
            prompt = prompt_codec.prompt_to_wire(Prompt(text=TEXT))
            return stub.Tokenize(pb.TokenizeRequest(protocol_version=PROTOCOL_VERSION, prompt=prompt))

        left = ask()
        await eventually(lambda: tokenizer.asked == 1)
        left.cancel()
        calls = [asyncio.ensure_future(_code(ask())) for _ in range(Tokenizing.WAITING + 1)]
        refused, waiting = await asyncio.wait(calls, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert [call.result() for call in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        for call in list(waiting)[::2]:
            call.cancel()
        tokenizer.gate.set()
        answered = await asyncio.gather(*list(waiting)[1::2])
        assert set(answered) == {grpc.StatusCode.OK} and tokenizer.most == 1, "one at a time, whoever left"
        labels = {"model_name": "m", "engine": "0", "replica": "", "quota": "waiting_questions_about_tokens"}
        assert registry.get_sample_value("dragoman_refused_total", labels) == 1


async def test_a_fleet_answers_for_any_of_its_models_and_tells_them():
    async with contextlib.AsyncExitStack() as stack:
        server, at = await stack.enter_async_context(coordinating())
        for salt, name in ((1, "first"), (2, "second")):
            engine = TextEngine(salt=salt)
            engine.name = name
            verifier, address = await stack.enter_async_context(serving(engine))
            member = VerifierMember(verifier, at, instance=name, name=name, advertised=str(address))
            await stack.enter_async_context(running(member))
        await eventually(lambda: sum(m.reports > 0 for m in server.fleet.registry.verifiers) == 2)
        client = await stack.enter_async_context(FleetClient(at))
        assert {(model.name, model.context_length) for model in await client.models()} == {
            ("first", 2048),
            ("second", 2048),
        }
        with pytest.raises(InputError, match="model"):
            await client.tokenize(TEXT)
        async with client.of_model("second") as second:
            assert text_of(await second.detokenize(await second.tokenize(TEXT))) == TEXT.encode()
            texts = [await each.complete(TEXT, max_tokens=30) for each in (second, client.of_model("first"))]
        assert texts[0].token_ids != texts[1].token_ids, "of two models"
        with pytest.raises(NoVerifierError):
            await client.of_model("third").tokenize(TEXT)
        await server.stop(grace=0)
        assert {model.name for model in await client.models()} == {"first", "second"}


async def test_a_fleet_that_nobody_answers_for_has_no_models():
    async with FleetClient("127.0.0.1:1") as client:
        with pytest.raises(ConnectionFailedError):
            await client.models()


class OldServicer(pb_grpc.VerifierServiceServicer):
    """Of a release without these calls."""

    async def Describe(self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext) -> pb.DescribeResponse:
        return pb.DescribeResponse(protocol_version=PROTOCOL_VERSION)


async def test_an_old_verifier_is_told_apart_from_something_else():
    async with answering(OldServicer()) as address, Client(address) as client:
        with pytest.raises(ProtocolError, match="is too old for this call"):
            await client.tokenize(TEXT)
    async with coordinating() as (_, address), Client(address) as client:
        with pytest.raises(WrongServiceError, match="is a coordinator"):
            await client.tokenize(TEXT)
