"""Whatever a peer sends, nothing breaks but his own stream: every handler behind the parser.

``DRAGOMAN_FUZZ``: messages for each handler. A message that once broke one is kept in ``corpus/``, and comes first.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from coordinator.config import CoordinatorConfig
from coordinator.fleet import Fleet
from coordinator.registry import Member
from coordinator.status import status_of_fleet
from drafter_service.verifier_link import VerifierLink
from dragoman.fleet import status_as_dict
from dragoman.fleet_view import fleet_view
from dragoman.transcript import Transcript, generation_request
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import DragomanError
from speculation.protocol.generation import Chunk, Finished, GenerationRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.digest import DigestedText
from tests.support.drafter_links import a_batch
from tests.support.fuzzed_messages import MESSAGES, Fuzzer, messages, sensible, shown
from tests.support.service_drivers import SLOW, eventually
from tests.support.text_engine import TextDrafter, TextEngine
from transport.address import Address
from transport.generation_codec import event_from_wire, request_from_wire, status_from_wire
from transport.limits import PROTOCOL_VERSION, WireLimits
from transport.tokenizing_codec import (
    detokenize_request_from_wire,
    detokenize_request_to_wire,
    detokenize_response_from_wire,
    tokenize_request_from_wire,
)
from verifier_service.drafter_link import DrafterLink
from verifier_service.fleet_member import VerifierMember
from verifier_service.open_session import OpenSession
from verifier_service.verifier import Verifier

RULES = (Rule.RACE, Rule.EXACT, Rule.REJECTION, Rule.STRING_REJECTION)
#: Of these rules the text does not depend on what was drafted.
FIXED = (Rule.RACE, Rule.EXACT)
VERSIONS = {"protocol_version": lambda: PROTOCOL_VERSION}
#: Of tools and calls: else hardly any request that has some is one.
OBJECTS = {"parameters": lambda: "{}", "arguments": lambda: '{"x": [1]}'}
#: Of a registration: else one in 25 is let in, and the fleet is empty most of the time.
REGISTERED = {"model": lambda: "the cat", "max_sessions": lambda: 3, "seconds_per_token": lambda: 0.01}


def asked_for(rule: Rule) -> GenerationRequest:
    sampling = SamplingParams(temperature=1.0, seed=7)
    return generation_request("a story: ", rule=rule, sampling=sampling, max_tokens=60, ignore_end=True)


def with_one_prompt(request: pb.GenerateRequest, fuzzer: Fuzzer) -> None:
    """A text, or messages without calls: hardly any request of which every part is made up is one to serve."""
    prompt = request.prompt
    prompt.ClearField(fuzzer.random.choice(("text", "messages")))
    prompt.ClearField("tools")
    for turn in prompt.messages:
        turn.ClearField("tool_calls")
    request.ClearField("guide")
    request.protocol_version = PROTOCOL_VERSION


async def written(verifier: Verifier, request: GenerationRequest, counted: Counter[str] | None = None) -> bytes:
    """The whole text; what came of the drafts is ``counted``. Raises what the session fails with."""
    text = b""
    async for event in verifier.generate(request):
        if isinstance(event, Chunk):
            text += b"".join(run.text for run in event.runs)
        elif isinstance(event, Finished) and counted is not None:
            counted["spans"] += event.stats.spans
            counted["stale"] += event.stats.stale_spans
            counted["drafted"] += sum(each.draft_tokens for each in event.stats.sources if each.name)
    return text


class Harmful:
    """A drafter's stream that sends anything; who is refused dials again."""

    def __init__(self, verifier: Verifier, seed: int) -> None:
        self._verifier = verifier
        self._meant: OpenSession | None = None
        self._link: DrafterLink | None = None
        self.fuzzer = Fuzzer(seed, {**VERSIONS, "session": self._session, "number": lambda: 1}, hinted=0.9)
        self.fuzzer.hints |= {"base_offset": self._offset, "base_digest": self._digest, "tokens": lambda: 1}

    def _session(self) -> str:
        if not (sessions := self._verifier.sessions):
            return "s-0"
        self._meant = self.fuzzer.random.choice(sessions)
        return self._meant.name

    def _offset(self) -> int:
        return self._meant.session.committed_length if self._meant is not None else 0

    def _digest(self) -> int:
        return DigestedText(self._meant.session.committed if self._meant is not None else b"").digest

    def send(self, message: pb.AssistRequest) -> None:
        """As the stream's reader would pass it on."""
        roster = self._verifier.roster
        with shown(message):
            if self._link is None:
                self._link = roster.attach(self.fuzzer.message(pb.Hello))
                self._link.ping()
            try:
                roster.receive(self._link, message)
            except DragomanError:
                roster.detach(self._link)
                self._link = None

    def leave(self) -> None:
        if self._link is not None:
            self._verifier.roster.detach(self._link)


async def test_a_verifier_takes_what_any_drafter_sends():
    """Sessions of all rules go on, with the bytes of each alone where the rule has but one text."""
    alone = Verifier(TextEngine())
    expected = {rule: await written(alone, asked_for(rule)) for rule in FIXED}
    alone.shutdown()
    engine = TextEngine()
    verifier = Verifier(engine, plan=SLOW, adaptive=True)
    harmful = Harmful(verifier, seed=1)
    texts: dict[asyncio.Task[bytes], Rule] = {}
    counted: Counter[str] = Counter()

    def take(finished: set[asyncio.Task[bytes]]) -> None:
        for task in finished:
            rule = texts.pop(task)
            assert rule not in FIXED or task.result() == expected[rule]
            assert task.result()
            counted[rule] += 1

    for number, message in enumerate(messages(harmful.fuzzer, pb.AssistRequest, often="span")):
        if len(texts) < len(RULES):
            rule = RULES[number % len(RULES)]
            texts[asyncio.create_task(written(verifier, asked_for(rule), counted))] = rule
        harmful.send(message)
        if number % 8 == 0:
            await asyncio.sleep(0.001)
            take({task for task in texts if task.done()})
    harmful.leave()
    take((await asyncio.wait(texts, timeout=120))[0])
    assert not texts and all(counted[rule] for rule in RULES)
    assert counted["drafted"] and counted["spans"] > counted["stale"] > 0, counted
    await eventually(lambda: not verifier.sessions and not engine.open_slots)
    verifier.shutdown()


async def test_a_verifier_answers_any_request_or_refuses_it():
    engine = TextEngine()
    verifier = Verifier(engine)
    fuzzer = Fuzzer(2, {**VERSIONS, "max_tokens": lambda: 5, "received": lambda: b""}, hinted=0.96)
    fuzzer.hints |= sensible(fuzzer) | OBJECTS
    served = 0
    for message in messages(fuzzer, pb.GenerateRequest):
        if fuzzer.random.random() < 0.8:
            with_one_prompt(message, fuzzer)
        with shown(message):
            request = request_from_wire(message, WireLimits())
            if 0 < request.max_tokens < 100:
                await written(verifier, request)
                served += 1
    await eventually(lambda: not verifier.sessions and not engine.open_slots)
    assert served > MESSAGES / 40, "some are served"
    verifier.shutdown()


async def test_a_verifier_tells_of_any_tokens_or_refuses_to():
    verifier = Verifier(TextEngine())
    fuzzer = Fuzzer(9, VERSIONS | {"role": lambda: "user", "token_ids": lambda: 65}, hinted=0.9)
    told = 0
    for asked, listed in zip(messages(fuzzer, pb.TokenizeRequest), messages(fuzzer, pb.DetokenizeRequest), strict=True):
        with shown(asked):
            prompt = tokenize_request_from_wire(asked, verifier.limits)
            ids = await verifier.tokenizing.tokenize(prompt)
            assert detokenize_request_to_wire(ids.token_ids)
            told += 1
        with shown(listed):
            token_ids = detokenize_request_from_wire(listed, verifier.limits)
            answer = await verifier.tokenizing.detokenize(token_ids)
            assert len(detokenize_response_from_wire(answer)) == len(token_ids)
            told += 1
    assert told > MESSAGES / 10, "some are answered"
    verifier.shutdown()


async def test_a_drafter_takes_what_any_verifier_sends():
    """It declines what it cannot follow, and goes on to draft."""
    outbox: asyncio.Queue[pb.AssistRequest] = asyncio.Queue()
    with ThreadPoolExecutor(max_workers=1) as thread:
        link = VerifierLink(drafter=TextDrafter(), outbox=outbox, thread=thread, seconds_per_token=0.001)
        working = asyncio.create_task(link.work())
        names = ("s-0", "s-1", "s-2")
        fuzzer = Fuzzer(3, hinted=0.96)
        fuzzer.hints = sensible(fuzzer) | {"session": lambda: fuzzer.random.choice(names), "base_offset": lambda: 0}
        fuzzer.hints |= {"base_digest": lambda: DigestedText().digest, "digest": lambda: DigestedText().digest}
        for number, message in enumerate(messages(fuzzer, pb.AssistResponse, often="offer")):
            with shown(message):
                link.receive(message)
            if number % 8 == 0:
                await a_batch(thread)
            if working.done():
                working.result()
        honest = pb.SessionOffer(session="honest", prompt=pb.Prompt(text=b"a story: "), rule=pb.RULE_RACE, number=1)
        honest.plan.CopyFrom(pb.SpeculationPlan(width=4, lookahead=4, span_tokens=1))
        for name in names:
            link.receive(pb.AssistResponse(closed=pb.SessionClosed(session=name)))
        link.receive(pb.AssistResponse(offer=honest))
        async with asyncio.timeout(120):
            answers: list[pb.AssistRequest] = []
            while not answers or answers[-1].span.session != "honest":
                answers.append(await outbox.get())
        assert {"span", "decline", "pong"} <= {answer.WhichOneof("message") for answer in answers[:-1]}
        working.cancel()
        await link.close()


def test_a_coordinator_takes_what_any_member_sends():
    """Members join, report and leave as they like, the fleet ticks, and its status can be told and drawn."""
    now = 1000.0
    fleet = Fleet(CoordinatorConfig(), now)
    members: list[Member] = []
    fuzzer = Fuzzer(4, VERSIONS | REGISTERED, hinted=0.9)
    names = ("s-0", "s-1")
    fuzzer.hints |= {"session": lambda: fuzzer.random.choice(names), "link": lambda: 1}
    fuzzer.hints |= {"instance": lambda: fuzzer.random.choice("abcd"), "address": lambda: "127.0.0.1:4000"}
    for number, message in enumerate(messages(fuzzer, pb.JoinRequest)):
        now += fuzzer.random.choice((0.0, 0.05, 1.0, 30.0))
        registration = message.registration if number % 2 else fuzzer.message(pb.Registration)
        with shown(registration):
            members.append(fleet.join(registration, now))
        for member in members[-3:]:
            with shown(message):
                fleet.receive(member, message, now)
        route, drain = fuzzer.message(pb.RouteRequest), fuzzer.message(pb.DrainRequest)
        with shown(route):
            fleet.router.route(route, now)
        with shown(drain):
            fleet.drains.decide(drain)
        with shown(message, refused=()):  # whoever is let in, the fleet goes on
            fleet.tick(now)
            status = status_of_fleet(fleet, now)
        if number % 20 == 0:
            with shown(status):
                status_as_dict(status)
    assert len(members) > MESSAGES / 40, "some are let in"


async def test_members_carry_out_any_order_that_can_be():
    verifier = Verifier(TextEngine())
    member = VerifierMember(verifier, Address("127.0.0.1", 1), instance="v", name="v", advertised="127.0.0.1:1")
    text = asyncio.create_task(written(verifier, asked_for(Rule.RACE)))
    await eventually(lambda: verifier.sessions)
    fuzzer = Fuzzer(5, {"session": lambda: verifier.sessions[0].name if verifier.sessions else "s"})
    for message in messages(fuzzer, pb.JoinResponse):
        if message.drain.hand_over:
            continue  # which ends the text, as it should
        with shown(message):
            member.carry_out(message)
        await asyncio.sleep(0)
    alone = Verifier(TextEngine())
    assert await text == await written(alone, asked_for(Rule.RACE))
    alone.shutdown()
    verifier.shutdown()


def test_a_client_reads_any_answer():
    fuzzer = Fuzzer(6)
    for message in messages(fuzzer, pb.GenerateResponse):
        with shown(message):
            event = event_from_wire(message)
            transcript = Transcript(asked_for(Rule.RACE), on_chunk=lambda chunk: None)
            if event is not None and transcript.take(event):
                transcript.completion.to_json()
    for described in messages(fuzzer, pb.DescribeResponse):
        with shown(described):
            status_from_wire(described)


@pytest.mark.parametrize("width", [40, 120])
def test_any_status_can_be_drawn(width: int):
    fuzzer = Fuzzer(7)
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    for message in messages(fuzzer, pb.StatusResponse, count=MESSAGES // 10):  # some 30 ms each
        with shown(message):
            status_as_dict(message)
            console.print(fleet_view(message, width=width, height=30))
