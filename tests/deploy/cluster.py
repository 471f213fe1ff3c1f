"""A real Kubernetes API server with its etcd, on loopback, without nodes: what it takes in, a cluster takes in."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port
from tests.deploy.programs import program, run

START_S: Final = 120.0  # four seconds on an idle machine
_TOKEN: Final = "of-the-test"  # noqa: S105 - the server lives for a test, on loopback


class Answer(NamedTuple):
    """What the API server said."""

    status: int
    body: dict[str, Any]
    warnings: list[str]


class Cluster:
    """An API server that runs; made by `cluster`."""

    def __init__(self, port: int, folder: Path) -> None:
        self.url = f"https://{LOCALHOST}:{port}"
        self._tls = ssl.create_default_context(cafile=str(folder / "certificates/apiserver.crt"))
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.url, folder / "certificates/apiserver.crt")))

    def ask(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Answer:
        """One request; an answer of refusal is an answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind}
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - https, above
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:  # noqa: S310 - as above
                return Answer(answer.status, json.loads(answer.read()), answer.headers.get_all("Warning") or [])
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.loads(error.read()), [])

    def get(self, path: str) -> dict[str, Any]:
        """What is at that path; it must be there."""
        answer = self.ask("GET", path)
        assert answer.status == 200, f"{path}: {answer.body.get('message')}"
        return answer.body

    def apply(self, part: Mapping[str, Any], namespace: str) -> Answer:
        """Server-side apply, as `kubectl apply --server-side` does it; unknown fields are errors."""
        place = f"{self.resource(part)}/{part['metadata']['name']}".replace("{namespace}", namespace)
        query = "fieldManager=test&fieldValidation=Strict&force=true"
        return self.ask("PATCH", f"{place}?{query}", dict(part), kind="application/apply-patch+yaml")

    def resource(self, part: Mapping[str, Any]) -> str:
        """The path of a kind, as the server itself names it."""
        version = part["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        for resource in self.get(root)["resources"]:
            if resource["kind"] == part["kind"] and "/" not in resource["name"]:
                return f"{root}/{'namespaces/{namespace}/' if resource['namespaced'] else ''}{resource['name']}"
        raise AssertionError(f"the server knows no {part['kind']} of {version}")

    def helm(self, *arguments: str | Path) -> str:
        """Run Helm against this cluster; what it says on both outputs, since warnings go to the other one."""
        command = [program("helm"), "--kubeconfig", self.kubeconfig, *arguments]
        return run(["sh", "-c", 'exec "$@" 2>&1', "sh", *command])


def _kubeconfig(url: str, authority: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": url, "certificate-authority": str(authority)}}],
        "users": [{"name": "it", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }


@contextmanager
def _running(name: str, command: list[str | Path], folder: Path, url: str) -> Iterator[None]:
    """Start a program, wait until `url` answers 200, and end it afterwards."""
    import asyncio  # stopping is all that needs it

    child = ChildProcess(name, [str(part) for part in command], log_path=folder / f"{name}.log")
    try:
        deadline = time.monotonic() + START_S
        unchecked = ssl._create_unverified_context()  # noqa: S323 - the certificate is only being made
        while True:
            try:
                with urllib.request.urlopen(url, context=unchecked, timeout=5):  # noqa: S310 - our own server
                    break
            except (OSError, urllib.error.URLError) as error:
                if child.exit_code() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{name} does not answer: {error}{child.log_end()}") from error
            time.sleep(0.2)
        yield
    finally:
        asyncio.run(child.stop(grace_s=20))


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start etcd and the API server, with their data in `folder`."""
    store, peer, port = free_port(), free_port(), free_port()
    (folder / "tokens.csv").write_text(f"{_TOKEN},admin,admin,system:masters\n")
    key = folder / "service-accounts.pem"
    run(["openssl", "genrsa", "-out", key, "2048"])
    etcd: list[str | Path] = [
        program("etcd"),
        *("--name", "it", "--data-dir", folder / "etcd", "--unsafe-no-fsync", "--log-level", "error"),
        *(
            "--listen-client-urls",
            f"http://{LOCALHOST}:{store}",
            "--advertise-client-urls",
            f"http://{LOCALHOST}:{store}",
        ),
        *(
            "--listen-peer-urls",
            f"http://{LOCALHOST}:{peer}",
            "--initial-advertise-peer-urls",
            f"http://{LOCALHOST}:{peer}",
        ),
        *("--initial-cluster", f"it=http://{LOCALHOST}:{peer}"),
    ]
    apiserver: list[str | Path] = [
        program("kube-apiserver"),
        f"--etcd-servers=http://{LOCALHOST}:{store}",
        f"--bind-address={LOCALHOST}",
        f"--advertise-address={LOCALHOST}",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://it",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=192.0.2.0/24",
        "--endpoint-reconciler-type=none",
        "--profiling=false",
    ]
    with (
        _running("etcd", etcd, folder, f"http://{LOCALHOST}:{store}/health"),
        _running("kube-apiserver", apiserver, folder, f"https://{LOCALHOST}:{port}/readyz"),
    ):
        yield Cluster(port, folder)
