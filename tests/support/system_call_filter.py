"""`python -m tests.support.system_call_filter UNIT PROGRAM ...`: the program with the system calls that a unit allows.

What systemd makes of SystemCallFilter=, SystemCallErrorNumber=, RestrictAddressFamilies= and MemoryDenyWriteExecute=,
by libseccomp, for tests where no systemd runs. Linux on x86-64 and ARM64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from ctypes.util import find_library
from pathlib import Path

from tests.support.edge_units import InstalledUnit, analyzed, analyzer_version

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL, _MASKED = 4, 7
_WRITE, _EXECUTE = 2, 4
_NO_NEW_PRIVILEGES = 38


class _Compared(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def there_is_one() -> bool:
    """Whether libseccomp and systemd's lists of system calls are here."""
    if find_library("seccomp") is None or not analyzer_version():
        return False
    return analyzed("syscall-filter", "@system-service").returncode == 0


def allowed_calls(unit: InstalledUnit) -> set[str]:
    """Names, of all machines that Linux runs on."""
    found: set[str] = set()
    for line in unit.values("SystemCallFilter"):
        groups = set[str]().union(*(_calls(group) for group in line.removeprefix("~").split()))
        found = found - groups if line.startswith("~") else found | groups
    return found


def _calls(group: str) -> set[str]:
    lines = [line.strip() for line in analyzed("syscall-filter", group).stdout.splitlines()[1:]]
    names = [line for line in lines if line and not line.startswith("#")]
    return set[str]().union(*(_calls(name) if name.startswith("@") else {name} for name in names))


def restrict(unit: InstalledUnit) -> None:
    """This process and all that it becomes."""
    library = ctypes.CDLL(find_library("seccomp"))
    library.seccomp_init.restype = ctypes.c_void_p
    made = ctypes.c_void_p(library.seccomp_init(_ERRNO | getattr(errno, unit.values("SystemCallErrorNumber")[0])))

    def allow(name: str, *compared: _Compared) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else it is of another machine
            rules = (_Compared * len(compared))(*compared)
            library.seccomp_rule_add_array(made, ctypes.c_uint32(_ALLOW), number, len(compared), rules)

    calls = allowed_calls(unit) - {"socket"}
    for family in unit.values("RestrictAddressFamilies")[0].split():
        allow("socket", _Compared(0, _EQUAL, getattr(socket, family), 0))
    if unit.values("MemoryDenyWriteExecute") == ["yes"]:
        calls -= {"mmap", "mprotect", "pkey_mprotect", "shmat"}
        allow("mmap", _Compared(2, _MASKED, _EXECUTE, 0))
        allow("mmap", _Compared(2, _MASKED, _EXECUTE | _WRITE, _EXECUTE))
        allow("mprotect", _Compared(2, _MASKED, _EXECUTE, 0))
    for name in sorted(calls):
        allow(name)
    done = ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or library.seccomp_load(made)
    if done != 0:
        sys.exit("the filter cannot be loaded")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    restrict(InstalledUnit(path.parents[3], path.stem.removeprefix("dragoman-drafter").removeprefix("-") or None))
    os.execv(sys.argv[2], sys.argv[2:])
