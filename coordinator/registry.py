"""Who belongs to the fleet: verifiers and drafters, by instance.

Only this process's steady clock counts (``now``, in seconds): what time a member thinks it is matters to nobody.
A stream that broke makes no member leave, because it may be back in a second; silence does, and a goodbye.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from coordinator.reports import NAME_LENGTH, DrafterFacts, VerifierFacts, believable_seconds
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, LimitExceededError, QuotaExceededError, SessionError
from speculation.plural import count_of
from transport import codec
from transport.address import Address
from transport.identity import Identity

#: Of a member, that are kept.
NOTES = 8


class Kind(Enum):
    VERIFIER = "verifier"
    DRAFTER = "drafter"


@dataclass(frozen=True, slots=True)
class DrainDecision:
    """``hand_over``: the sessions that run end at once, to be resumed elsewhere."""

    draining: bool
    hand_over: bool = False


@dataclass(slots=True, eq=False)
class Member:
    """One registration: a process that registers again is a new member in the place of the old one."""

    kind: Kind
    instance: str
    name: str
    model: str
    max_sessions: int
    registered_at: float
    reported_at: float
    #: Whose certificate or token it came with. None: nobody was asked.
    holder: Identity | None = None
    vocab_hash: str = ""
    notes: tuple[str, ...] = ()
    #: Of a verifier: where it is reached, and what it computes in. Of a drafter: empty.
    address: str = ""
    dtype: str = ""
    #: Of a verifier: what was decided about its draining, if anything was.
    drain: DrainDecision | None = None
    #: Of a drafter, when it was idle. None: not known.
    seconds_per_token: float | None = None
    reports: int = 0
    rejected_reports: int = 0
    verifier_facts: VerifierFacts = field(default_factory=lambda: VerifierFacts({}, {}))
    drafter_facts: DrafterFacts = field(default_factory=DrafterFacts)
    #: Of a drafter: the verifiers that it was told to assist. None: nothing yet.
    attach_order: tuple[str, ...] | None = None

    @property
    def draining(self) -> bool:
        """Of a verifier: whether it is to be given no new sessions, by a decision or by its own word."""
        return self.verifier_facts.draining or (self.drain is not None and self.drain.draining)

    @property
    def full(self) -> bool:
        """Of a verifier: whether it has as many sessions as it takes, by its last report."""
        return len(self.verifier_facts.sessions) >= self.max_sessions

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name!r} ({self.instance})"


def read_registration(registration: pb.Registration, now: float, holder: Identity | None = None) -> Member:
    """Raises VersionMismatchError, or InputError with the field that is wrong."""
    codec.check_version(registration.protocol_version, who=f"member {registration.name[:NAME_LENGTH]!r}")
    for name in ("instance", "name", "model", "version", "vocab_hash", "dtype"):
        value = getattr(registration, name)
        if len(value) > NAME_LENGTH or (not value and name in ("instance", "name", "model")):
            raise InputError(f"registration.{name}", value, f"must have 1..{NAME_LENGTH} characters")
    if registration.max_sessions < 1:
        raise InputError("registration.max_sessions", registration.max_sessions, "must be at least 1")
    member = Member(
        kind=Kind.DRAFTER,
        instance=registration.instance,
        name=registration.name,
        model=registration.model,
        max_sessions=registration.max_sessions,
        vocab_hash=registration.vocab_hash,
        notes=tuple(note[:NAME_LENGTH] for note in registration.notes[:NOTES]),
        registered_at=now,
        reported_at=now,
        holder=holder,
    )
    match registration.WhichOneof("kind"):
        case "verifier":
            member.kind = Kind.VERIFIER
            member.dtype = registration.dtype
            field_name = "registration.verifier.address"
            member.address = str(Address.parse(registration.verifier.address[:NAME_LENGTH], field=field_name))
        case "drafter":
            speed = believable_seconds(registration.drafter.seconds_per_token)
            if speed is None:
                told = registration.drafter.seconds_per_token
                raise InputError("registration.drafter.seconds_per_token", told, "must be finite and not negative")
            member.seconds_per_token = speed or None
        case _:
            raise InputError("registration.kind", None, "is missing", remedy="register as verifier or as drafter")
    return member


class Registry:
    """The members there are. ``dead_after``: seconds of silence that end a membership; ``max_members_each``: of one
    holder of a certificate or token."""

    def __init__(self, *, dead_after: float, max_members: int, max_members_each: int) -> None:
        self._dead_after = dead_after
        self._max_members = max_members
        self._max_members_each = max_members_each
        self._members: dict[str, Member] = {}

    def __contains__(self, member: Member) -> bool:
        """Whether this registration still stands."""
        return self._members.get(member.instance) is member

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def get(self, instance: str) -> Member | None:
        return self._members.get(instance)

    @property
    def verifiers(self) -> list[Member]:
        return [member for member in self if member.kind is Kind.VERIFIER]

    @property
    def drafters(self) -> list[Member]:
        return [member for member in self if member.kind is Kind.DRAFTER]

    def add_member(self, member: Member) -> Member | None:
        """Take in a member; returns the one that it replaces.

        Raises SessionError if that one is somebody else, LimitExceededError if there is no room.
        """
        replaced = self._members.get(member.instance)
        if replaced is None:
            self._check_room(member)
        elif (replaced.kind, replaced.holder) != (member.kind, member.holder):
            # Instances are told to whoever may ask for texts. No InputError, after which members give up: one that
            # comes with a token of another name is let in once its old membership has ended.
            raise SessionError(f"{member.instance!r} is the instance of another {replaced.kind.value}")
        self._members[member.instance] = member
        return replaced

    def _check_room(self, member: Member) -> None:
        if len(self._members) >= self._max_members:
            has = count_of(self._max_members, "member")
            raise LimitExceededError(f"the fleet has {has} already", remedy="raise max_members")
        if member.holder is None:
            return
        if sum(other.holder == member.holder for other in self) >= self._max_members_each:
            raise QuotaExceededError(
                f"{member.holder} has {count_of(self._max_members_each, 'member')} already",
                remedy="give groups of machines certificates of their own, or raise max_members_each",
            )

    def remove(self, member: Member) -> None:
        if member in self:
            del self._members[member.instance]

    def silent(self, now: float) -> list[Member]:
        """Those that have said nothing for too long."""
        return [member for member in self if now - member.reported_at > self._dead_after]
