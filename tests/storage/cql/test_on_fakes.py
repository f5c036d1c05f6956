"""The suites on a keyspace in memory, with the answers of either server."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.storage.cql.fakes import FakeSession
from twisted_mail.storage import testing
from twisted_mail.storage.cql.log import CQLAccountLog
from twisted_mail.storage.cql.messages import CQLMessages
from twisted_mail.storage.interfaces import AccountLog, Messages


class ScyllaFormLogTests(testing.AccountLogContract, TestCase):
    async def build(self) -> AccountLog:
        return CQLAccountLog(FakeSession("scylla"))


class CassandraFormLogTests(testing.AccountLogContract, TestCase):
    async def build(self) -> AccountLog:
        return CQLAccountLog(FakeSession("cassandra"))


class FakeMessagesTests(testing.MessagesContract, TestCase):
    async def build(self) -> Messages:
        return CQLMessages(FakeSession())
