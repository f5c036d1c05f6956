"""What probes and Prometheus ask a node over HTTP: whether it lives, whether it is ready, and its counts.

``/healthz`` answers 200 as long as the process answers at all. ``/readyz`` answers 200 when this node can do its work,
else 503, with a JSON object that names what is in the way. ``/metrics`` is Prometheus' text format (0.0.4). With several
workers on one port each answer is one worker's; its label says whose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.protocol import Factory
from twisted.web.pages import notFound
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_mail import __version__

__all__ = ["Metric", "Readiness", "exposition", "status_factory"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a node can do its work."""

    node: str
    roles: Sequence[str]
    state: str
    """``starting``, ``serving`` or ``draining``."""
    down: Mapping[str, str] = field(default_factory=dict)
    """Dependencies that do not answer, with what is the matter."""

    @property
    def ready(self) -> bool:
        return self.state == "serving" and not self.down

    def as_json(self) -> dict[str, Any]:
        """What a probe is told."""
        return {
            "ready": self.ready,
            "state": self.state,
            "down": dict(self.down),
            "node": self.node,
            "roles": list(self.roles),
        }


@dataclass(frozen=True, slots=True)
class Metric:
    """A number, or several that differ in labels."""

    name: str
    kind: str
    """``counter`` or ``gauge``."""
    doc: str
    values: Sequence[tuple[Mapping[str, str], float]]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def exposition(metrics: Sequence[Metric], node: str) -> str:
    """The text that Prometheus reads. Every value has the label ``node``; each counter's name ends in ``_total``."""
    lines = []
    build = Metric("build_info", "gauge", "The version that runs.", (({"version": __version__}, 1),))
    for metric in (build, *metrics):
        name = f"twisted_mail_{metric.name}"
        lines += [f"# HELP {name} {metric.doc}", f"# TYPE {name} {metric.kind}"]
        for labels, value in metric.values:
            every = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"node": node, **labels}.items())
            lines.append(f"{name}{{{every}}} {value:g}" if value % 1 else f"{name}{{{every}}} {int(value)}")
    return "\n".join(lines) + "\n"


class _Root(Resource):
    """The addresses that there are."""

    def getChild(self, path: bytes, request: Any) -> Any:
        """For all others. (Resources, and a Request, of twisted.web.)"""
        return notFound()


class _Page(Resource):
    """One address, which is read only."""

    isLeaf = True

    def __init__(self, content: Callable[[], tuple[int, str, str]]) -> None:
        super().__init__()
        self._content = content

    def render_GET(self, request: Any) -> bytes:
        """HEAD goes here too. (A twisted.web Request, which has no type of its own to name.)"""
        code, kind, text = self._content()
        request.setResponseCode(code)
        request.setHeader(b"content-type", kind.encode())
        request.setHeader(b"cache-control", b"no-store")
        return text.encode()


class _QuietSite(Site):
    """A line for each probe would drown the log."""

    displayTracebacks = False
    noisy = False

    def log(self, request: Any) -> None:
        """Nothing. (A twisted.web Request.)"""


def status_factory(readiness: Callable[[], Readiness], metrics: Callable[[], Sequence[Metric]]) -> Factory:
    """The HTTP server of a node."""

    def ready() -> tuple[int, str, str]:
        now = readiness()
        return (200 if now.ready else 503), "application/json", json.dumps(now.as_json()) + "\n"

    root = _Root()
    root.putChild(b"healthz", _Page(lambda: (200, "text/plain", "ok\n")))
    root.putChild(b"readyz", _Page(ready))
    root.putChild(
        b"metrics", _Page(lambda: (200, "text/plain; version=0.0.4", exposition(metrics(), readiness().node)))
    )
    site: Any = _QuietSite(root, timeout=10)  # not a Factory to Twisted's own types
    factory: Factory = site
    return factory
