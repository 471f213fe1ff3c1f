"""`session-aggregator sessions …`: looking at sessions from a terminal."""
