"""`session-aggregator mcp`: sessions for assistants, by the Model Context Protocol, in a process that only reads."""
