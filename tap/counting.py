"""A node's counts as Prometheus is told them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from twisted_mail.delivery import DeliveryCounts
from twisted_mail.filters.findings import FilterCount
from twisted_mail.relay.counts import RelayCounts
from twisted_mail.storage.interfaces import Engine
from twisted_mail.tap.status import Metric

__all__ = ["delivery_metrics", "engine_name", "filter_metrics", "relay_metrics"]


def engine_name(engine: Engine) -> str:
    """As `Backend.health` names it: ``sqlite``, ``cql``, …"""
    return type(engine).__name__.removesuffix("Engine").lower()


def delivery_metrics(counts: DeliveryCounts, up: Mapping[str, bool]) -> Sequence[Metric]:
    """*up*: each dependency, and whether it answers."""
    return [
        Metric(
            "accepted_total",
            "counter",
            "Copies of messages by the way they took: straight into the account, queued, or refused.",
            [
                ({"way": "straight"}, counts.straight),
                ({"way": "queued"}, counts.queued),
                ({"way": "refused"}, counts.refused),
            ],
        ),
        Metric(
            "delivery_attempts_total",
            "counter",
            "Attempts from the inbound queue by what came of them.",
            [
                ({"result": "delivered"}, counts.delivered),
                ({"result": "retried"}, counts.retried),
                ({"result": "held"}, counts.held),
            ],
        ),
        Metric("queue_in_flight", "gauge", "Queue items that this process works on.", [({}, counts.in_flight)]),
        Metric(
            "dependency_up",
            "gauge",
            "Whether a store answers.",
            [({"name": name}, 1 if well else 0) for name, well in up.items()],
        ),
    ]


def relay_metrics(counts: RelayCounts) -> Sequence[Metric]:
    """Of mail that leaves; the destinations that are named are the first two hundred, the others are together."""
    return [
        Metric(
            "relay_attempts_total",
            "counter",
            "Attempts from the outbound queue, by recipient, by what came of them.",
            [
                ({"result": "delivered"}, counts.delivered),
                ({"result": "deferred"}, counts.deferred),
                ({"result": "bounced"}, counts.bounced),
                ({"result": "suppressed"}, counts.suppressed),
                ({"result": "put_off"}, counts.put_off),
                ({"result": "held"}, counts.held),
            ],
        ),
        Metric(
            "relay_destination_total",
            "counter",
            "Verdicts by destination.",
            [
                ({"destination": name, "result": result}, number)
                for (name, result), number in sorted(counts.by_destination.items())
            ],
        ),
        Metric(
            "relay_pool_total",
            "counter",
            "Verdicts by pool of our addresses.",
            [({"pool": name, "result": result}, number) for (name, result), number in sorted(counts.by_pool.items())],
        ),
        Metric("relay_in_flight", "gauge", "Recipients that this process works on.", [({}, counts.in_flight)]),
    ]


def filter_metrics(counts: Mapping[str, FilterCount], open_breakers: Collection[str], dropped: int) -> Sequence[Metric]:
    """Of filters, by name. *open_breakers*: those that are not asked, since they did not answer. *dropped*: chapters of
    stories that were not written down."""
    return [
        Metric(
            "filter_asked_total", "counter", "Questions to each filter.", [({"filter": n}, c.asked) for n, c in counts.items()]
        ),
        Metric(
            "filter_seconds_total",
            "counter",
            "How long each filter took, waiting included.",
            [({"filter": name}, count.seconds) for name, count in counts.items()],
        ),
        Metric(
            "filter_down_total",
            "counter",
            "Questions without an answer.",
            [({"filter": name}, count.down) for name, count in counts.items()],
        ),
        Metric(
            "filter_verdicts_total",
            "counter",
            "Answers by what they ask for.",
            [
                ({"filter": name, "action": action.name.lower()}, number)
                for name, count in counts.items()
                for action, number in count.actions.items()
            ],
        ),
        Metric(
            "filter_up",
            "gauge",
            "Whether a filter is asked: 0 while it has not answered several times.",
            [({"filter": name}, 0 if name in open_breakers else 1) for name in counts],
        ),
        Metric("stories_dropped_total", "counter", "Chapters of stories that were not kept.", [({}, dropped)]),
    ]
