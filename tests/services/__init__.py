"""The real servers that the tests use: fetched once into a cache folder, started on loopback, stopped at the end.

Cassandra (Maven artifact), nats-server and VersityGW (Go programs); see `fetch`, and a module for each server. Tests get
them by the fixtures of `fixtures`. A first fetch takes one to three minutes; after that one Cassandra node is up in 10 to
15 s on two cores, three in 35 to 50 s, NATS and VersityGW in a fraction of a second.
"""
