"""The example of the guide works as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-storage-engine.md"


def test_the_engine_of_the_guide_passes_its_contract(tmp_path: Path) -> None:
    files: dict[str, str] = defaultdict(str)
    for name, code in re.findall(r"```python\n# file: (\S+)\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        files[name] += code + "\n\n"
    assert sorted(files) == ["mail_ledger.py", "test_mail_ledger.py"]
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "twisted.trial", "--temp-directory", str(tmp_path / "trial"), "test_mail_ledger"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 4 tests" in done.stdout
