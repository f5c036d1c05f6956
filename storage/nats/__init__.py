"""The engine on NATS with JetStream (``nats://``): queue, notices, cache, members."""

from twisted_mail.storage.nats.bodies import QueueBodies
from twisted_mail.storage.nats.engine import NATSEngine, engine

__all__ = ["NATSEngine", "QueueBodies", "engine"]
