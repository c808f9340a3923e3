"""Real servers for tests, on free ports of this machine alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WEED = Path(sys.executable).with_name("weed")
ACCESS_KEY, SECRET_KEY = "gansweeptestaccess", "gansweep-test-secret-0123456789"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class S3Server:
    """A seaweedfs server that keeps its data, and its ports, over restarts; its folder is enough to use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        names = ("master", "volume", "filer", "s3")
        (folder / "data").mkdir(parents=True, exist_ok=True)
        if (kept := folder / "ports.json").exists():
            ports = json.loads(kept.read_text())
        else:
            ports = free_ports(2 * len(names))
            kept.write_text(json.dumps(ports))
        self._flags = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
        self._flags += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=False)]
        self.endpoint = f"http://127.0.0.1:{ports[3]}"
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be let in, and to look for credentials nowhere else."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start(self, timeout: float = 240) -> int:
        """Starts the server and waits until it takes objects; returns the number of its process."""
        command = [str(WEED), "server", f"-dir={self._folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0", "-filer", "-s3"]
        command += [f"-s3.config={self._folder / 's3.json'}", "-s3.iam=false", "-s3.autoCreateBucket=false"]
        command += ["-volume.preStopSeconds=0", "-s3.port.iceberg=0", "-s3.port.lance=0", *self._flags]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder, start_new_session=True
            )
        end = time.monotonic() + timeout
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "the S3 server did not start"
            time.sleep(0.1)
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends the server; what it was sent before is kept."""
        if self._process is not None:
            os.killpg(self._process.pid, how)
            self._process.wait(30)
            self._process = None

    def client(self) -> Any:
        """A client of boto3 that is let in, whatever the environment says."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def bucket(self, name: str) -> str:
        """Makes a bucket."""
        self.client().create_bucket(Bucket=name)
        return name

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2):
                pass
            client = self.client()
            if "probe" not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket="probe")
            # The volumes are ready after the rest.
            client.put_object(Bucket="probe", Key="probe", Body=b"x")
        except (OSError, BotoCoreError, ClientError):  # on its way up
            return False
        return True
