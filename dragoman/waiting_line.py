"""What a terminal shows while a prompt is read: that something happens, how much there is to read, and since when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from speculation.plural import count_of
from speculation.protocol.generation import Chunk

#: Seconds of silence before it is shown: most texts begin sooner.
_DELAY: Final = 1.0


class WaitingLine:
    """A line on the terminal of ``console`` until the text begins; nothing where that is no terminal, or ``quiet``.

    Use as an async context manager around the request, with ``started`` as its ``on_started`` and its ``on_chunk``
    within ``before``.
    """

    def __init__(self, console: Console, *, quiet: bool = False, delay: float = _DELAY) -> None:
        self._console = console
        self._shown = console.is_terminal and not quiet
        self._delay = delay
        self._prompt_tokens: int | None = None
        self._since = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._live: Live | None = None

    async def __aenter__(self) -> Self:
        if self._shown:
            self._since = time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._show)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.end()

    def started(self, prompt_tokens: int) -> None:
        """The verifier has taken the prompt."""
        self._prompt_tokens = prompt_tokens

    def before(self, show: Callable[[Chunk], None]) -> Callable[[Chunk], None]:
        """``show``, and the line is gone when it is called."""

        def end_and_show(chunk: Chunk) -> None:
            self.end()
            show(chunk)

        return end_and_show

    def end(self) -> None:
        """Erase it. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def words(self, width: int) -> Text:
        """The line, in as much detail as there is room for."""
        seconds = f"{time.monotonic() - self._since:.0f} s"
        if self._prompt_tokens is None:
            forms = [f"waiting for the verifier · {seconds}", f"waiting · {seconds}"]
        else:
            tokens = count_of(self._prompt_tokens, "token")
            forms = [f"waiting for the first token · {tokens} of prompt · {seconds}", f"waiting · {tokens} · {seconds}"]
        return Text(next((form for form in forms if len(form) < width), seconds), style="dim", no_wrap=True)

    def _show(self) -> None:
        # Not redirected: what the text is printed on is another console.
        self._live = Live(
            get_renderable=lambda: self.words(self._console.width),
            console=self._console,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)
