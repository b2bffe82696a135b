"""Which endpoint a person means: an OpenAI API, a verifier or a fleet."""

from __future__ import annotations

from dataclasses import dataclass, field

from dragoman.bench.endpoint import BenchEndpoint, TextSettings
from dragoman.bench.grpc_endpoint import GrpcEndpoint
from dragoman.bench.openai_endpoint import OpenAIEndpoint, parse_base_url
from dragoman.bench.prompts import LOCAL_URL, Route
from dragoman.dialling import Destination
from speculation.errors import InputError
from transport.address import COORDINATOR_PORT, Address
from transport.channels import check_dialling
from transport.security import Security


@dataclass(frozen=True, slots=True)
class Where:
    """As a person gave it; with none of the first three, a gateway of this machine. Raises InputError for several."""

    base_url: str | None
    verifier: str | None
    coordinator: str | None
    model: str = ""
    api_key: str | None = None
    security: Security = field(default_factory=Security)

    def __post_init__(self) -> None:
        names = ("base_url", "verifier", "coordinator")
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            problem = f"comes with {' and '.join(given[1:])} as well"
            raise InputError(given[0].removeprefix("--"), None, problem, remedy="give one of them")
        if self.verifier is not None and self.model:
            raise InputError("model", self.model, "is no choice: a verifier has one", remedy="leave it out")
        if self.api_key is not None and (self.verifier or self.coordinator):
            remedy = "over gRPC, a token is given with --token-file or DRAGOMAN_TOKEN"
            raise InputError("api-key-env", None, "is for HTTP", remedy=remedy)


def endpoint_of(where: Where, route: Route, settings: TextSettings) -> BenchEndpoint:
    """Nothing is dialled yet. Raises InputError for what cannot be."""
    if where.verifier is None and where.coordinator is None:
        url = parse_base_url(where.base_url or LOCAL_URL, where.security)
        return OpenAIEndpoint(url, route, settings, model=where.model, api_key=where.api_key, security=where.security)
    if where.verifier is not None:
        check_dialling(Address.parse(where.verifier, field="verifier"), where.security, who="verifier")
    if where.coordinator is not None:
        address = Address.parse(where.coordinator, field="coordinator", default_port=COORDINATOR_PORT)
        check_dialling(address, where.security, who="coordinator")
    destination = Destination(
        verifier=where.verifier, coordinator=where.coordinator, model=where.model, security=where.security
    )
    return GrpcEndpoint(destination, settings)
