"""What a service logs, for people, for machines, and for those who must be able to tell later who came."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dragoman import Client, SamplingParams
from dragoman.log_setup import AuditFile, JsonLines, set_up_logging
from dragoman.options import LogFormat
from speculation.errors import InputError
from tests.support.coordinators import coordinating
from tests.support.service_drivers import drafters, drafting, eventually, request, serving, stub_to, text_of
from tests.support.text_engine import TextEngine
from transport.audit import LOGGER, audit
from transport.channels import open_channel
from transport.session_log import SessionLog


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    """An audit log; handlers and settings are gone afterwards."""
    root, loggers = logging.getLogger(), [logging.getLogger(), logging.getLogger(LOGGER)]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    root.handlers.clear()
    set_up_logging(True, log_format=LogFormat.JSON, audit_log=tmp_path / "audit.jsonl")
    yield tmp_path / "audit.jsonl"
    for logger, handlers, level in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_of_json_has_what_machines_ask_for(written: Path, capsys: pytest.CaptureFixture[str]):
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler.formatter, JsonLines)
    said: list[str] = []
    handler.emit = lambda record: said.append(handler.format(record))  # type: ignore[method-assign]
    log = logging.getLogger("some.place")
    SessionLog(log, "s-1").info("two\nlines")
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in said)
    assert first.keys() == {"time", "level", "logger", "message", "session"} and first["session"] == "s-1"
    assert first["level"] == "info" and first["logger"] == "some.place" and first["message"].endswith("two\nlines")
    assert first["time"].endswith("+00:00")
    assert second["level"] == "error" and "ValueError: no" in second["exception"] and "session" not in second


async def test_the_audit_log_says_who_came_and_what_was_refused_but_no_text(written: Path):
    secret = "a secret of mine"
    async with serving(TextEngine()) as (verifier, address), Client(address) as client:
        async with drafting(address, instance="i-1"):
            await drafters(verifier, 1)
            done = await client.complete(secret, max_tokens=20)
        await drafters(verifier, 0)
        await eventually(lambda: "drafter left" in written.read_text())
        async with stub_to(address) as stub:
            wrong = request(SamplingParams(), stop=[secret.encode() * 100])
            with pytest.raises(grpc.aio.AioRpcError):
                await text_of(address, wrong)
            with pytest.raises(grpc.aio.AioRpcError):
                async for _ in stub.Assist(iter(())):
                    pass
    found = events(written)
    assert [each["event"] for each in found] == ["drafter attached", "session", "drafter left", "refused", "refused"]
    attached, session, left, *refused = found
    assert attached["instance"] == left["instance"] == "i-1" and attached["drafter"] == "d"
    assert session["prompt_tokens"] == done.prompt_tokens and session["session"].startswith("s-")
    assert refused[0] | {"time": ""} == {"time": "", "event": "refused", "call": "Generate", "reason": "InputError"}
    assert refused[1]["call"] == "Assist" and "hello" in refused[1]["reason"]
    assert secret not in written.read_text() and done.text[:8] not in written.read_text()


async def test_a_coordinator_says_who_joined_and_who_drained(written: Path):
    from protos.dragoman.v1 import dragoman_pb2 as pb
    from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc

    async with coordinating() as (_, address), open_channel(address) as channel:
        stub = pb_grpc.CoordinatorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Drain(pb.DrainRequest(verifier="nobody"))
    [refused] = events(written)
    assert refused["event"] == "refused" and refused["call"] == "Drain" and refused["verifier"] == "nobody"


def test_a_full_disk_stops_nothing_and_is_said_once(written: Path, caplog: pytest.LogCaptureFixture):
    [handler] = [each for each in logging.getLogger(LOGGER).handlers if isinstance(each, AuditFile)]
    audit("first")
    good, full = handler.stream, OSError(errno.ENOSPC, "No space left on device")

    class Full:
        def write(self, _: str) -> None:
            raise full

        def __getattr__(self, name: str) -> Any:
            return getattr(good, name)

    with caplog.at_level(logging.ERROR):
        handler.stream = Full()  # type: ignore[assignment]
        audit("lost")
        audit("lost too")
        handler.stream = good
        audit("second", by=None, nothing=None)
        handler.stream = Full()  # type: ignore[assignment]
        audit("lost again")
        handler.stream = good
    assert [each["event"] for each in events(written)] == ["first", "second"]
    assert [record.message for record in caplog.records if "cannot be written" in record.message] == [
        f"the audit log {written} cannot be written: events are lost"
    ] * 2


def test_full_files_are_kept_beside_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dragoman.log_setup.AUDIT_BYTES", 300)
    handler = AuditFile(tmp_path / "a.jsonl")
    logging.getLogger(LOGGER).addHandler(handler)
    try:
        for number in range(100):
            audit("event", number=number)
    finally:
        logging.getLogger(LOGGER).removeHandler(handler)
        handler.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 10 and all(file.stat().st_size <= 300 for file in files)
    assert events(tmp_path / "a.jsonl")[-1]["number"] == 99


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"audit-log=.*cannot be written: No such file"):
        set_up_logging(False, audit_log=tmp_path / "nowhere" / "a.jsonl")
