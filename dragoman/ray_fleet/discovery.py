"""What an actor needs of Ray: where it runs, where the coordinator is, where its log goes. Runs inside the actors."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from speculation.errors import ConnectionFailedError
from transport.address import Address

#: Seconds for the coordinator's answer: one that is just restarting says nothing.
TIMEOUT = 5.0
COORDINATOR = "coordinator"
#: Replicas of the gateway are actors whose names begin so.
GATEWAYS = "gateway/gateway/"


def log_what_happens() -> None:
    """For every worker process: what happens, session by session, into the log that Ray keeps of it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def loopback() -> str:
    """For a fleet that is all on one machine."""
    return "127.0.0.1"


def own_host() -> str:
    """The address of this node, as Ray knows it."""
    import ray

    return str(ray.util.get_node_ip_address())


async def coordinator_address(namespace: str) -> Address:
    """Where the fleet's coordinator is now. Raises ConnectionFailedError if Ray does not know, or it does not say."""
    import ray

    try:
        handle = await asyncio.to_thread(ray.get_actor, COORDINATOR, namespace)
        address: str = await asyncio.wait_for(handle.address.remote(), TIMEOUT)
    except ValueError as error:
        raise ConnectionFailedError("the cluster has no coordinator") from error
    except (TimeoutError, ray.exceptions.RayError) as error:
        raise ConnectionFailedError(f"the coordinator does not say where it is: {type(error).__name__}") from error
    return Address.parse(address, field="coordinator")


async def listening_gateways(namespace: str) -> set[tuple[str, str]]:
    """Where the replicas of the gateway listen that say so: (address of the node, where it listens there)."""
    import ray

    async def told(name: str) -> dict[str, Any]:
        try:
            handle = await asyncio.to_thread(ray.get_actor, name, namespace)
            facts: dict[str, Any] = await asyncio.wait_for(handle.describe.remote(), TIMEOUT)
        except (ValueError, TimeoutError, ray.exceptions.RayError):
            return {}
        return facts

    actors = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
    names = [each["name"] for each in actors if each["namespace"] == namespace and each["name"].startswith(GATEWAYS)]
    found = await asyncio.gather(*map(told, names))
    return {(facts["host"], facts["listens"]) for facts in found if "listens" in facts}
