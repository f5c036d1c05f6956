"""What an account has taught about mail, added to what filters found: the same message may be junk for one and not for another."""

from __future__ import annotations

import msgspec
from twisted.logger import Logger

from twisted_mail.delivery.judgement import Judgement
from twisted_mail.filters.bayes import Bayes
from twisted_mail.filters.values import Action, FilterDown
from twisted_mail.filters.words import TEXT_OCTETS, words_in
from twisted_mail.services import PreparedMessage
from twisted_mail.storage.interfaces import StorageError
from twisted_mail.values import AccountId

__all__ = ["Learned"]


class Learned:
    """Adds points of the accounts' own learner."""

    _log = Logger()

    def __init__(self, bayes: Bayes, junk_score: float) -> None:
        """*junk_score*: points at and above which mail is junk."""
        self._bayes = bayes
        self._junk_score = junk_score

    async def weigh(self, account: AccountId, judgement: Judgement, prepared: PreparedMessage) -> Judgement:
        """*judgement* as it is for *account*. Never raises: a delivery does not wait for that."""
        if judgement.login or judgement.action > Action.JUNK:
            return judgement
        if judgement.action is Action.JUNK and not judgement.by_score:
            return judgement
        try:
            if not await self._bayes.knows(str(account)):
                return judgement
            octets = b"".join([chunk async for chunk in prepared.octets(0, TEXT_OCTETS)])
            points = await self._bayes.points(str(account), words_in(octets, prepared.root))
        except (FilterDown, StorageError) as error:
            self._log.warn("what {account} has taught is out of reach: {why}", account=account, why=str(error))
            return judgement
        if not points:
            return judgement
        score = judgement.score + points
        junk = score >= self._junk_score
        before = Action.ACCEPT if judgement.action is Action.JUNK else judgement.action
        what = "spam" if points > 0 else "wanted mail"
        return msgspec.structs.replace(
            judgement,
            score=score,
            action=Action.JUNK if junk else before,
            by_score=junk,
            percent=min(max(round(score / self._junk_score * 50), 0), 100),
            trace=(
                *judgement.trace,
                f"bayes: by what you moved into Junk and out of it, it looks like {what} ({points:+.1f} points)",
            ),
        )
