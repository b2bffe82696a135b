"""`python -m dragoman.end_with_parent MODULE ARGUMENTS`: runs a module until the process that started it is gone.

Standard input is a pipe whose other end only the parent holds. The system closes it however the parent ends, SIGKILL
included, on every Unix; Linux's own way (PR_SET_PDEATHSIG) looks at the thread that started the child instead.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

#: That an orderly end may take, in seconds.
_GRACE_SECONDS = 10.0


def _watch() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_watch, name="parent", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
