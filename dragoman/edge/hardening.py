"""How a unit is kept from the rest of its machine. `systemd-analyze security UNIT` says what each line is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

_ALWAYS: Final = """\
DynamicUser=yes
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
PrivateTmp=yes
PrivateMounts=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
KeyringMode=private
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
"""
#: What a GPU's driver needs no part of is shut off where there is none. ProtectClock would bring a list of devices
#: that leaves GPUs out.
_WITHOUT_GPU: Final = """\
SystemCallFilter=~@privileged @resources
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
"""
_WITH_GPU: Final = """\
SystemCallFilter=~@privileged
PrivateDevices=no
"""


def hardening(*, gpu_groups: Sequence[str] | None, compiles: bool, bound: Sequence[Path]) -> str:
    """Lines of a unit's section Service.

    ``gpu_groups``: of users who may open a GPU's devices; None: it needs no GPU. ``compiles``: it writes machine code
    while it runs, as torch does for matrices of int8 and bfloat16. ``bound``: what it sees of what is hidden.
    """
    lines = _ALWAYS + (_WITHOUT_GPU if gpu_groups is None else _WITH_GPU)
    if gpu_groups:
        lines += f"SupplementaryGroups={' '.join(gpu_groups)}\n"
    if not compiles:
        lines += "MemoryDenyWriteExecute=yes\n"
    lines += f"ProtectHome={'tmpfs' if bound else 'yes'}\n"
    return lines + "".join(f"BindReadOnlyPaths={path}\n" for path in bound)
