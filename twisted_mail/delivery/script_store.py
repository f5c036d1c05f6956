"""Users' Sieve scripts in the directory: named, checked and counted before they are stored (RFC 5804 sections 1.5, 1.6, 2.6)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from twisted.logger import Logger

from twisted_mail.delivery.scripts import Compile
from twisted_mail.services import ScriptFault, ScriptRefused
from twisted_mail.sieve import SieveError
from twisted_mail.storage.interfaces import AlreadyExists, Conflict, Directory, NotFound, StorageError
from twisted_mail.values import AccountId

__all__ = ["ScriptStore", "script_name"]

_NAME_CHARACTERS: Final = 128
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""RFC 5804 section 1.6; and halves of characters, which no name in UTF-8 can have."""
_QUICK_CHARACTERS: Final = 16_384
"""Scripts up to this length are compiled at once, longer ones in a thread."""


def script_name(name: str) -> str:
    """*name* as scripts are stored under: in NFC (RFC 5198 section 3). Raises: ScriptRefused (BAD_NAME)."""
    if not name:
        raise ScriptRefused(ScriptFault.BAD_NAME, "a script needs a name")
    if _FORBIDDEN.search(name):
        raise ScriptRefused(ScriptFault.BAD_NAME, "the name has characters that names of scripts must not have")
    name = unicodedata.normalize("NFC", name)
    if len(name) > _NAME_CHARACTERS:
        raise ScriptRefused(ScriptFault.BAD_NAME, f"the name is longer than {_NAME_CHARACTERS} characters")
    return name


class ScriptStore:
    """Implements `services.Scripts`."""

    _log = Logger()

    def __init__(
        self,
        directory: Directory,
        compile: Compile,
        extensions: Sequence[str],
        *,
        max_bytes: int = 1 << 20,
        max_scripts: int = 30,
        max_redirects: int = 4,
        changed: Callable[[AccountId], None] = lambda account: None,
        in_thread: Callable[[Callable[[], None]], Awaitable[None]] | None = None,
    ) -> None:
        """*changed* is told of accounts whose scripts are others now. *in_thread*: where long scripts are compiled."""
        self._directory = directory
        self._compile = compile
        self.extensions = tuple(extensions)
        self.max_bytes = max_bytes
        self.max_redirects = max_redirects
        self._max_scripts = max_scripts
        self._changed = changed
        self._in_thread = in_thread

    async def names(self, account: AccountId) -> Mapping[str, bool]:
        """See `services.Scripts`."""
        try:
            return await self._directory.scripts(account)
        except StorageError as error:
            raise self._failed(error) from None

    async def get(self, account: AccountId, name: str) -> str:
        """See `services.Scripts`."""
        name = script_name(name)
        try:
            text = await self._directory.script(account, name)
        except StorageError as error:
            raise self._failed(error) from None
        if text is None:
            raise ScriptRefused(ScriptFault.NO_SUCH)
        return text

    async def space(self, account: AccountId, name: str, size: int) -> None:
        """See `services.Scripts`."""
        name = script_name(name)
        self._fits(size)
        names = await self.names(account)
        if name not in names and len(names) >= self._max_scripts:
            raise ScriptRefused(ScriptFault.TOO_MANY, f"there are {len(names)} scripts already, which is the limit")

    def _fits(self, size: int) -> None:
        if size > self.max_bytes:
            raise ScriptRefused(ScriptFault.TOO_LARGE, f"a script has at most {self.max_bytes} octets")

    async def check(self, account: AccountId, text: str) -> Sequence[str]:
        """See `services.Scripts`."""
        if not text:
            raise ScriptRefused(ScriptFault.INVALID, "the script is empty", 1, 1)
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise ScriptRefused(ScriptFault.INVALID, f"line {line}: a script has no NUL octet", line)
        self._fits(len(text.encode("utf-8", "surrogatepass")))
        try:
            if self._in_thread is not None and len(text) > _QUICK_CHARACTERS:
                await self._in_thread(lambda: self._try(text))
            else:
                self._try(text)
        except SieveError as error:
            raise ScriptRefused(ScriptFault.INVALID, str(error), error.line, error.column) from None
        except ScriptRefused:
            raise
        except Exception as error:
            self._log.failure("a script could not be compiled")
            raise ScriptRefused(ScriptFault.UNAVAILABLE, "the script cannot be checked at the moment") from error
        return ()

    def _try(self, text: str) -> None:
        """What it includes may come later (RFC 6609 section 3.2)."""
        self._compile(text, include=None)

    async def put(self, account: AccountId, name: str, text: str) -> Sequence[str]:
        """See `services.Scripts`."""
        name = script_name(name)
        await self.space(account, name, len(text.encode("utf-8", "surrogatepass")))
        warnings = await self.check(account, text)
        await self._change(account, self._directory.put_script(account, name, text))
        return warnings

    async def activate(self, account: AccountId, name: str | None) -> None:
        """See `services.Scripts`."""
        name = None if name is None else script_name(name)
        await self._change(account, self._directory.activate_script(account, name))

    async def rename(self, account: AccountId, name: str, new: str) -> None:
        """See `services.Scripts`."""
        await self._change(account, self._directory.rename_script(account, script_name(name), script_name(new)))

    async def delete(self, account: AccountId, name: str) -> None:
        """See `services.Scripts`."""
        await self._change(account, self._directory.remove_script(account, script_name(name)))

    async def _change(self, account: AccountId, change: Awaitable[None]) -> None:
        try:
            await change
        except NotFound:
            raise ScriptRefused(ScriptFault.NO_SUCH) from None
        except AlreadyExists:
            raise ScriptRefused(ScriptFault.EXISTS) from None
        except Conflict:
            raise ScriptRefused(ScriptFault.ACTIVE) from None
        except StorageError as error:
            raise self._failed(error) from None
        finally:
            self._changed(account)  # what failed may have happened all the same

    def _failed(self, error: StorageError) -> ScriptRefused:
        self._log.error("scripts: {error}", error=error)
        return ScriptRefused(ScriptFault.UNAVAILABLE, "the scripts cannot be reached at the moment")
