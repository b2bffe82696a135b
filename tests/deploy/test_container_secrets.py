"""The overlay `plain` with the component `tls` in containers: text over HTTPS, mutual TLS behind it, and no secret
where others than the pods that have it could read it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cluster_secrets import ClusterSecrets
from tests.support.commands import dragoman
from tests.support.containers import MISSING, TARGETS, image_of, logs, podman
from tests.support.pods import Pods, address_of, fleet_of, with_models

pytestmark = [
    pytest.mark.containers,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # images are built
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]
FLEET = ("coordinator", "verifier-0", "drafter-0", "gateway-0")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> ClusterSecrets:
    return ClusterSecrets(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory, secrets: ClusterSecrets) -> str:
    """An API key of the gateway's."""
    folder = tmp_path_factory.mktemp("keys")
    made = dragoman("tokens", "add", "client", "anna", f"--tokens={folder / 'tokens'}", f"--to={folder / 'anna.token'}")
    assert made.returncode == 0, made.stderr
    secrets.put("gateway-tokens", {"tokens": (folder / "tokens").read_bytes()})
    return (folder / "anna.token").read_text().strip()


@pytest.fixture(scope="module")
def pods(
    tmp_path_factory: pytest.TempPathFactory,
    container_images: None,
    container_models: Path,
    secrets: ClusterSecrets,
    key: str,
) -> Iterator[Pods]:
    """One of each pod, ready."""
    objects = with_models(tmp_path_factory.mktemp("overlay"), container_models, ["tls"])
    secrets.issue(objects)
    with fleet_of(Pods(objects, secrets=secrets.folder), FLEET) as made:
        yield made


def asking(secrets: ClusterSecrets, key: str) -> httpx.Client:
    """A client of the gateway by the name that its certificate has."""
    trusted = ssl.create_default_context(cafile=str(secrets.folder / "gateway-tls" / "ca.crt"))
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(verify=trusted, headers=headers, timeout=120, trust_env=False)


def completion(secrets: ClusterSecrets, key: str) -> httpx.Response:
    """Of the gateway."""
    body = {"model": "target", "prompt": "The heron", "max_tokens": 40, "seed": 1, "ignore_eos": True}
    url = f"https://{address_of('gateway-0')}:8000/v1/completions"
    with asking(secrets, key) as client:
        return client.post(url, json=body, extensions={"sni_hostname": "gateway"})


def test_text_comes_over_https_for_who_has_a_key(pods: Pods, secrets: ClusterSecrets, key: str):
    answer = completion(secrets, key)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["choices"][0]["text"]) > 40
    assert completion(secrets, "").status_code == completion(secrets, "dgm-wrong").status_code == 401


def test_no_secret_is_told_by_podman_by_a_log_or_in_the_list_of_processes(
    pods: Pods, secrets: ClusterSecrets, key: str
):
    assert completion(secrets, key).status_code == 200
    hashed = (secrets.folder / "gateway-tokens" / "tokens").read_text()
    words = [*secrets.words, key, *json_words(hashed)]
    assert len(words) > 10 and min(map(len, words)) > 20
    told = {"images": podman("image", "inspect", *(image_of(target) for target in TARGETS))}
    for pod in pods.running:
        container = pods.container(pod)
        told[f"{pod}: pod inspect"] = podman("pod", "inspect", pod)
        told[f"{pod}: inspect"] = podman("container", "inspect", container)
        told[f"{pod}: log"] = logs(container)
        told[f"{pod}: processes"] = podman("pod", "top", pod, "pid", "args")
        pid = podman("container", "inspect", "--format", "{{.State.Pid}}", container).strip()
        told[f"{pod}: environment"] = Path(f"/proc/{pid}/environ").read_text()
    for target in TARGETS:
        told[f"{target}: history"] = podman("image", "history", "--no-trunc", image_of(target))
    assert "dragoman gateway" in told["gateway-0: processes"]
    for where, text in told.items():
        assert not [word for word in words if word in text], where


def json_words(text: str) -> list[str]:
    """Of a file of keys: what is long enough to be one, or its hash."""
    return [word for word in json.dumps(text).replace("\\n", " ").replace(":", " ").split() if len(word) > 20]
