"""What the driver raises, in the words of storage."""

from __future__ import annotations

from typing import Any, Final

from botocore import exceptions as boto
from cryptography.exceptions import InternalError

from twisted_mail.storage.interfaces import NotFound, Refused, StorageError, Unavailable

__all__ = ["Fault", "Forbidden", "NoBucket", "PreconditionFailed", "RangeRefused", "told", "translate"]

PASSING: Final = {
    "BadDigest",  # the body was damaged on its way
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
"""Codes after which the same request may succeed."""
FULL: Final = {"QuotaExceeded", "XMinioStorageFull", "XAmzStorageFull", "InsufficientStorage", "EntityTooLarge"}
FORBIDDEN: Final = {
    "403",
    "AccessDenied",
    "Forbidden",
    "InvalidAccessKeyId",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
NEVER_SENT: Final = (
    boto.EndpointConnectionError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    boto.SSLError,
)


class Fault(Exception):
    """One attempt failed, and another may succeed. *certain*: nothing was carried out."""

    def __init__(self, text: str, *, certain: bool) -> None:
        super().__init__(text)
        self.certain = certain


class PreconditionFailed(StorageError):
    """412: the object exists, or is not the one that was meant."""


class RangeRefused(StorageError):
    """416: the object does not reach that far."""


class Forbidden(Refused):
    """The credentials do not allow it."""


class NoBucket(Refused):
    """The bucket does not exist."""


def told(answer: Any, name: str) -> Any:
    """What *answer* says under *name*. Raises: Fault where it does not: the standard library takes a head of an answer
    that breaks off for a whole one, and so does the driver."""
    value = answer.get(name)
    if value is None or (name == "ETag" and not value.endswith('"')):
        raise Fault(f"the object store's answer breaks off before its {name}", certain=False)
    return value


def translate(error: Exception) -> Exception:
    """A StorageError, or a `Fault` if it is worth to try again; what is not the driver's comes back as it is."""
    if isinstance(error, boto.ClientError):
        return _answered(error)
    if isinstance(error, NEVER_SENT):
        return Fault(f"the object store cannot be reached: {_first_line(error)}", certain=True)
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return Forbidden("no credentials for the object store: none in the URL, none in the environment")
    if isinstance(error, (boto.ParamValidationError, boto.NoRegionError)):
        return StorageError(f"the object store's driver refuses: {_first_line(error)}")
    if isinstance(error, (boto.BotoCoreError, OSError)):
        # time-outs, broken connections, answers that are cut or cannot be read; urllib3's own errors are wrapped
        return Fault(f"the object store gave no whole answer: {_first_line(error)}", certain=False)
    if isinstance(error, InternalError):
        return Unavailable("encryption does not work on this machine")
    return error


def _answered(error: Any) -> Exception:
    """The store answered, and it was not what one wishes. (Any: the driver's class of errors has no types.)"""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code", ""))
    said = f"{status} {code}".strip()
    if code in ("PreconditionFailed",) or status == 412:
        return PreconditionFailed("the object is another than was meant")
    if code == "NoSuchBucket":
        return NoBucket("the object store has no such bucket")
    if status == 404:
        return NotFound("no such object")
    if status == 416:
        return RangeRefused("the object does not reach that far")
    if code in PASSING or status in (408, 429) or (status >= 500 and code not in FULL and status != 507):
        # a 500 may come from something in between, after the store has done it
        return Fault(f"the object store answers {said}", certain=status in (408, 409, 429, 503))
    if code in FULL or status == 507:
        return Refused("the object store is full, or the object is too large for it")
    if code in FORBIDDEN or status in (401, 403):
        return Forbidden(f"the object store does not allow it: {said}")
    return Refused(f"the object store refuses: {said}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
