"""Objects in a real store are blobs as the contract wants them: plain, encrypted, and through a key that is not the first."""

from __future__ import annotations

from tests.storage.s3.support import KEYS, S3Case
from twisted_mail.storage import testing
from twisted_mail.storage.interfaces import Blobs


class S3BlobsTests(testing.BlobsContract, S3Case):
    async def build(self) -> Blobs:
        return await self.blobs()


class EncryptedS3BlobsTests(testing.BlobsContract, S3Case):
    async def build(self) -> Blobs:
        return await self.blobs(encryption=f"keys:{','.join(KEYS)}")
