"""Whom users teach by moving mail into Junk and out of it, as the configuration says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from twisted_mail.account.service import AccountService
from twisted_mail.delivery.lessons import Lessons
from twisted_mail.filters.judged_by import JudgedBy
from twisted_mail.filters.teaching import RspamdTeacher, SpamAssassinTeacher, Teacher
from twisted_mail.filters.wires import Place, dial
from twisted_mail.relay.secrets import shared_secret
from twisted_mail.storage import Backend
from twisted_mail.tap.filtering import FilterSettings
from twisted_mail.tap.status import Metric

__all__ = ["judged_by", "lesson_metrics", "teaching"]


def judged_by(settings: FilterSettings, backend: Backend) -> JudgedBy | None:
    """What writes into mail which daemons judged it, and reads it again; None: no daemon is taught."""
    spamassassin, rspamd = settings.spamassassin, settings.rspamd
    if not settings.enabled or not ((spamassassin.address and spamassassin.learning) or rspamd.controller):
        return None
    engines = {"spamassassin": spamassassin.address, "rspamd": rspamd.url}
    return JudgedBy(
        frozenset(name for name, place in engines.items() if place),
        lambda: shared_secret(backend.records, backend.leases, "judged-by"),
    )


def teaching(
    settings: FilterSettings,
    reactor: Any,
    backend: Backend,
    accounts: AccountService,
    learner: Teacher | None,
    judges: JudgedBy | None,
) -> Lessons | None:
    """What notices and teaches; None: there is nobody to teach. *learner*: our own. *judges*: see `judged_by`."""
    if not settings.enabled:
        return None
    call = dial(reactor)
    engines: dict[str, Teacher] = {}
    others: list[Teacher] = []
    spamassassin, rspamd = settings.spamassassin, settings.rspamd
    if spamassassin.address and spamassassin.learning:
        engines["spamassassin"] = SpamAssassinTeacher(
            Place.parse(spamassassin.address), call, per_user=spamassassin.per_user, seconds=spamassassin.timeout
        )
    if rspamd.controller:
        teacher = RspamdTeacher(rspamd.controller, call, password=rspamd.password, seconds=rspamd.timeout)
        if rspamd.url:
            engines["rspamd"] = teacher
        else:
            others.append(teacher)  # it judges as a milter, and what it gives there is not told apart
    learners = [learner] if learner is not None else []
    if not engines and not others and not learners:
        return None
    lessons = Lessons(
        backend.records,
        accounts,
        backend.directory,
        reactor,
        time.time,
        daemons=others,
        learners=learners,
        engines=engines,
        judged_by=judges,
        keywords=settings.keywords_teach,
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
