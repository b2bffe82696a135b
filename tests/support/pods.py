"""The workloads of an overlay as pods of podman, with the test in the place of a cluster's controllers and kubelets: it
gives pods names and addresses, fills in what the cluster fills in, asks their probes, stops and replaces them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.containers import ALONE, logs, podman
from tests.support.manifests import KUBERNETES, Manifest, of_kind, rendered

NETWORK = "dragoman-test"
_SUBNET = "10.89.177"
#: Pods, and the last part of the address of each.
PLACES = {
    "coordinator": 10,
    "verifier-0": 20,
    "verifier-1": 21,
    "drafter-0": 30,
    "drafter-1": 31,
    "gateway-0": 40,
    "gateway-1": 41,
}
_MODELS = "/models"
_SETTINGS = (
    f"DRAGOMAN_VERIFIER_MODEL={_MODELS}/target",
    f"DRAGOMAN_DRAFTER_MODEL={_MODELS}/drafter",
    "DRAGOMAN_VERIFIER_DTYPE=float32",
    "DRAGOMAN_DRAFTER_DTYPE=float32",
)
#: Seconds that a pod may take to be ready on a busy machine.
_PATIENCE = 240.0


def address_of(pod: str) -> str:
    """Its IP address."""
    return f"{_SUBNET}.{PLACES[pod]}"


def with_models(folder: Path, models: Path, components: Sequence[str] = ()) -> list[Manifest]:
    """The objects of overlay `plain` with the folders ``target`` and ``drafter`` of ``models`` on a volume, as a
    kustomization in ``folder`` asks for them."""
    volume = {"name": "given", "hostPath": {"path": str(models)}}
    mount = {"name": "given", "mountPath": _MODELS, "readOnly": True}
    patch = [
        {"op": "add", "path": "/spec/template/spec/volumes/-", "value": volume},
        {"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-", "value": mount},
    ]
    kinds = ({"kind": "StatefulSet", "name": "verifier"}, {"kind": "Deployment", "name": "drafter"})
    below = os.path.relpath(KUBERNETES, folder)
    written = {
        "namespace": "dragoman",
        "resources": [f"{below}/overlays/plain"],
        "components": [f"{below}/components/{component}" for component in components],
        "configMapGenerator": [{"name": "dragoman", "behavior": "merge", "literals": list(_SETTINGS)}],
        "patches": [{"target": target, "patch": yaml.safe_dump(patch)} for target in kinds],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(written))
    return rendered(folder)


def _filled_in(container: Manifest, facts: dict[str, str], settings: dict[str, str]) -> None:
    """Facts of the pod and of its node as a kubelet writes them, and $(NAME) in arguments and variables."""
    values: dict[str, str] = dict(settings)
    for variable in container["env"]:
        source = variable.pop("valueFrom", None)
        if source is not None and "fieldRef" in source:
            variable["value"] = facts[source["fieldRef"]["fieldPath"]]
        elif source is not None:
            variable["value"] = container["resources"]["limits"][source["resourceFieldRef"]["resource"].split(".")[1]]
        variable["value"] = re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], variable["value"])
        values[variable["name"]] = variable["value"]
    container["args"] = [re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], word) for word in container["args"]]


def _renamed(spec: Manifest, volume: str, name: str) -> None:
    """A volume, and its mounts."""
    mounts = [mount for container in spec["containers"] for mount in container["volumeMounts"]]
    for each in (*spec["volumes"], *mounts):
        if each["name"] == volume:
            each["name"] = name


class Pods:
    """Those of a namespace. What podman has no notion of, the test does: probes, preStop, Services, controllers."""

    def __init__(self, objects: Sequence[Manifest], *, secrets: Path | None = None) -> None:
        """``secrets``: a folder with one for each Secret."""
        self._objects = objects
        self._secrets = secrets
        self._workloads = {
            each["metadata"]["name"]: each for each in objects if each["kind"] in ("Deployment", "StatefulSet")
        }
        self.running: set[str] = set()
        #: Of the images of pods that are started from now on; None: that of the overlay.
        self.tag: str | None = None

    def manifest(self, pod: str) -> Manifest:
        """Of one pod, as podman takes it."""
        workload = self._workloads[re.sub(r"-\d$", "", pod)]
        template = copy.deepcopy(workload["spec"]["template"])
        spec = template["spec"]
        for volume in spec["volumes"]:
            if "secret" in volume:
                volume["hostPath"] = {"path": f"{self._secrets}/{volume.pop('secret')['secretName']}"}
            if "emptyDir" in volume:  # podman would share it among pods, by its name
                _renamed(spec, volume["name"], f"{pod}-{volume['name']}")
        for claim in workload["spec"].get("volumeClaimTemplates", ()):
            name = claim["metadata"]["name"]
            spec["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{pod}"}})
        [container] = spec["containers"]
        if self.tag is not None:
            container["image"] = f"{container['image'].rpartition(':')[0]}:{self.tag}"
        # Podman would take ports of this machine for those of the container.
        for unknown in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports"):
            container.pop(unknown, None)
        maps = {each["metadata"]["name"]: each["data"] for each in of_kind(self._objects, "ConfigMap")}
        settings = maps[container["envFrom"][0]["configMapRef"]["name"]]
        _filled_in(container, {"metadata.name": pod, "metadata.namespace": "dragoman"}, settings)
        spec["hostAliases"] = [
            {"ip": address_of(other), "hostnames": [f"{other}.verifiers.dragoman.svc", other]} for other in PLACES
        ]
        spec["restartPolicy"] = "Never"
        metadata = {"name": pod, "labels": template["metadata"]["labels"]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def start(self, pod: str) -> None:
        """Not waiting until it is ready."""
        wanted = [self.manifest(pod), *of_kind(self._objects, "ConfigMap")]
        self.running.add(pod)
        podman(
            *("play", "kube", "--network", NETWORK, "--ip", address_of(pod), "-"),
            stdin=yaml.safe_dump_all(sorted(wanted, key=lambda each: each["kind"] == "Pod")),
        )

    async def stop(self, pod: str) -> int:
        """As a kubelet does: SIGTERM, and SIGKILL after the pod's time. The exit code of its container."""
        grace = self._workloads[re.sub(r"-\d$", "", pod)]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        # The pod's network goes after its container, as a kubelet does it.
        await asyncio.to_thread(podman, "stop", "--time", str(grace), self.container(pod))
        code = int(podman("container", "inspect", "--format", "{{.State.ExitCode}}", self.container(pod)))
        await asyncio.to_thread(self.kill, pod)
        return code

    def kill(self, pod: str) -> None:
        """At once."""
        self.running.discard(pod)
        podman("kill", "--signal", "KILL", self.container(pod), check=False)
        podman("pod", "rm", "--force", "--time", "0", pod)

    def container(self, pod: str) -> str:
        """Its name."""
        return f"{pod}-{re.sub('-[0-9]$', '', pod)}"

    async def ready(self, *pods: str) -> None:
        """Until the probe of each says so. Raises TimeoutError with what the pod wrote."""
        for pod in pods:
            [container] = self._workloads[re.sub(r"-\d$", "", pod)]["spec"]["template"]["spec"]["containers"]
            try:
                async with asyncio.timeout(_PATIENCE):
                    while not await _passes(container["readinessProbe"], address_of(pod)):
                        await asyncio.sleep(0.2)
            except TimeoutError:
                raise TimeoutError(f"{pod}: {logs(self.container(pod))}") from None

    def remove(self) -> None:
        """All of it."""
        for pod in sorted(self.running):
            podman("pod", "rm", "--force", "--time", "0", pod, check=False)
        volumes = podman("volume", "ls", "--quiet").split()
        if ours := [each for each in volumes if re.search("|".join(PLACES), each)]:
            podman("volume", "rm", "--force", *ours, check=False)


async def _passes(probe: Manifest, host: str) -> bool:
    """Asked once, as a kubelet asks."""
    if "httpGet" in probe:
        scheme = probe["httpGet"].get("scheme", "http").lower()
        async with httpx.AsyncClient(verify=False, trust_env=False) as asking:
            try:
                return (await asking.get(f"{scheme}://{host}:8000{probe['httpGet']['path']}")).status_code < 400
            except httpx.TransportError:
                return False
    options: Any = (("grpc.enable_http_proxy", 0),)
    async with grpc.aio.insecure_channel(f"{host}:{probe['grpc']['port']}", options=options) as channel:
        request = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        except grpc.aio.AioRpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def _keep_bridge() -> None:
    """A bridge has the lowest address of its ports, so another one when a pod goes, and connections from here to other
    pods would be broken. An address that was set stays."""
    bridge = json.loads(podman("network", "inspect", NETWORK))[0]["network_interface"]
    address = Path(f"/sys/class/net/{bridge}/address").read_text().strip()
    subprocess.run(["ip", "link", "set", "dev", bridge, "address", address], check=True)


@contextlib.contextmanager
def fleet_of(pods: Pods, names: Sequence[str]) -> Iterator[Pods]:
    """Pods that are started here, ready, in a network where each has an address that this machine reaches."""
    with ALONE:
        podman("network", "rm", "--force", NETWORK, check=False)
        podman("network", "create", "--disable-dns", "--subnet", f"{_SUBNET}.0/24", NETWORK)
        try:
            for pod in names:
                pods.start(pod)
            _keep_bridge()
            asyncio.run(pods.ready(*names))
            yield pods
        finally:
            pods.remove()
            podman("network", "rm", "--force", NETWORK, check=False)
