"""VersityGW: S3 over a local folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.services import fetch
from tests.services.processes import Killable, Process, free_port

__all__ = ["VersityGateway"]

KEY, SECRET = "key", "secretsecret"


class VersityGateway(Killable):
    """One gateway. Buckets are folders; the engine makes the one it wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "objects").mkdir(parents=True, exist_ok=True)
        program = str(fetch.go_program("versitygw"))
        words = [program, "--port", f"127.0.0.1:{self.port}", "--quiet", "--keep-alive", "posix", str(folder / "objects")]
        environment = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
        self.process = Process("versitygw", words, folder, environment)

    def start(self) -> None:
        """Raises NotReady."""
        self.process.start()
        self.process.wait("127.0.0.1", self.port, 30.0)

    def url(self, bucket: str, **options: str) -> str:
        """For ``storage.blobs``."""
        wanted = {"tls": "false", **options}
        query = "&".join(f"{key}={value}" for key, value in wanted.items())
        return f"s3://{KEY}:{SECRET}@127.0.0.1:{self.port}/{bucket}?{query}"

    def stop(self) -> None:
        self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
