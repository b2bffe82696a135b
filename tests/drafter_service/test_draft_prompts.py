"""A drafter whose chat template refuses a conversation reads it as nearly as that lets it, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.registry import NOTES, read_registration
from coordinator.reports import NAME_LENGTH
from drafter_service.draft_prompts import draft_prompt_ids, folded, template_notes
from drafter_service.fleet_member import DrafterMember
from drafter_service.model_drafter import ModelDrafter
from dragoman.doctor import PairVerdict, diagnose
from dragoman.fleet_view import fleet_view
from language_models.tokenizer import TextTokenizer
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError
from speculation.protocol.messages import ROLES, ChatMessage, Prompt
from tests.support.coordinators import coordinating, running, status
from tests.support.fleet_drawings import drawn
from tests.support.service_drivers import QUICK, WARM, drafters, drafting, eventually, request, serving, text_of
from tests.support.tiny_models import CHAT_TEMPLATE, load_tiny
from tests.support.tiny_tokenizers import MISTRAL_LIKE, NO_SYSTEM, changed, load, with_template, with_weights
from transport import prompt_codec
from transport.limits import PROTOCOL_VERSION
from verifier_service.transformers_engine import TransformersEngine

FOLDED = "the drafter's template refuses system messages: folded into the first turn"


def prompt(*messages: tuple[str, str]) -> Prompt:
    return Prompt(messages=tuple(ChatMessage(role, content) for role, content in messages))


SYSTEM = prompt(("system", "Be brief."), ("user", "hello"), ("assistant", "yes"), ("user", "so?"))


def read(tokenizer: TextTokenizer, asked: Prompt) -> str:
    return tokenizer.vocab.text(draft_prompt_ids(tokenizer, asked)).decode()


@pytest.fixture
def tokenizer(tiny_llama: Path) -> TextTokenizer:
    return load(tiny_llama)


def test_a_template_that_takes_the_messages_is_given_them(tokenizer: TextTokenizer):
    assert draft_prompt_ids(tokenizer, SYSTEM) == tokenizer.prompt_ids(SYSTEM)
    assert template_notes(tokenizer) == []
    assert draft_prompt_ids(tokenizer, Prompt(text="x")) == tokenizer.prompt_ids(Prompt(text="x"))


def test_a_system_message_is_folded_into_the_turn_that_follows(tiny_llama: Path, tmp_path: Path):
    tokenizer = with_template(tiny_llama, tmp_path / "m", NO_SYSTEM)
    with pytest.raises(InputError, match="System role not supported"):
        tokenizer.prompt_ids(SYSTEM)
    assert read(tokenizer, SYSTEM) == "user\nBe brief.\n\nhello\nassistant\nyes\nuser\nso?\nassistant\n"
    assert template_notes(tokenizer) == [FOLDED]


def test_turns_of_one_side_become_one(tiny_llama: Path, tmp_path: Path):
    tokenizer = with_template(tiny_llama, tmp_path / "m", MISTRAL_LIKE)
    assert read(tokenizer, prompt(("user", "a"), ("user", "b"), ("tool", "c"), ("assistant", "d"))) == "a\n\nb\n\ncd"
    assert template_notes(tokenizer) == []
    late = prompt(("user", "a"), ("assistant", "b"), ("system", "c"), ("developer", "d"), ("user", "e"))
    assert [m.role for m in folded(late.messages)] == ["user", "assistant", "user"]
    assert folded(late.messages)[-1].content == "c\n\nd\n\ne"


def test_a_template_that_takes_nothing_gives_way_to_a_transcript(tiny_llama: Path, tmp_path: Path):
    tokenizer = with_template(tiny_llama, tmp_path / "m", "{{ raise_exception('tools are missing') }}")
    assert read(tokenizer, SYSTEM) == "System: Be brief.\nUser: hello\nAssistant: yes\nUser: so?\nAssistant:"
    assert template_notes(tokenizer) == ["the drafter's template takes no conversation: read as a plain transcript"]


def test_a_developer_is_the_system_to_a_template_that_knows_none(
    tokenizer: TextTokenizer, tiny_llama: Path, tmp_path: Path
):
    asked = prompt(("developer", "Be brief."), ("user", "hello"))
    assert tokenizer.vocab.text(tokenizer.prompt_ids(asked)).startswith(b"system\nBe brief.")
    knowing = with_template(tiny_llama, tmp_path / "m", CHAT_TEMPLATE + "{# knows a developer #}")
    assert knowing.vocab.text(knowing.prompt_ids(asked)).startswith(b"developer\nBe brief.")


def test_roles_are_those_of_the_chat_api():
    for role in ROLES:
        prompt((role, "x"))
    for role in ("usr", "User", "", "system "):
        with pytest.raises(InputError, match=r"messages\.role=.*system, developer, user, assistant, tool"):
            prompt((role, "x"))
        wire = pb.Prompt(messages=[pb.ChatMessage(role=role, content="x")])
        with pytest.raises(InputError, match=r"messages\.role="):
            prompt_codec.prompt_from_wire(wire)


async def test_conversations_that_the_template_refuses_are_drafted_for(tiny_llama: Path, tmp_path: Path):
    path = with_weights(changed(tiny_llama, tmp_path / "m", template=NO_SYSTEM))
    asked = request(WARM, max_tokens=8, ignore_end=True)
    asked.prompt.CopyFrom(prompt_codec.prompt_to_wire(SYSTEM))
    async with (
        serving(TransformersEngine(load_tiny(tiny_llama)), adaptive=False, lookup=False) as (verifier, address),
        drafting(address, ModelDrafter(load_tiny(path))),
    ):
        await drafters(verifier, 1)
        spans = 0
        while not spans:  # a short text may be over before its drafter has looked at it
            spans = (await text_of(address, asked))[1].speculation.spans


def test_doctor_says_it(tiny_llama: Path, tmp_path: Path):
    path = changed(tiny_llama, tmp_path / "m", template=NO_SYSTEM)
    found = diagnose(str(tiny_llama), str(path))
    assert found.verdict is PairVerdict.WORKS and FOLDED in found.remarks
    assert FOLDED not in diagnose(str(path), str(tiny_llama)).remarks


async def test_status_says_it(tiny_llama: Path, tmp_path: Path):
    drafter = ModelDrafter(load_tiny(with_weights(changed(tiny_llama, tmp_path / "m", template=NO_SYSTEM))))
    async with (
        coordinating() as (server, at),
        running(DrafterMember(drafter, at, instance="d", name="edge", backoff=QUICK)),
    ):
        await eventually(lambda: len(status(server).members) == 1)
        told = status(server)
    assert list(told.members[0].notes) == [FOLDED]
    for width in (40, 80):
        words = " ".join(" ".join(drawn(fleet_view(told, width=width), width)).split())
        assert f"edge: {FOLDED}" in words


def test_a_member_may_not_say_too_much():
    registration = pb.Registration(
        protocol_version=PROTOCOL_VERSION,
        instance="d",
        name="edge",
        model="m",
        max_sessions=1,
        drafter=pb.DrafterKind(),
        notes=["x" * 5000] * 500,
    )
    assert read_registration(registration, now=0.0).notes == ("x" * NAME_LENGTH,) * NOTES
