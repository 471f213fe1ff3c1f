"""The state in Redis: keys, scripts, connections and the stores built of them; nothing else knows any of these."""
