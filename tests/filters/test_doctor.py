"""``mailctl doctor filters``, on Debian's daemons, and where there are none."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.services import running
from tests.services.clamd import clamd
from tests.services.rspamd import rspamd
from tests.services.spamd import spamd
from twisted_mail.admin import doctor_filters
from twisted_mail.tap.configuration import load
from twisted_mail.tap.settings import Configuration


class DoctorTests(TestCase):
    timeout = 60

    def configuration(self, text: str) -> Configuration:
        folder = running.new_folder("doctor")
        self.addCleanup(shutil.rmtree, folder, True)
        file = Path(folder) / "mail.toml"
        file.write_text(text)
        return load(file, {})

    async def test_daemons_that_know_what_they_must(self) -> None:
        configuration = self.configuration(
            f'[filters]\nclamav = {{ address = "{clamd().address}" }}\nspamassassin = {{ address = "{spamd().address}" }}\n'
            f'rspamd = {{ url = "{rspamd().url}" }}\npolicies = [{{ address = "{clamd().address}" }}]\n'
        )
        self.assertTrue(doctor_filters.asked(configuration))
        found = await doctor_filters.look(reactor, configuration)
        self.assertEqual(
            [(each.code, each.severity) for each in found],
            [
                ("filters.clamav", "ok"),
                ("filters.spamassassin", "ok"),
                ("filters.rspamd", "ok"),
                ("filters.listening", "ok"),
            ],
        )

    async def test_daemons_that_are_not_there_or_are_others(self) -> None:
        configuration = self.configuration(
            f'[filters]\nclamav = {{ address = "unix:/nowhere/clamd" }}\nspamassassin = {{ address = "{clamd().address}" }}\n'
            'rspamd = { url = "http://127.0.0.1:9" }\nmilters = [{ address = "127.0.0.1:9", name = "odd" }]\n'
        )
        found = await doctor_filters.look(reactor, configuration)
        self.assertEqual([(each.code, each.severity) for each in found], [("filters.down", "error")] * 4)
        self.assertTrue(found[3].text.startswith("odd: "))
        self.assertTrue(all(each.remedy for each in found))

    def test_without_any_there_is_nothing_to_see(self) -> None:
        self.assertFalse(doctor_filters.asked(self.configuration('hostname = "mail.example.org"\n')))
