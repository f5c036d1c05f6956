"""The rules of the house (docs/map.md): who may import whom, how long a module is, which words it has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

EVERYONE = {"values", "services", "tls_info"}
PROTOCOLS = {"imap", "pop3", "smtp", "sieve", "managesieve", "jmap"}

MAY_IMPORT: dict[str, set[str]] = {
    "values": set(),
    "tls_info": set(),
    "services": {"account", "mime"},  # only to name types, under TYPE_CHECKING
    "connections": {"proxy_protocol"},
    "proxy_protocol": set(),
    "mime": set(),
    "account": {"storage.interfaces", "mime"},
    "imap": {"mime", "account", "connections"},
    "pop3": {"mime", "account", "connections"},
    "smtp": {"mime", "account", "connections"},
    "sieve": {"mime"},
    "jmap": {"mime", "account"},
    "delivery": {"account", "mime", "filters", "sieve", "queueing", "storage.interfaces"},
    "dns": set(),
    "queueing": {"storage.interfaces"},
    "signatures": {"mime", "dns"},
    "reports": {"mime", "storage.interfaces"},
    "filters": {"mime", "dns", "signatures", "reports", "storage.interfaces", "queueing"},
    "managesieve": {"sieve", "connections"},
    "relay": {"storage.interfaces", "queueing", "smtp", "mime", "dns", "signatures", "reports"},
    "auth": {"storage.interfaces"},
    "http": {"jmap", "auth"},
    "storage": set(),
}
"""Room to rooms, besides itself and `EVERYONE`. `admin` and `tap` may import everything, but for what is said below."""

ENGINES = re.compile(r"storage\.(?!interfaces\b|testing\b|backend\b|registry\b)\w+")


def sources(*folders: str) -> list[Path]:
    """Python files below *folders*, each once, by its real path."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT)
            linked = inside.parts[0] == "twisted_mail" and inside.parts[1] in ("storage", "tap")
            if not linked and "__pycache__" not in inside.parts and ".venv" not in inside.parts:
                found.append(path)
    return found


CODE = sources("twisted_mail", "storage", "tap", "plugins")
ALL_CODE = [*CODE, *sources("tests", "benchmarks")]


def name_of(path: Path) -> str:
    """Where a module stands among the rooms, e.g. ``imap.commands.fetch`` or ``storage.sqlite.log``."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "twisted_mail":
        parts = parts[1:]
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that *path* imports, wherever in it, in full; ``from a import b`` counts as ``a.b``."""
    own = "twisted_mail." + name_of(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*above, module] if module else above)
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def allowed(room: str, target: str) -> bool:
    """Whether a module of *room* may import *target* (a dotted name below ``twisted_mail``)."""
    first = target.partition(".")[0]
    if first in EVERYONE or first in (room, "__version__"):
        return True
    if room in ("tap", "admin"):
        return True
    return any(target == may or target.startswith(may + ".") for may in MAY_IMPORT[room])


def arrows() -> Iterator[tuple[str, str, str]]:
    """(place, room, target) of every import of ours by ours."""
    for path in CODE:
        if path.is_relative_to(ROOT / "plugins"):
            continue
        room = name_of(path).partition(".")[0]
        for line, module in imports_of(path):
            if module.startswith("twisted_mail."):
                yield f"{path.relative_to(ROOT)}:{line}", room, module.removeprefix("twisted_mail.")


def test_every_room_is_known() -> None:
    rooms = {name_of(path).partition(".")[0] for path in CODE if not path.is_relative_to(ROOT / "plugins")}
    assert rooms - {""} <= {*MAY_IMPORT, "tap", "admin"}, "a new room needs its line in MAY_IMPORT and in docs/map.md"


def test_imports_point_where_the_map_says() -> None:
    wrong = [f"{place} imports {target}" for place, room, target in arrows() if room and not allowed(room, target)]
    assert not wrong, "\n".join(wrong)


def test_only_tap_and_admin_name_an_engine() -> None:
    wrong = [
        f"{place} imports {target}"
        for place, room, target in arrows()
        if room not in ("storage", "tap", "admin") and ENGINES.match(target)
    ]
    assert not wrong, "\n".join(wrong)


def test_an_engine_imports_no_other_engine_but_what_is_kept_in_process() -> None:
    """SQLite's bus and cache are the in-process ones with ears; everything else is an engine's own."""
    wrong = []
    for place, room, target in arrows():
        parts = Path(place).parts
        if room == "storage" and len(parts) > 2 and parts[1] != "testing":
            other = re.match(r"storage\.(memory|sqlite|files)\b", target)
            if other and other[1] != parts[1] and not target.startswith("storage.memory.small"):
                wrong.append(f"{place} imports {target}")
    assert not wrong, "\n".join(wrong)


def is_inside_of_a_protocol(target: str) -> bool:
    """A module of a protocol's room, but for its values; what the room itself offers is no inside."""
    room, module, *_ = [*target.split("."), ""]
    path = ROOT / "twisted_mail" / room / module
    return room in PROTOCOLS and module not in ("", "values") and (path.with_suffix(".py").exists() or path.is_dir())


def test_admin_leaves_the_insides_of_protocols_alone() -> None:
    wrong = [
        f"{place} imports {target}"
        for place, room, target in arrows()
        if room == "admin" and is_inside_of_a_protocol(target)
    ]
    assert not wrong, "\n".join(wrong)


def test_in_a_protocol_only_the_server_knows_twisted() -> None:
    wrong = []
    for path in CODE:
        name = name_of(path)
        if name.partition(".")[0] in PROTOCOLS and path.name != "server.py":
            wrong += [
                f"{path.relative_to(ROOT)}:{line} imports {module}"
                for line, module in imports_of(path)
                if module.partition(".")[0] in ("twisted", "zope", "asyncio", "socket")
            ]
    assert not wrong, "\n".join(wrong)


def test_in_a_protocol_only_the_server_knows_connections() -> None:
    wrong = [
        f"{place} imports {target}"
        for place, room, target in arrows()
        if room in PROTOCOLS
        and target.partition(".")[0] == "connections"
        and not place.partition(":")[0].endswith("/server.py")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_reactor_is_never_imported_at_module_level() -> None:
    wrong = []
    for path in CODE:
        inside = {
            id(inner)
            for node in ast.walk(tree_of(path))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree_of(path)):
            reached = (isinstance(node, ast.ImportFrom) and node.module == "twisted.internet"
                       and any(alias.name == "reactor" for alias in node.names)) or (
                isinstance(node, ast.Import) and any(alias.name == "twisted.internet.reactor" for alias in node.names)
            )  # fmt: skip
            if reached and id(node) not in inside:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert not wrong, wrong


def test_only_tap_reads_configuration_and_the_environment() -> None:
    wrong = []
    for path in CODE:
        room = name_of(path).partition(".")[0]
        if room in ("tap", "admin") or path.is_relative_to(ROOT / "plugins"):
            continue
        for line, module in imports_of(path):
            if module.partition(".")[0] in ("tomllib", "tomli", "configparser"):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} reads the environment")
    assert not wrong, "\n".join(wrong)


def test_a_module_has_at_most_600_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ALL_CODE
        if (lines := path.read_text("utf-8").count("\n")) > 600
    }
    assert not long, long


FORBIDDEN = re.compile(r"\b(todo|fixme|hack|inlineCallbacks|yagni)\b", re.IGNORECASE)
EMPTY_NAMES = re.compile(r"\b(class|def)\s+\w*(Manager|Handler|Processor|_manager|_handler|_processor|Helper|Utils?)\b")


def texts() -> Iterator[Path]:
    yield from ALL_CODE
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from (ROOT / name for name in ("README.md", "Makefile", "pyproject.toml", "tox.ini"))
    yield from sorted((ROOT / ".ci").iterdir())


def test_no_word_that_has_no_place_here() -> None:
    wrong = []
    for path in texts():
        if path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if (found := FORBIDDEN.search(line)) or (path.suffix == ".py" and (found := EMPTY_NAMES.search(line))):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {found[0]}")
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is() -> None:
    wrong = [str(path.relative_to(ROOT)) for path in CODE if path.stat().st_size and not ast.get_docstring(tree_of(path))]
    assert not wrong, wrong


# --- documents


def test_each_change_note_is_well_formed() -> None:
    for path in (ROOT / "docs" / "newsfragments").iterdir():
        if path.name in (".gitignore", "README.md"):
            continue
        assert re.fullmatch(r"\d+\.(feature|bugfix|upgrade|doc|misc)(\.\d+)?\.md", path.name), path.name
        text = path.read_text("utf-8")
        assert text.strip() and text.rstrip()[-1] in ".:`)", f"{path.name}: sentences, for an operator"
        assert not text.startswith(("#", "-", "*")), f"{path.name}: no heading and no bullet; they are added"


def test_the_commands_of_the_readme_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    readme = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z]+)\b", readme, re.MULTILINE))
    assert {"demo", "test", "help"} <= named <= targets
    listed = re.search(r"`make help` lists the rest \((.*)\)", readme)
    assert listed is not None
    assert set(re.findall(r"`([a-z]+)`", listed[1])) <= targets


def test_ci_runs_the_command_of_the_readme() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert any(line.startswith("make test") for line in lines)


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"


def test_decisions_are_numbered_once() -> None:
    names = [path.name for path in (ROOT / "docs" / "decisions").glob("*.md")]
    numbers = [name[:4] for name in names]
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name) for name in names), names
    assert len(set(numbers)) == len(numbers), sorted(names)


def test_the_map_names_every_room() -> None:
    text = (ROOT / "docs" / "map.md").read_text("utf-8")
    for path in sorted((ROOT / "twisted_mail").iterdir()):
        if path.is_dir() and not path.is_symlink() and any(path.glob("*.py")):
            assert f"`twisted_mail/{path.name}`" in text, path.name
