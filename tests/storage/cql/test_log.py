"""The accounts' logs on a real cluster."""

from __future__ import annotations

import pytest

from tests.storage.cql.cluster import ClusterCase
from twisted_mail.storage import testing
from twisted_mail.storage.cql.log import CQLAccountLog
from twisted_mail.storage.interfaces import AccountLog

pytestmark = pytest.mark.cluster


class CQLAccountLogTests(testing.AccountLogContract, ClusterCase):
    async def build(self) -> AccountLog:
        return CQLAccountLog(await self.session())
