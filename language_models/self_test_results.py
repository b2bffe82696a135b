"""What the self-test of a model found, kept for the next load of the same weights on the same kind of machine.

A result is filed under a digest of everything it depends on, which is cheap for weights of any size: the headers, sizes
and times of change of the weights' files (or the manifest of converted ones, which has their sha256), the model's
configuration and code, this project's, the versions of torch and transformers, and what decides about bits: processor
or GPU, threads, dtype, attention, packed weights. A model with faults is tried again each time, and so is one of which
something could not be tried for want of memory, which is said. A file that cannot be read or written costs a second
test, never a load.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from language_models.causal_self_test import MEMORY, SelfTest, self_test
from language_models.footprint import model_folder
from language_models.shards import Shards
from language_models.weights import MANIFEST, ModelFiles, home

if TYPE_CHECKING:
    from language_models.causal_lm import CausalLM

log = logging.getLogger(__name__)

#: Results that are kept, the newest ones.
_KEPT = 256
#: Longer headers of safetensors are none.
_HEADER_BYTES = 100 << 20


def tested(model: CausalLM, files: ModelFiles, shards: Shards | None = None) -> SelfTest:
    """The result for ``model``, loaded from ``files``: the one that is kept, else that of a test now.

    ``shards``: those that hold the model together test it together, or none of them.
    """
    path = _path(model, files, shards)
    found = _read(path)
    if shards is not None and not shards.all_agree(found is not None):
        found = None
    if found is None:
        found = self_test(model, shards)
        if not found.faults and not any(MEMORY in what for what in found.unproven):
            _write(path, found)
    for what in found.unproven:
        log.warning("%s is served though one thing could not be tried: %s", model.name, what)
    return found


def _path(model: CausalLM, files: ModelFiles, shards: Shards | None) -> Path:
    digest = hashlib.sha256()
    divided = [] if shards is None else [f"{shards.size} ranks".encode(), shards.code()]
    for part in (*_weights(model_folder(files)), *_machine(model), *divided, *_code()):
        digest.update(len(part).to_bytes(8, "big") + part)
    return home() / "self-tests" / f"{digest.hexdigest()[:40]}.json"


def _weights(folder: Path) -> Iterator[bytes]:
    yield str(folder).encode()
    manifest = folder / MANIFEST
    if manifest.is_file():
        yield manifest.read_bytes()
        return
    for file in sorted(path for path in folder.glob("*") if path.is_file()):
        status = file.stat()
        yield f"{file.name} {status.st_size} {status.st_mtime_ns}".encode()
        if file.name == "config.json" or file.suffix == ".py":
            yield file.read_bytes()
        elif file.suffix == ".safetensors":
            with file.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                yield opened.read(min(length, _HEADER_BYTES))


def _machine(model: CausalLM) -> Iterator[bytes]:
    if model.device.type == "cuda":
        yield torch.cuda.get_device_name(model.device).encode()
    else:
        yield _processor().encode() + torch.backends.cpu.get_cpu_capability().encode()
        yield str(torch.get_num_threads()).encode()
    packing = model.least_rows, model.most_rows
    yield f"{model.device.type} {model.weights_dtype} {model.config._attn_implementation} {packing}".encode()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))


def _code() -> Iterator[bytes]:
    yield f"{torch.__version__} {transformers.__version__}".encode()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        yield file.read_bytes()


def _read(path: Path) -> SelfTest | None:
    try:
        entry = json.loads(path.read_text())
        found = SelfTest(
            row_dependence=str(entry["row_dependence"]),
            unproven=tuple(map(str, entry["unproven"])),
            unshared=str(entry["unshared"]),
            places=tuple(map(str, entry["places"])),
            seconds=float(entry["seconds"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.debug("the self-test's result in %s cannot be read: %s", path, error)
        return None
    return found


def _write(path: Path, found: SelfTest) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".new", delete=False) as file:
            json.dump(dataclasses.asdict(found), file, indent=1)
        os.replace(file.name, path)
        kept = sorted(path.parent.glob("*.json"), key=lambda other: other.stat().st_mtime_ns)
        for old in kept[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.debug("the self-test's result cannot be kept in %s: %s", path, error)
