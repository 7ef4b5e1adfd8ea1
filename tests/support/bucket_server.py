"""An S3 server of moto's on the loopback, in a process of its own; see range_server for why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BUCKET = "maps"
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIK7MD"

_CODE = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
time.sleep(600)
"""


class BucketServer:
    """A server with one bucket."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.endpoint = f"127.0.0.1:{port}"
        self.process = process
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def client(self) -> Any:
        """boto3's: another reader than ours."""
        boto3 = pytest.importorskip("boto3")
        return boto3.client(
            "s3",
            endpoint_url=f"http://{self.endpoint}",
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def put(self, name: str, content: bytes | Path) -> None:
        """Make an object."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket=BUCKET, Key=name, Body=body)

    def get(self, name: str) -> bytes:
        """Of an object."""
        body: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return body

    def names(self, prefix: str = "") -> set[str]:
        """Of the objects under a prefix; those that stand for folders are left out."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {entry["Key"] for entry in found if not entry["Key"].endswith("/")}

    def address(self, name: str) -> str:
        """An address that says all that is needed, secrets included."""
        return f"s3://{KEY}:{SECRET}@{BUCKET}/{name}?endpoint_override={self.endpoint}&scheme=http"

    @property
    def environment(self) -> dict[str, str]:
        """In GDAL's words."""
        return {
            "AWS_S3_ENDPOINT": self.endpoint,
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def bucket_server() -> Iterator[BucketServer]:
    """Run one while the block runs."""
    pytest.importorskip("moto.server")
    environment = os.environ | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _CODE],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            ports = (line.split()[1] for line in process.stdout if line.startswith("port "))
            yield BucketServer(int(next(ports)), process)
        finally:
            process.kill()
