"""What a start of a process costs: nothing is imported, and no expression compiled, that it does not need."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.test_house import CODE, ROOT

DRIVERS = {"boto3", "botocore", "cassandra", "nats", "urllib3"}
SEARCH = {"tantivy", "whoosh"}
OF_COMMANDS = {"click", "rich"}
OF_TESTS = {"authres", "hypothesis", "pytest", "sievelib"}


@pytest.mark.parametrize(
    "modules, heavy",
    [
        ("twisted_mail.tap.wiring, twisted_mail.tap.worker", DRIVERS | SEARCH | OF_COMMANDS | OF_TESTS),
        ("twisted_mail.storage.sqlite, twisted_mail.storage.files", DRIVERS | SEARCH | OF_COMMANDS | OF_TESTS),
        ("twisted_mail.admin.cli", DRIVERS | SEARCH | OF_TESTS),
    ],
    ids=["a worker", "the embedded store", "mailctl"],
)
def test_what_a_configuration_does_not_use_is_not_imported(modules: str, heavy: set[str]) -> None:
    program = f"import sys, {modules}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "twisted_mail" in there.split()
    assert not heavy & set(there.split())


def test_no_class_of_characters_goes_up_to_the_last_one() -> None:
    """Python goes through its first 65536 characters, one by one, at each start; one of the excluded costs nothing."""
    pattern = re.compile(r"-\\(?:u|U0010)ffff", re.IGNORECASE)
    wrong = [str(path.relative_to(ROOT)) for path in CODE if pattern.search(path.read_text("utf-8"))]
    assert not wrong, wrong
