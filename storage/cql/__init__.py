"""ScyllaDB and Cassandra: the distributed engine for everything that is metadata."""
