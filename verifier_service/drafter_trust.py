"""Which drafters are trusted, and what the others are kept from.

A drafter sees prompt and text of the sessions that it drafts for. Under the rules that reject by a drafter's own
probabilities one that draws otherwise than it says shifts the distribution of a text; under the race and under exact
matching its word decides nothing (``docs/security.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from speculation.errors import InputError
from speculation.sampling.params import Rule
from transport.identity import Identity
from transport.security import Security

#: What is wrong with a setting that needs drafters to have names.
NAMELESS = "tells drafters apart, and they are not asked who they are"


class PromptsTo(StrEnum):
    """Drafters that are offered sessions."""

    ALL = "all"
    TRUSTED = "trusted"


@dataclass(frozen=True, slots=True)
class DrafterTrust:
    """``names``: of certificates or tokens, ``*`` for any run of letters."""

    names: Sequence[str] = ()
    prompts_to: PromptsTo = PromptsTo.ALL

    def trusts(self, identity: Identity | None) -> bool:
        """None: nobody is asked who he is. Then whoever can dial in is trusted, unless names were given."""
        if identity is None:
            return not self.names
        return any(fnmatchcase(identity.name, name) for name in self.names)

    def allows(self, rule: Rule, *, trusted: bool) -> bool:
        """Whether such a drafter may be offered a session under this rule."""
        return trusted or (self.prompts_to is PromptsTo.ALL and not rule.proposes)

    @property
    def asks(self) -> tuple[str, object] | None:
        """The setting that needs drafters to have names, and its value; None if there is none."""
        if self.names:
            return "trusted_drafters", ", ".join(self.names)
        return ("prompts_to", str(self.prompts_to)) if self.prompts_to is PromptsTo.TRUSTED else None

    def check(self, security: Security) -> None:
        """Raises InputError where drafters are not asked for the names that they would be told apart by."""
        if (asked := self.asks) is not None and not (security.asks_for_certificates or security.tokens is not None):
            setting, value = asked
            remedy = "add --tls-cert, --tls-key and --tls-ca for mutual TLS, or --tokens"
            raise InputError(setting.replace("_", "-"), value, NAMELESS, remedy=remedy)
