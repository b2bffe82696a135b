"""--listen, --max-concurrent, --no-page, --grace and others, for every command that serves HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from dragoman.option_groups import grouped, option
from dragoman.settings_options import default_of, option_of, settings_from
from gateway.settings import GatewaySettings
from transport.address import Address
from transport.security import Security

LOCAL_GATEWAY: Final = "127.0.0.1:8000"
_PORT: Final = 8000
_NUMBERS: Final = ("max_concurrent", "max_queue", "max_texts_per_key", "max_choices", "max_body")
_SWITCHES: Final = ("page", "special_tokens")
_LISTS: Final = ("allowed_origins",)
#: With their defaults as a person writes them.
_DURATIONS: Final = {
    "head_timeout": "10s",
    "body_timeout": "60s",
    "keep_alive": "5s",
    "send_timeout": "60s",
    "grace": "30s",
}

Listen = Annotated[str, typer.Option(help="Address to serve HTTP at; port 0 takes a free one")]


def http_limits(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the settings of a gateway as options besides its own; it takes them as ``settings``."""
    options = [
        option(name, Annotated[int, option_of(GatewaySettings, name, bounds=True)], default_of(GatewaySettings, name))
        for name in _NUMBERS
    ]
    options += [
        option(name, Annotated[bool, option_of(GatewaySettings, name)], default_of(GatewaySettings, name))
        for name in _SWITCHES
    ]
    options += [
        option(name, Annotated[str, option_of(GatewaySettings, name)], default) for name, default in _DURATIONS.items()
    ]
    options += [option(name, Annotated[list[str] | None, option_of(GatewaySettings, name)], None) for name in _LISTS]
    return grouped(command, "settings", options, _settings)


def _settings(given: dict[str, Any]) -> GatewaySettings:
    """Raises what ``settings_from`` raises."""
    return settings_from(GatewaySettings, **given | {name: given[name] or [] for name in _LISTS})


def http_address(listen: str, security: Security) -> Address:
    """Where HTTP is served. Raises what ``dragoman.serving.listen_address`` raises."""
    from dragoman.serving import listen_address

    return listen_address(listen, security, default_port=_PORT)
