"""Files with some bytes changed, cut out, doubled or cut off: read as they are, or refused with what is wrong."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dragoman.ray_fleet.config import read_fleet
from language_models.gguf_conversion import convert_gguf
from speculation.errors import DragomanError
from speculation.text.vocab_table import table_of, vocab_of_table
from tests.support.certificates import TestAuthority
from tests.support.fuzzed_messages import Fuzzer
from tests.support.repository import ROOT
from tests.support.text_models import DRAFTER_VOCAB
from tests.support.tiny_gguf import tiny_gguf
from tests.support.tiny_models import load_tiny
from transport.identity import Identity, Role
from transport.pem_files import pem_files
from transport.revocations import Revocation, read_revocations
from transport.tokens import new_token, read_tokens

FILES = int(os.environ.get("DRAGOMAN_FUZZ", 400))


def survives(read: Callable[[], object], data: bytes) -> bool:
    """Whether it is read; else it is refused, or the test fails and says with which bytes."""
    try:
        read()
    except DragomanError as error:
        assert str(error)
        return False
    except Exception as error:
        raise AssertionError(f"{len(data)} bytes, {data[:2000]!r}") from error
    return True


def each_broken(seed: int, data: bytes, path: Path, read: Callable[[Path], object], *, count: int) -> None:
    """``path`` holds the data broken in many ways, one after the other. As it is, it can be read."""
    path.write_bytes(data)
    assert survives(lambda: read(path), data)
    fuzzer = Fuzzer(seed)
    for _ in range(count):
        broken = fuzzer.broken(data)
        path.write_bytes(broken)
        survives(lambda: read(path), broken)


def test_vocabulary_tables():
    """One that is taken is the one whose digest was asked for."""
    data, digest = table_of(DRAFTER_VOCAB), DRAFTER_VOCAB.content_hash

    def read(table: bytes) -> None:
        assert vocab_of_table(table, content_hash=digest).content_hash == digest

    fuzzer = Fuzzer(1)
    for _ in range(FILES):
        broken = fuzzer.broken(data)
        survives(partial(read, broken), broken)


def test_tokens_and_revocations(tmp_path: Path):
    holders = Identity(Role.CLIENT, "a"), Identity(Role.ADMIN, "b")
    tokens = "".join(f"{new_token(holder)[1].line}\n" for holder in holders)
    each_broken(2, tokens.encode(), tmp_path / "tokens", read_tokens, count=FILES)
    revoked = f"{Revocation(Identity(Role.DRAFTER, 'edge-1'), datetime.datetime.now(datetime.UTC)).line}\n"
    each_broken(3, revoked.encode(), tmp_path / "revoked", read_revocations, count=FILES)


def test_certificates(tmp_path: Path):
    security = TestAuthority(tmp_path / "ca").mutual(Role.VERIFIER)
    for seed, name in enumerate((security.tls_cert, security.tls_key, security.tls_ca)):
        path = Path(str(name))
        data = path.read_bytes()
        each_broken(seed, data, path, lambda path: pem_files(security), count=FILES // 4)
        path.write_bytes(data)


def test_fleet_files(tmp_path: Path):
    data = (ROOT / "deploy" / "fleet.yaml").read_bytes()
    each_broken(5, data, tmp_path / "fleet.yaml", read_fleet, count=FILES // 8)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_models(tiny_llama: Path, tmp_path: Path, name: str):
    """Of the weights the header: what is changed in the numbers makes another model."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    data = (folder / name).read_bytes()
    header = 8 + int.from_bytes(data[:8], "little") if name.endswith(".safetensors") else len(data)
    fuzzer = Fuzzer(6)
    for _ in range(FILES // 40):
        broken = fuzzer.broken(data[:header]) + data[header:]
        (folder / name).write_bytes(broken)
        survives(lambda: load_tiny(folder), broken)


def test_gguf_headers(tiny_qwen2: Path, tmp_path: Path):
    [path] = tiny_gguf(tiny_qwen2, tmp_path / "tiny.gguf")
    data = path.read_bytes()
    fuzzer = Fuzzer(7)
    for number in range(FILES // 40):
        broken = fuzzer.broken(data[:4096]) + data[4096:]
        path.write_bytes(broken)
        survives(partial(convert_gguf, path, tmp_path / f"out-{number}", name="tiny"), broken)
