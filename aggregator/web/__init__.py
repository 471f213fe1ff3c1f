"""`session-aggregator web`: pages and an HTTP API on top of the client, in a process of its own that only reads."""
