"""Two hosts on one machine reach each other through the fault proxy, and only through it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from benchmarks.fault_proxy import FaultProxy, LinkConditions
from benchmarks.namespaces import possible, two_hosts

pytestmark = [pytest.mark.netns, pytest.mark.skipif(not possible(), reason="needs root and the ip command")]

ECHO = """import socket
listening = socket.create_server(("{host}", 0))
print(listening.getsockname()[1], flush=True)
connection = listening.accept()[0]
connection.sendall(connection.recv(9))
"""
ASK = """import socket
connection = socket.create_connection(("{host}", {port}), timeout=5)
connection.sendall(b"hello")
print(connection.recv(9).decode())
"""


async def test_the_edge_reaches_the_cloud_through_the_proxy_alone():
    with two_hosts() as hosts:
        echo = [*hosts.cloud.within, sys.executable, "-c", ECHO.format(host=hosts.cloud.address)]
        server = await asyncio.create_subprocess_exec(*echo, stdout=asyncio.subprocess.PIPE)
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        near = LinkConditions(0.0, 0.0, None)
        async with FaultProxy(hosts.cloud.address, port, near, f"{hosts.edge.outside}:0") as proxy:
            host, _, proxied = proxy.address.rpartition(":")
            past = [*hosts.edge.within, sys.executable, "-c", ASK.format(host=hosts.cloud.address, port=port)]
            refused = await asyncio.to_thread(subprocess.run, past, capture_output=True, text=True, check=False)
            assert refused.returncode != 0, "there is no way past the proxy"
            through = [*hosts.edge.within, sys.executable, "-c", ASK.format(host=host, port=proxied)]
            heard = await asyncio.to_thread(subprocess.run, through, capture_output=True, text=True, check=False)
            assert heard.stdout.strip() == "hello", heard.stderr
        await server.wait()
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert f"-{os.getpid()}" not in left, "another test's may be there"
