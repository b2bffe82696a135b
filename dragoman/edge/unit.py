"""The unit of an edge machine's drafter: systemd's file, without settings and without secrets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dragoman.edge.hardening import hardening
from dragoman.edge.layout import MARK, Layout

#: Since when a unit is given credentials (LoadCredential=), and since when pauses between restarts may grow.
OLDEST_SYSTEMD: Final = 247
_GROWING_PAUSES: Final = 254

_UNIT = """\
{mark}; `dragoman edge uninstall` removes it.
# Settings and credentials are in {folder}/.
[Unit]
Description=Dragoman drafter{called}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
EnvironmentFile={environment_file}
Environment=HOME=%S/{service} DRAGOMAN_HOME=%C/{service} HF_HOME=%C/{service}/huggingface XDG_CACHE_HOME=%C/{service}
ExecStart={command}
{load}StateDirectory={service}
StateDirectoryMode=0700
CacheDirectory={service}
CacheDirectoryMode=0700
# A link that is lost does not end it: it dials again by itself.
Restart=always
{pauses}
# SIGTERM makes it leave its verifiers in order; their texts go on without it.
KillMode=mixed
TimeoutStopSec=20
{memory}
{hardening}
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """``credentials``: file names in the layout's folder. ``gpu_groups``, ``compiles``, ``bound``: see ``hardening``.

    ``memory_max``: bytes. ``systemd``: its version, None: unknown, then what the oldest knows is used.
    """

    layout: Layout
    program: Path
    options: Sequence[str]
    credentials: Sequence[str]
    memory_max: int | None
    gpu_groups: Sequence[str] | None
    compiles: bool
    bound: Sequence[Path]
    systemd: int | None

    @property
    def text(self) -> str:
        layout = self.layout
        pauses = "RestartSec=10"
        if self.systemd is not None and self.systemd >= _GROWING_PAUSES:
            pauses = "RestartSec=2\nRestartSteps=6\nRestartMaxDelaySec=120"
        load = [f"LoadCredential={name}:{layout.folder / name}\n" for name in self.credentials]
        return _UNIT.format(
            mark=MARK,
            environment_file=layout.environment_file,
            folder=layout.folder,
            called="" if layout.name is None else f" {layout.name}",
            service=layout.service,
            command=" ".join([str(self.program), "drafter", *self.options]),
            load="".join(load),
            pauses=pauses,
            memory="" if self.memory_max is None else f"MemoryMax={self.memory_max}\n",
            hardening=hardening(gpu_groups=self.gpu_groups, compiles=self.compiles, bound=self.bound),
        )
