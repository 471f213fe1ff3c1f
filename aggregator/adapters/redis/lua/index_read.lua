#!lua flags=allow-cross-slot-keys
-- index_read: what the indexes show of many sessions.
--
-- ARGV[1]  MessagePack list of items, each a session key.  KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item false (no such session), its error text, or {milliseconds to live (-1: no end),
--          trace_count, ended_at, last_activity_ms, duration_ms, total_tokens, cost_nano_usd, error_count, user_id},
--          texts as they stand in the hash, false for a field that is missing.
--
-- Reads only.

local call = redis.call

local items = cmsgpack.unpack(ARGV[1])

local function read(session_key)
  local fields = call('HMGET', session_key, 'trace_count', 'ended_at', 'last_activity_ms', 'duration_ms',
    'total_tokens', 'cost_nano_usd', 'error_count', 'user_id')
  if not fields[1] then
    return false
  end
  table.insert(fields, 1, call('PTTL', session_key))
  return fields
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(read, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return cmsgpack.pack(replies)
