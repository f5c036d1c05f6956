"""What a user has taught goes with the user."""

from __future__ import annotations

from pathlib import Path

from tests.admin.calling import Mailctl
from twisted_mail.admin.opening import Store
from twisted_mail.filters.bayes import Bayes


def test_words_that_a_user_taught_are_deleted_with_it(tmp_path: Path) -> None:
    ctl = Mailctl(tmp_path).with_user()
    users: list[str] = []

    async def teach(store: Store) -> None:
        (record,) = await store.directory.accounts()
        users.append(str(record.id))
        await Bayes(store.backend.records, lambda: 0.0).learn(b"Subject: x\r\n\r\nwords\r\n", spam=True, user=users[0])

    async def learned(store: Store) -> tuple[int, int]:
        return await Bayes(store.backend.records, lambda: 0.0).learned(users[0])

    ctl.inside(teach)
    assert ctl.inside(learned) == (1, 0)
    ctl.good("user", "delete", "ann@example.org", "--yes")
    assert ctl.inside(learned) == (0, 0)
