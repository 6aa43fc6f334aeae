"""A real API server of Kubernetes with its controllers and etcd, on this machine; kubelets are played.

Needs a folder with the programs etcd, kube-apiserver and kube-controller-manager (HGPU_KUBERNETES). Nothing
runs the pods: a thread says of each that it is ready, as the kubelet of a node would.
"""

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from standin_cluster import write_kubeconfig

from hgpu.runtime.ports import free_ports

TOKEN = "canary-of-the-cluster"
ENGINEER = "canary-of-an-engineer"  # who has no rights of their own


class RealCluster:
    """Started in `folder`; `kubeconfig` is how to reach it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stopped = threading.Event()
        etcd, peer, port = free_ports(3)
        (folder / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n{ENGINEER},engineer,2\n")
        key, public = folder / "sa.key", folder / "sa.pub"
        for words in (["genrsa", "-out", key, "2048"], ["rsa", "-in", key, "-pubout", "-out", public]):
            subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
        self._start(folder, [
            programs / "etcd", "--data-dir", folder / "etcd", "--listen-client-urls", f"http://127.0.0.1:{etcd}",
            "--advertise-client-urls", f"http://127.0.0.1:{etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
        ])  # fmt: skip
        self._start(folder, [
            programs / "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{etcd}", "--secure-port", port,
            "--bind-address", "127.0.0.1", "--cert-dir", folder / "certs",
            "--token-auth-file", folder / "tokens.csv", "--authorization-mode", "RBAC",
            "--service-account-key-file", public, "--service-account-signing-key-file", key,
            "--service-account-issuer", "https://localhost", "--service-cluster-ip-range", "10.0.0.0/24",
            "--disable-admission-plugins", "ServiceAccount", "--insecure-port", "0",
        ])  # fmt: skip
        self.url = f"https://127.0.0.1:{port}"
        self.kubeconfig = folder / "kubeconfig.yaml"
        cluster = {"server": self.url, "certificate-authority": str(folder / "certs" / "apiserver.crt")}
        write_kubeconfig(self.kubeconfig, cluster, TOKEN)
        self.engineer = folder / "engineer.yaml"
        write_kubeconfig(self.engineer, cluster, ENGINEER)
        self._await_ready()
        self._start(folder, [
            programs / "kube-controller-manager", "--kubeconfig", self.kubeconfig, "--leader-elect=false",
            "--bind-address", "127.0.0.1", "--port", "0", "--secure-port", "0",
        ])  # fmt: skip
        threading.Thread(target=self._kubelets, daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        for process in reversed(self.processes):
            process.terminate()
            process.wait(30)

    def client(self) -> Any:
        from kubernetes import config

        return config.new_client_from_config(str(self.kubeconfig))

    def _start(self, folder: Path, words: list[Any]) -> None:
        with (folder / f"{Path(words[0]).name}.log").open("wb") as log:
            self.processes.append(subprocess.Popen([str(word) for word in words], stdout=log, stderr=log))

    def _await_ready(self) -> None:
        from kubernetes.client import CoreV1Api

        for _ in range(300):
            try:
                with self.client() as client:
                    CoreV1Api(client).read_namespace("default", _request_timeout=5)
                return
            except Exception:
                time.sleep(0.2)  # no event tells that another process's server has come up
        raise AssertionError("the API server doesn't answer")

    def _kubelets(self) -> None:
        from kubernetes.client import CoreV1Api
        from kubernetes.watch import Watch

        api = CoreV1Api(self.client())
        ready = {"phase": "Running", "podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]}
        while not self.stopped.is_set():
            try:
                for event in Watch().stream(api.list_namespaced_pod, "default", timeout_seconds=2):
                    pod = event["object"]
                    if pod.metadata.deletion_timestamp and event["type"] != "DELETED":
                        api.delete_namespaced_pod(pod.metadata.name, "default", grace_period_seconds=0)
                    elif event["type"] == "ADDED" and not pod.status.pod_ip:
                        api.patch_namespaced_pod_status(pod.metadata.name, "default", {"status": ready})
            except Exception:
                if self.stopped.wait(0.1):
                    return
