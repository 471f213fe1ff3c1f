-- The scripts run in the Lua 5.1 of Redis 7 and Valkey, with the libraries that those load.
std = "lua51"
read_globals = { "redis", "cmsgpack", "cjson", "struct", "KEYS", "ARGV" }
max_line_length = 120
