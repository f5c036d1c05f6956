"""Domains, accounts, aliases and scripts in CQL.

An address is unique over all data centres: its row in ``address`` is a claim, made by a lightweight transaction that all
data centres agree on (SERIAL). For an alias the claim is the whole record; for an account it names the account's row,
which names the address back. A claim whose account does not exist or has another address (a process died between the two
steps) is worth nothing: nobody is found by it, and after an hour it may be taken over. Who claims must therefore be done
with it within minutes, and refuses to go on if it is not.

Everything but listings and scripts is written by lightweight transactions only, never by plain writes: these two must
not meet on one cell. Reads that nothing is decided on are plain quorum reads of the own data centre; while there is no
quorum, users and aliases that any replica knows are found all the same, so that people can log in and read (a password
that was changed a moment before may then still be the old one).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final
from uuid import UUID, uuid4

from msgspec import json
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_mail.storage.cql.agreement import Agreement
from twisted_mail.storage.cql.statements import Row, Session, Statement, statement
from twisted_mail.storage.interfaces import (
    AccountRecord,
    Alias,
    AlreadyExists,
    Conflict,
    Domain,
    NotFound,
    Refused,
    Unavailable,
)
from twisted_mail.values import AccountId

__all__ = ["CLAIM_GRACE_SECONDS", "CLAIM_SECONDS", "SHARDS", "CQLDirectory"]

SHARDS: Final = 64
"""Partitions of the listing of one domain: a million addresses are some 16,000 rows in each."""
DOMAIN_SHARDS: Final = 16
CLAIM_SECONDS: Final = 300.0
"""Who has claimed an address, or closed a domain, must be done in this time, by its own monotonic clock."""
CLAIM_GRACE_SECONDS: Final = 3600.0
"""A claim that points nowhere may be taken over when it is so old; clocks of nodes may be minutes apart."""
ATTEMPTS: Final = 8
"""How often somebody else's change may come in between."""

_ACCOUNT: Final = "id, version, address, credentials, enabled, quota_bytes, display_name, home, created, active_script"


def _decided(text: str) -> Statement:
    """A lightweight transaction over all data centres."""
    return statement(text, idempotent=False, conditional=True, serial="SERIAL")


DOMAIN = statement("SELECT name, enabled FROM mail_domain WHERE shard = ? AND name = ?", idempotent=True)
DOMAIN_STALE = statement(DOMAIN.text, idempotent=True, consistency="LOCAL_ONE")
DOMAIN_SERIAL = statement(
    "SELECT name, enabled, removing FROM mail_domain WHERE shard = ? AND name = ?",
    idempotent=True,
    consistency="SERIAL",
)
DOMAINS = statement("SELECT name, enabled FROM mail_domain WHERE shard = ?", idempotent=True)
ADD_DOMAIN = _decided("INSERT INTO mail_domain (shard, name, enabled) VALUES (?, ?, ?) IF NOT EXISTS")
SET_DOMAIN = _decided("UPDATE mail_domain SET enabled = ? WHERE shard = ? AND name = ? IF EXISTS")
CLOSE_DOMAIN = _decided("UPDATE mail_domain SET removing = ? WHERE shard = ? AND name = ? IF EXISTS")
REMOVE_DOMAIN = _decided("DELETE FROM mail_domain WHERE shard = ? AND name = ? IF EXISTS")

CLAIMED = statement("SELECT address, ticket, claimed, account, targets FROM address WHERE address = ?", idempotent=True)
CLAIMED_STALE = statement(CLAIMED.text, idempotent=True, consistency="LOCAL_ONE")
CLAIMED_SERIAL = statement(
    "SELECT address, ticket, claimed, account, targets FROM address WHERE address = ?",
    idempotent=True,
    consistency="SERIAL",
)
CLAIM = _decided(
    "INSERT INTO address (address, ticket, claimed, account, targets) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS"
)
TAKE_OVER = _decided(
    "UPDATE address SET ticket = ?, claimed = ?, account = ?, targets = ? WHERE address = ? IF ticket = ?"
)
RELEASE = _decided("DELETE FROM address WHERE address = ? IF ticket = ?")
RETARGET = _decided("UPDATE address SET targets = ?, ticket = ? WHERE address = ? IF ticket = ?")

LIST = statement(
    "INSERT INTO address_by_domain (domain, shard, address, ticket, account) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP 1",
    idempotent=True,
    consistency="QUORUM",
)
UNLIST = statement(
    "DELETE FROM address_by_domain USING TIMESTAMP 2 WHERE domain = ? AND shard = ? AND address = ? AND ticket = ?",
    idempotent=True,
    consistency="QUORUM",
)
LISTED = statement(
    "SELECT address, account FROM address_by_domain WHERE domain = ? AND shard = ?",
    idempotent=True,
    consistency="QUORUM",
)

ACCOUNT = statement(f"SELECT {_ACCOUNT} FROM account WHERE id = ?", idempotent=True)
ACCOUNT_STALE = statement(ACCOUNT.text, idempotent=True, consistency="LOCAL_ONE")
ACCOUNT_SERIAL = statement(f"SELECT {_ACCOUNT} FROM account WHERE id = ?", idempotent=True, consistency="SERIAL")
ADD_ACCOUNT = _decided(
    "INSERT INTO account (id, version, address, credentials, enabled, quota_bytes, display_name, home, created)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS"
)
SET_ACCOUNT = _decided(
    "UPDATE account SET version = ?, address = ?, credentials = ?, enabled = ?, quota_bytes = ?, display_name = ?,"
    " home = ?, created = ? WHERE id = ? IF version = ?"
)
REMOVE_ACCOUNT = _decided("DELETE FROM account WHERE id = ? IF version = ?")
SET_HOME = _decided("UPDATE account SET version = ?, home = ? WHERE id = ? IF version = ?")
SET_ACTIVE = _decided("UPDATE account SET version = ?, active_script = ? WHERE id = ? IF version = ?")

SCRIPT = statement("SELECT body FROM script WHERE account = ? AND name = ?", idempotent=True)
SCRIPTS = statement("SELECT name FROM script WHERE account = ?", idempotent=True)
PUT_SCRIPT = statement("INSERT INTO script (account, name, body) VALUES (?, ?, ?)", idempotent=True)
REMOVE_SCRIPT = statement("DELETE FROM script WHERE account = ? AND name = ?", idempotent=True)
REMOVE_SCRIPTS = statement("DELETE FROM script WHERE account = ?", idempotent=True)


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2]


def _shard(text: str, of: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") % of


def _domain_key(name: str) -> tuple[int, str]:
    return _shard(name, DOMAIN_SHARDS), name


def _uuid(account: AccountId) -> UUID:
    return UUID(bytes=account.octets)


def _from_record(record: AccountRecord) -> list[object]:
    """The columns from ``address`` to ``created``."""
    credentials = json.encode(record.credentials).decode()
    return [
        record.address, credentials, record.enabled, record.quota_bytes, record.display_name, record.home,
        record.created,
    ]  # fmt: skip


def _to_record(row: Row) -> AccountRecord:
    return AccountRecord(
        AccountId(row["id"].bytes),
        row["address"],
        tuple(json.decode(row["credentials"], type=list[str])),
        row["enabled"],
        row["quota_bytes"],
        row["display_name"],
        row["home"],
        row["created"],
    )


def _to_alias(row: Row) -> Alias:
    return Alias(row["address"], tuple(json.decode(row["targets"], type=list[str])))


def _from_alias(alias: Alias) -> str:
    return json.encode(alias.targets).decode()


class CQLDirectory:
    """Implements `Directory`; also `claim_home`."""

    _log = Logger()

    def __init__(
        self,
        session: Session,
        clock: IReactorTime,
        wall: Callable[[], float] = time.time,
        *,
        stale_reads: bool = True,
    ) -> None:
        self._session = session
        self._stale_reads = stale_reads
        self._clock = clock
        self._wall = wall
        self._agreement = Agreement(session, clock)

    # --- domains

    async def add_domain(self, domain: Domain) -> None:
        # a domain that was there with the same setting before an unknown outcome cannot be told from ours: both stand
        key = _domain_key(domain.name)
        try:
            added = await self._session.apply(ADD_DOMAIN, (*key, domain.enabled))
        except Refused:
            raise
        except Unavailable:
            row = await self._agreement.read(DOMAIN_SERIAL, key)
            added = row is not None and row["enabled"] == domain.enabled
            if row is None:
                raise Refused(f"the domain {domain.name} was not added") from None
        if not added:
            raise AlreadyExists(f"the domain {domain.name} exists")

    async def set_domain(self, domain: Domain) -> None:
        if not await self._session.apply(SET_DOMAIN, (domain.enabled, *_domain_key(domain.name))):
            raise NotFound(f"no domain {domain.name}")

    async def remove_domain(self, name: str) -> None:
        """Close it to new claims, look whether there are any, and only then delete it: who claims looks the other way
        round, so one of the two always sees the other."""
        key, begun = _domain_key(name), self._clock.seconds()
        closed = int(self._wall() * 1000)
        if not await self._session.apply(CLOSE_DOMAIN, (closed, *key)):
            raise NotFound(f"no domain {name}")
        if await self._claims(name):
            await self._session.apply(CLOSE_DOMAIN, (None, *key))
            raise Conflict(f"accounts or aliases of {name} are left")
        if self._clock.seconds() - begun > CLAIM_SECONDS:
            raise Refused(f"looking through {name} has taken too long")
        await self._session.apply(REMOVE_DOMAIN, key)

    async def domain(self, name: str) -> Domain | None:
        rows, _ = await self._look(DOMAIN, DOMAIN_STALE, _domain_key(name))
        return Domain(rows[0]["name"], rows[0]["enabled"]) if rows else None

    async def domains(self) -> Sequence[Domain]:
        answers = await self._session.execute_many(DOMAINS, [(shard,) for shard in range(DOMAIN_SHARDS)])
        found = [Domain(row["name"], row["enabled"]) for rows in answers for row in rows]
        return sorted(found, key=lambda domain: domain.name)

    async def _need_domain(self, name: str) -> None:
        """Before anything is written."""
        if await self.domain(name) is None:
            raise NotFound(f"no domain {name}")

    async def _need_open_domain(self, name: str) -> None:
        """After the claim was written: nobody is removing the domain (or began an hour ago, and is gone)."""
        row = await self._agreement.read(DOMAIN_SERIAL, _domain_key(name))
        if row is None or row["enabled"] is None:
            raise NotFound(f"no domain {name}")
        closed = row["removing"]
        if closed is not None and self._wall() * 1000 - closed < CLAIM_GRACE_SECONDS * 1000:
            raise NotFound(f"the domain {name} is being removed")

    async def _claims(self, domain: str) -> bool:
        """Whether any address of *domain* is claimed."""
        for rows in await self._listed(domain):
            addresses = [(row["address"],) for row in rows]
            if any(await self._session.execute_many(CLAIMED_SERIAL, addresses)):
                return True
        return False

    async def _listed(self, domain: str) -> Sequence[Sequence[Row]]:
        return await self._session.execute_many(LISTED, [(domain, shard) for shard in range(SHARDS)])

    # --- claims

    async def _claim(self, address: str, account: UUID | None, targets: str | None) -> UUID:
        """Make *address* that account's or that alias's; the claim's token. Raises: AlreadyExists, NotFound (the domain)."""
        domain, token = _domain_of(address), uuid4()
        await self._need_domain(domain)
        place = (domain, _shard(address, SHARDS), address, token)
        now = int(self._wall() * 1000)
        # in the listing first: a claim that is not listed would be invisible to whoever removes the domain
        await self._session.execute(LIST, (*place, account))
        try:
            await self._agree_on(address, token, now, account, targets)
        except AlreadyExists:
            await self._session.execute(UNLIST, place)
            raise
        try:
            await self._need_open_domain(domain)
        except NotFound:
            await self._release(address, token)
            raise
        return token

    async def _agree_on(self, address: str, token: UUID, now: int, account: UUID | None, targets: str | None) -> None:
        def ours(row: Row | None) -> bool:
            return row is not None and row["ticket"] == token

        stale: Row | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            proposal, parameters = CLAIM, [address, token, now, account, targets]
            if stale is not None:
                proposal, parameters = TAKE_OVER, [token, now, account, targets, address, stale["ticket"]]
            done, row = await self._agreement.propose(proposal, parameters, CLAIMED_SERIAL, (address,), ours)
            if done:
                if stale is not None:
                    place = (_domain_of(address), _shard(address, SHARDS), address, stale["ticket"])
                    await self._session.execute(UNLIST, place)
                return
            if row is not None and not await self._worthless(row):
                raise AlreadyExists(f"{address} is taken")
            stale = row
        raise Unavailable(f"too many want {address} at once")

    async def _worthless(self, row: Row) -> bool:
        """Whether the claim *row* was left behind by somebody who died."""
        if row["account"] is None or self._wall() * 1000 - row["claimed"] < CLAIM_GRACE_SECONDS * 1000:
            return False
        account = await self._agreement.read(ACCOUNT_SERIAL, (row["account"],))
        return account is None or account["address"] != row["address"]

    async def _release(self, address: str, token: UUID) -> None:
        """Give a claim back, if it is still that one."""

        def gone(row: Row | None) -> bool:
            return row is None or row["ticket"] != token

        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            done, _ = await self._agreement.propose(RELEASE, (address, token), CLAIMED_SERIAL, (address,), gone)
            if done:
                break
        else:
            raise Unavailable(f"the claim of {address} could not be given back")
        await self._session.execute(UNLIST, (_domain_of(address), _shard(address, SHARDS), address, token))

    async def _give_back(self, address: str, token: UUID) -> None:
        """`_release` after a failure that matters more than its own."""
        try:
            await self._release(address, token)
        except Unavailable:
            self._log.failure("the claim of {address} stays until it is an hour old", address=address)

    async def _release_of(self, address: str, account: UUID) -> None:
        """Give back the claim by which *account* has *address*, if it has one."""
        row = await self._agreement.read(CLAIMED_SERIAL, (address,))
        if row is not None and row["account"] == account:
            await self._release(address, row["ticket"])

    def _in_time(self, begun: float) -> None:
        if self._clock.seconds() - begun > CLAIM_SECONDS:
            raise Refused("claiming the address has taken too long")

    # --- accounts

    async def add_account(self, record: AccountRecord) -> None:
        id, begun = _uuid(record.id), self._clock.seconds()
        token = await self._claim(record.address, id, None)
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            try:
                self._in_time(begun)
                done, row = await self._agreement.propose(
                    ADD_ACCOUNT, (id, token, *_from_record(record)), ACCOUNT_SERIAL, (id,), _has_version(token)
                )
            except Refused:
                await self._give_back(record.address, token)
                raise
            if done:
                return
            if row is not None:
                await self._release(record.address, token)
                raise AlreadyExists(f"an account with the id {record.id} exists")
        await self._give_back(record.address, token)
        raise Refused(f"the account {record.id} could not be added")

    async def set_account(self, record: AccountRecord) -> None:
        id = _uuid(record.id)
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            old = await self._need_account(record.id)
            begun, claim = self._clock.seconds(), None
            if old["address"] != record.address:
                claim = await self._claim(record.address, id, None)
                self._in_time(begun)
            version = uuid4()
            try:
                done, _ = await self._agreement.propose(
                    SET_ACCOUNT,
                    (version, *_from_record(record), id, old["version"]),
                    ACCOUNT_SERIAL,
                    (id,),
                    _has_version(version),
                )
            except Refused:
                if claim is not None:
                    await self._give_back(record.address, claim)
                raise
            if done:
                if claim is not None:
                    await self._release_of(old["address"], id)
                return
            if claim is not None:
                await self._release(record.address, claim)
        raise Unavailable(f"too many change the account {record.id} at once")

    async def remove_account(self, account: AccountId) -> None:
        id = _uuid(account)
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            old = await self._need_account(account)
            version = old["version"]
            done, _ = await self._agreement.propose(
                REMOVE_ACCOUNT, (id, version), ACCOUNT_SERIAL, (id,), lambda row: row is None
            )
            if done:
                await self._session.execute(REMOVE_SCRIPTS, (id,))
                await self._release_of(old["address"], id)
                return
        raise Unavailable(f"too many change the account {account} at once")

    async def claim_home(self, account: AccountId, home: str) -> str:
        """Make *home* the home data centre of an account that has none; the one that stands. Raises: NotFound."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            old = await self._need_account(account)
            if old["home"]:
                return str(old["home"])
            await self._change(SET_HOME, home, account, old["version"])
        raise Unavailable(f"too many change the account {account} at once")

    async def _change(self, proposal: Statement, value: str | None, account: AccountId, version: UUID) -> bool:
        """Change one column of the record, if it still has *version*."""
        id, token = _uuid(account), uuid4()
        done, _ = await self._agreement.propose(
            proposal, (token, value, id, version), ACCOUNT_SERIAL, (id,), _has_version(token)
        )
        return done

    async def _look(self, wanted: Statement, stale: Statement, key: Sequence[UUID | str | int]) -> tuple[Sequence[Row], bool]:
        """The answer of a quorum; without one, what any replica has, and True. That one has nothing proves nothing: a
        user may be newer than that. Raises: Unavailable."""
        try:
            return await self._session.execute(wanted, key), False
        except Unavailable:
            if not self._stale_reads or not (rows := await self._session.execute(stale, key)):
                raise
            return rows, True

    async def account(self, account: AccountId) -> AccountRecord | None:
        rows, _ = await self._look(ACCOUNT, ACCOUNT_STALE, (_uuid(account),))
        return _to_record(rows[0]) if rows else None

    async def account_by_address(self, address: str) -> AccountRecord | None:
        claims, stale = await self._look(CLAIMED, CLAIMED_STALE, (address,))
        if not claims or (id := claims[0]["account"]) is None:
            return None
        rows, also_stale = await self._look(ACCOUNT, ACCOUNT_STALE, (id,))
        # an account that does not name the address back has lost it, or is only about to get it
        if rows and rows[0]["address"] == address:
            return _to_record(rows[0])
        if stale or also_stale:
            raise Unavailable("without a quorum it cannot be said whose the address is")
        return None

    async def accounts(self, domain: str | None = None) -> Sequence[AccountRecord]:
        found: dict[str, AccountRecord] = {}
        for name in await self._names(domain):
            for rows in await self._listed(name):
                wanted = [(row["address"], row["account"]) for row in rows if row["account"] is not None]
                answers = await self._session.execute_many(ACCOUNT, [(id,) for _, id in wanted])
                for (address, _), answer in zip(wanted, answers, strict=True):
                    if answer and answer[0]["address"] == address:
                        found[address] = _to_record(answer[0])
        return [found[address] for address in sorted(found)]

    async def _names(self, domain: str | None) -> Sequence[str]:
        return [domain] if domain is not None else [one.name for one in await self.domains()]

    async def _need_account(self, account: AccountId) -> Row:
        row = await self._agreement.read(ACCOUNT_SERIAL, (_uuid(account),))
        if row is None:
            raise NotFound(f"no account {account}")
        return row

    # --- aliases

    async def add_alias(self, alias: Alias) -> None:
        await self._claim(alias.address, None, _from_alias(alias))

    async def set_alias(self, alias: Alias) -> None:
        """The claim gets a new token, and with it a place of its own in the listing."""
        address, domain = alias.address, _domain_of(alias.address)
        shard = _shard(address, SHARDS)
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            old, token = (await self._need_alias(address))["ticket"], uuid4()
            await self._session.execute(LIST, (domain, shard, address, token, None))
            done, _ = await self._agreement.propose(
                RETARGET, (_from_alias(alias), token, address, old), CLAIMED_SERIAL, (address,), _has_token(token)
            )
            await self._session.execute(UNLIST, (domain, shard, address, old if done else token))
            if done:
                return
        raise Unavailable(f"too many change {address} at once")

    async def remove_alias(self, address: str) -> None:
        await self._release(address, (await self._need_alias(address))["ticket"])

    async def alias(self, address: str) -> Alias | None:
        rows, _ = await self._look(CLAIMED, CLAIMED_STALE, (address,))
        return _to_alias(rows[0]) if rows and rows[0]["targets"] is not None else None

    async def aliases(self, domain: str | None = None) -> Sequence[Alias]:
        found: dict[str, Alias] = {}
        for name in await self._names(domain):
            for rows in await self._listed(name):
                wanted = [(row["address"],) for row in rows if row["account"] is None]
                for answer in await self._session.execute_many(CLAIMED, wanted):
                    if answer and answer[0]["targets"] is not None:
                        found[answer[0]["address"]] = _to_alias(answer[0])
        return [found[address] for address in sorted(found)]

    async def _need_alias(self, address: str) -> Row:
        row = await self._agreement.read(CLAIMED_SERIAL, (address,))
        if row is None or row["targets"] is None:
            raise NotFound(f"no alias {address}")
        return row

    # --- Sieve scripts

    async def put_script(self, account: AccountId, name: str, script: str) -> None:
        if await self.account(account) is None:
            raise NotFound(f"no account {account}")
        await self._session.execute(PUT_SCRIPT, (_uuid(account), name, script))

    async def script(self, account: AccountId, name: str) -> str | None:
        rows = await self._session.execute(SCRIPT, (_uuid(account), name))
        return str(rows[0]["body"]) if rows else None

    async def scripts(self, account: AccountId) -> Mapping[str, bool]:
        names = sorted(row["name"] for row in await self._session.execute(SCRIPTS, (_uuid(account),)))
        if not names:
            return {}
        rows = await self._session.execute(ACCOUNT, (_uuid(account),))
        active = rows[0]["active_script"] if rows else None
        return {name: name == active for name in names}

    async def activate_script(self, account: AccountId, name: str | None) -> None:
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            old = await self._need_account(account)
            if name is not None and await self.script(account, name) is None:
                raise NotFound(f"no script {name}")
            if old["active_script"] == name or await self._change(SET_ACTIVE, name, account, old["version"]):
                return
        raise Unavailable(f"too many change the account {account} at once")

    async def rename_script(self, account: AccountId, name: str, new: str) -> None:
        """A copy first, then the active one's name, then the old one goes: at every moment the active script is there."""
        text = await self.script(account, name)
        if text is None:
            raise NotFound(f"no script {name}")
        if await self.script(account, new) is not None:
            raise AlreadyExists(f"a script {new} exists")
        await self._session.execute(PUT_SCRIPT, (_uuid(account), new, text))
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._agreement.pause(attempt)
            old = await self._need_account(account)
            if old["active_script"] != name or await self._change(SET_ACTIVE, new, account, old["version"]):
                break
        else:
            raise Unavailable(f"too many change the account {account} at once")
        await self._session.execute(REMOVE_SCRIPT, (_uuid(account), name))

    async def remove_script(self, account: AccountId, name: str) -> None:
        """One that is made active at this very moment may go all the same; then none is active."""
        if await self.script(account, name) is None:
            raise NotFound(f"no script {name}")
        row = await self._agreement.read(ACCOUNT_SERIAL, (_uuid(account),))
        if row is not None and row["active_script"] == name:
            raise Conflict(f"the script {name} is active")
        await self._session.execute(REMOVE_SCRIPT, (_uuid(account), name))


def _has_version(version: UUID) -> Callable[[Row | None], bool]:
    return lambda row: row is not None and row["version"] == version


def _has_token(token: UUID) -> Callable[[Row | None], bool]:
    return lambda row: row is not None and row["ticket"] == token
