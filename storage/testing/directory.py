"""The suite of `Directory`."""

from __future__ import annotations

from dataclasses import replace

from twisted_mail.storage.interfaces import AccountRecord, Alias, AlreadyExists, Conflict, Directory, Domain, NotFound
from twisted_mail.storage.testing.base import Suite, fails, together
from twisted_mail.values import AccountId

__all__ = ["DirectoryContract"]


class DirectoryContract(Suite):
    """An engine is a `Directory` if it passes."""

    async def build(self) -> Directory:
        """A started, empty store; clean up by `addCleanup`."""
        raise NotImplementedError

    async def _with_domain(self) -> Directory:
        directory = await self.build()
        await directory.add_domain(Domain("example.org"))
        return directory

    def _account(self, address: str = "ann@example.org") -> AccountRecord:
        return AccountRecord(
            AccountId.new(), address, ("argon2$…", "scram$…"), True, 5_000_000_000, "Ann Å.", "dc2", 1_700_000_000
        )

    async def test_domains_are_added_changed_listed_and_removed(self) -> None:
        directory = await self.build()
        self.assertEqual(list(await directory.domains()), [])
        for name in ("example.org", "xn--bcher-kva.example", "a.example"):
            await directory.add_domain(Domain(name))
        self.assertEqual(
            [domain.name for domain in await directory.domains()], ["a.example", "example.org", "xn--bcher-kva.example"]
        )
        await directory.set_domain(Domain("a.example", enabled=False))
        self.assertEqual(await directory.domain("a.example"), Domain("a.example", enabled=False))
        self.assertIsNone(await directory.domain("b.example"))
        await directory.remove_domain("a.example")
        self.assertIsNone(await directory.domain("a.example"))

    async def test_a_domain_is_there_once_and_must_be_there_to_be_changed(self) -> None:
        directory = await self._with_domain()
        await fails(AlreadyExists, directory.add_domain(Domain("example.org", enabled=False)))
        self.assertEqual(await directory.domain("example.org"), Domain("example.org"))
        await fails(NotFound, directory.set_domain(Domain("b.example")))
        await fails(NotFound, directory.remove_domain("b.example"))

    async def test_a_domain_with_accounts_or_aliases_stays(self) -> None:
        directory = await self._with_domain()
        record = self._account()
        await directory.add_account(record)
        await fails(Conflict, directory.remove_domain("example.org"))
        await directory.remove_account(record.id)
        await directory.add_alias(Alias("@example.org", ("ann@b.example",)))
        await fails(Conflict, directory.remove_domain("example.org"))
        await directory.remove_alias("@example.org")
        await directory.remove_domain("example.org")

    async def test_an_account_is_found_by_id_and_by_address_with_all_that_was_stored(self) -> None:
        directory = await self._with_domain()
        full, plain = self._account(), AccountRecord(AccountId.new(), "Zoë@example.org".casefold())
        for record in (full, plain):
            await directory.add_account(record)
            self.assertEqual(await directory.account(record.id), record)
            self.assertEqual(await directory.account_by_address(record.address), record)
        self.assertIsNone(await directory.account(AccountId.new()))
        self.assertIsNone(await directory.account_by_address("bob@example.org"))
        self.assertIsNone(await directory.account_by_address("ANN@example.org"))

    async def test_accounts_are_listed_by_address_all_or_of_one_domain(self) -> None:
        directory = await self._with_domain()
        await directory.add_domain(Domain("sub.example.org"))
        for address in ("c@example.org", "b@sub.example.org", "a@example.org"):
            await directory.add_account(self._account(address))
            await directory.add_alias(Alias(f"x{address}", (address,)))
        self.assertEqual(
            [r.address for r in await directory.accounts()], ["a@example.org", "b@sub.example.org", "c@example.org"]
        )
        self.assertEqual(
            [r.address for r in await directory.accounts("example.org")], ["a@example.org", "c@example.org"]
        )
        self.assertEqual([a.address for a in await directory.aliases("sub.example.org")], ["xb@sub.example.org"])
        self.assertEqual(len(await directory.aliases()), 3)
        self.assertEqual(list(await directory.accounts("b.example")), [])

    async def test_an_address_belongs_to_one_account_or_one_alias(self) -> None:
        directory = await self._with_domain()
        ann, bob = self._account(), self._account("bob@example.org")
        await directory.add_account(ann)
        await directory.add_account(bob)
        await directory.add_alias(Alias("info@example.org", ("ann@example.org",)))
        await fails(AlreadyExists, directory.add_account(self._account()))
        await fails(AlreadyExists, directory.add_account(replace(ann, address="ann2@example.org")))
        await fails(AlreadyExists, directory.add_account(self._account("info@example.org")))
        await fails(AlreadyExists, directory.add_alias(Alias("bob@example.org", ())))
        await fails(AlreadyExists, directory.add_alias(Alias("info@example.org", ())))
        await fails(AlreadyExists, directory.set_account(replace(bob, address="ann@example.org")))
        await fails(AlreadyExists, directory.set_account(replace(bob, address="info@example.org")))
        self.assertEqual(await directory.account(bob.id), bob)

    async def test_of_many_that_want_one_address_one_gets_it(self) -> None:
        directory = await self._with_domain()
        outcomes = await together(*(directory.add_account(self._account()) for _ in range(8)))
        self.assertEqual(sum(outcome is None for outcome in outcomes), 1)
        self.assertEqual(sum(isinstance(outcome, AlreadyExists) for outcome in outcomes), 7)

    async def test_an_address_needs_its_domain(self) -> None:
        directory = await self._with_domain()
        record = self._account()
        await directory.add_account(record)
        await fails(NotFound, directory.add_account(self._account("ann@b.example")))
        await fails(NotFound, directory.add_alias(Alias("@b.example", ("ann@example.org",))))
        await fails(NotFound, directory.set_account(replace(record, address="ann@b.example")))

    async def test_a_changed_account_is_found_by_its_new_address_only(self) -> None:
        directory = await self._with_domain()
        record = self._account()
        await directory.add_account(record)
        changed = replace(record, address="anna@example.org", enabled=False, quota_bytes=None, credentials=())
        await directory.set_account(changed)
        self.assertEqual(await directory.account(record.id), changed)
        self.assertEqual(await directory.account_by_address("anna@example.org"), changed)
        self.assertIsNone(await directory.account_by_address("ann@example.org"))
        await directory.set_account(changed)
        await directory.add_account(self._account())
        await fails(NotFound, directory.set_account(self._account("new@example.org")))

    async def test_a_removed_account_takes_its_scripts_along_and_leaves_aliases(self) -> None:
        directory = await self._with_domain()
        record = self._account()
        await directory.add_account(record)
        await directory.put_script(record.id, "main", "keep;")
        await directory.activate_script(record.id, "main")
        alias = Alias("info@example.org", ("ann@example.org",))
        await directory.add_alias(alias)
        await directory.remove_account(record.id)
        self.assertIsNone(await directory.account_by_address("ann@example.org"))
        self.assertEqual(dict(await directory.scripts(record.id)), {})
        self.assertEqual(await directory.alias("info@example.org"), alias)
        await fails(NotFound, directory.remove_account(record.id))
        await directory.add_account(record)
        self.assertEqual(dict(await directory.scripts(record.id)), {})

    async def test_aliases_are_changed_and_removed(self) -> None:
        directory = await self._with_domain()
        await directory.add_alias(Alias("all@example.org", ("a@example.org",)))
        changed = Alias("all@example.org", ("b@example.org", "Zoë@b.example"))
        await directory.set_alias(changed)
        self.assertEqual(await directory.alias("all@example.org"), changed)
        await directory.remove_alias("all@example.org")
        self.assertIsNone(await directory.alias("all@example.org"))
        await fails(NotFound, directory.remove_alias("all@example.org"))
        await fails(NotFound, directory.set_alias(changed))

    async def test_a_renamed_script_is_the_same_and_as_active_as_before(self) -> None:
        directory = await self._with_domain()
        record = self._account()
        await directory.add_account(record)
        for name in ("a", "b"):
            await directory.put_script(record.id, name, f"# {name}\r\nkeep;")
        await directory.activate_script(record.id, "a")
        await directory.rename_script(record.id, "a", "Ä 2")
        self.assertEqual(dict(await directory.scripts(record.id)), {"b": False, "Ä 2": True})
        self.assertEqual(await directory.script(record.id, "Ä 2"), "# a\r\nkeep;")
        self.assertIsNone(await directory.script(record.id, "a"))
        await directory.rename_script(record.id, "b", "a")
        self.assertEqual(dict(await directory.scripts(record.id)), {"a": False, "Ä 2": True})
        await fails(AlreadyExists, directory.rename_script(record.id, "a", "Ä 2"))
        await fails(AlreadyExists, directory.rename_script(record.id, "a", "a"))
        await fails(NotFound, directory.rename_script(record.id, "c", "d"))
        await fails(NotFound, directory.rename_script(record.id, "c", "a"))
        await fails(NotFound, directory.rename_script(AccountId.new(), "a", "b"))
        self.assertEqual(dict(await directory.scripts(record.id)), {"a": False, "Ä 2": True})

    async def test_one_script_of_an_account_is_active_at_most(self) -> None:
        directory = await self._with_domain()
        record = self._account()
        await directory.add_account(record)
        for name in ("b", "a", "Ä"):
            await directory.put_script(record.id, name, f"# {name}\r\nkeep;")
        self.assertEqual(dict(await directory.scripts(record.id)), {"a": False, "b": False, "Ä": False})
        await directory.activate_script(record.id, "a")
        await directory.activate_script(record.id, "b")
        await directory.put_script(record.id, "b", "discard;")
        self.assertEqual(dict(await directory.scripts(record.id)), {"a": False, "b": True, "Ä": False})
        self.assertEqual(await directory.script(record.id, "b"), "discard;")
        self.assertIsNone(await directory.script(record.id, "c"))
        await fails(Conflict, directory.remove_script(record.id, "b"))
        await fails(NotFound, directory.activate_script(record.id, "c"))
        await directory.activate_script(record.id, None)
        self.assertFalse(any((await directory.scripts(record.id)).values()))
        await directory.remove_script(record.id, "b")
        await fails(NotFound, directory.remove_script(record.id, "b"))
        await fails(NotFound, directory.put_script(AccountId.new(), "a", "keep;"))
        await fails(NotFound, directory.activate_script(AccountId.new(), None))
