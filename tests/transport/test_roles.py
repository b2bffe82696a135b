"""Who may call what: every method of both services, for every role."""

from __future__ import annotations

import re

import pytest
from grpc_health.v1 import health_pb2

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import AccessError, InputError
from transport.identity import Identity, Role
from transport.roles import MAY_CALL, check_call, check_member

VERIFIER, COORDINATOR, DRAFTER, CLIENT, ADMIN = Role
#: Written out once more: a change of the table is a change of who has access.
ALLOWED = {
    "VerifierService/Assist": {DRAFTER},
    "VerifierService/Describe": {CLIENT, ADMIN},
    "VerifierService/Detokenize": {CLIENT, ADMIN},
    "VerifierService/Generate": {CLIENT, ADMIN},
    "VerifierService/Tokenize": {CLIENT, ADMIN},
    "CoordinatorService/Join": {VERIFIER, DRAFTER},
    "CoordinatorService/Route": {CLIENT, ADMIN},
    "CoordinatorService/Status": {CLIENT, ADMIN},
    "CoordinatorService/Drain": {ADMIN},
}
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
]


def test_every_method_of_every_service_is_in_the_table():
    assert {f"/{service}/{name}" for service, methods in MAY_CALL.items() for name in methods} == set(METHODS)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", METHODS)
def test_each_cell(method: str, role: Role):
    short = method.rpartition(".")[2]
    peer = Identity(role, "someone")
    if "health" in method or role in ALLOWED[short]:
        check_call(method, peer)
        return
    with pytest.raises(AccessError) as caught:
        check_call(method, peer)
    assert f"{role} someone may not call {short.partition('/')[2]}" in caught.value.message
    assert all(allowed in caught.value.remedy for allowed in ALLOWED[short])


@pytest.mark.parametrize("method", [*METHODS, "/dragoman.v1.VerifierService/New", "/other.Service/Generate", "", "/"])
def test_who_has_no_role_and_what_is_not_in_the_table(method: str):
    with pytest.raises(AccessError, match="without a role"):
        check_call(method, None)
    if method not in METHODS:
        with pytest.raises(AccessError, match="may not call"):
            check_call(method, Identity(ADMIN, "a"))


@pytest.mark.parametrize("kind", [VERIFIER, DRAFTER])
def test_members_join_as_what_they_are(kind: Role):
    check_member(None, kind)
    for role in Role:
        if role is kind:
            check_member(Identity(role, "a"), kind)
        else:
            with pytest.raises(AccessError, match=f"may not join as a {kind}"):
                check_member(Identity(role, "a"), kind)


@pytest.mark.parametrize("role", Role)
def test_an_identity_is_its_uri(role: Role):
    identity = Identity(role, "gpu-box.1_a")
    assert identity.uri == f"spiffe://dragoman/{role}/gpu-box.1_a"
    assert Identity.parse(identity.uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://dragoman/admin",
        "spiffe://dragoman/root/a",
        "spiffe://elsewhere/admin/a",
        "spiffe://dragoman/admin/a/b",
        "spiffe://dragoman/admin/a\n",
        "spiffe://dragoman/Admin/a",
        "https://dragoman/admin/a",
        " spiffe://dragoman/admin/a",
        "spiffe://dragoman/admin/" + "a" * 64,
    ],
)
def test_what_is_none_of_our_identities(uri: str):
    assert Identity.parse(uri) is None


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ä", "a\n", "a" * 64, "../a"])
def test_names_that_no_certificate_has(name: str):
    with pytest.raises(InputError, match=re.escape("is no name for a certificate")):
        Identity(CLIENT, name)
