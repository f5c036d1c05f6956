"""Whom users teach by moving mail into Junk and out of it, as the configuration says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from twisted_mail.account.service import AccountService
from twisted_mail.delivery.lessons import Lessons
from twisted_mail.filters.teaching import RspamdTeacher, SpamAssassinTeacher, Teacher
from twisted_mail.filters.wires import Place, dial
from twisted_mail.storage import Backend
from twisted_mail.tap.filtering import FilterSettings
from twisted_mail.tap.status import Metric

__all__ = ["lesson_metrics", "teaching"]


def teaching(
    settings: FilterSettings, reactor: Any, backend: Backend, accounts: AccountService, learner: Teacher | None
) -> Lessons | None:
    """What notices and teaches; None: there is nobody to teach. *learner*: our own."""
    if not settings.enabled:
        return None
    call = dial(reactor)
    daemons: list[Teacher] = []
    spamassassin, rspamd = settings.spamassassin, settings.rspamd
    if spamassassin.address and spamassassin.learning:
        daemons.append(
            SpamAssassinTeacher(
                Place.parse(spamassassin.address), call, per_user=spamassassin.per_user, seconds=spamassassin.timeout
            )
        )
    if rspamd.controller:
        daemons.append(RspamdTeacher(rspamd.controller, call, password=rspamd.password, seconds=rspamd.timeout))
    learners = [learner] if learner is not None else []
    if not daemons and not learners:
        return None
    lessons = Lessons(
        backend.records, accounts, backend.directory, reactor, time.time, daemons=daemons, learners=learners
    )
    accounts.notice = lessons.notice
    return lessons


def lesson_metrics(lessons: Lessons) -> Sequence[Metric]:
    """What was taught."""
    numbers = (
        ("lessons_total", "Messages that users' moves have taught.", lessons.taught),
        (
            "lessons_dropped_total",
            "Lessons about messages that were gone, and those that there was no room for.",
            lessons.dropped,
        ),
        ("lessons_put_off_total", "Times that a daemon could not be taught, so that lessons wait.", lessons.failures),
    )
    return [Metric(name, "counter", doc, [({}, number)]) for name, doc, number in numbers]
