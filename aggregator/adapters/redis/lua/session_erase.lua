#!lua flags=allow-cross-slot-keys
-- session_erase: remove many sessions, and keep them away.
--
-- ARGV[1]  MessagePack list {hold_ms, items}; an item is {session key, :traces key, :models key, erased key, keys where
--          the first three stand once set aside...}.  KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item its error text or {status, revision, 1 if traces were folded, flat list of
--          :traces, 1 if it was kept away already}, where the first two are empty texts if there was no session.
--
-- From here on session_put.lua stores nothing of the session, for hold_ms.  :traces stays for as long, unless it is
-- deleted before: it names the trace states that are still to be erased, also for one that repeats this after a crash.
-- Idempotent: a repeat renews hold_ms.

local call, unpack_all, pack = redis.call, cmsgpack.unpack, cmsgpack.pack

local request = unpack_all(ARGV[1])
local hold_ms, items = string.format('%.0f', request[1]), request[2]

-- What a command reads, an empty list of a key that has another type: that goes as well.
local function read(...)
  local reply = redis.pcall(...)
  if reply.err and not string.find(reply.err, 'WRONGTYPE', 1, true) then
    error(reply)
  end
  return reply.err and {} or reply
end

local function erase(item)
  local session_key, traces_key, models_key, erased_key = item[1], item[2], item[3], item[4]
  local fields = read('HMGET', session_key, 'status', 'revision', '_f')
  local traces = read('HGETALL', traces_key)
  local repeated = call('SET', erased_key, '1', 'PX', hold_ms, 'GET')
  call('PEXPIRE', traces_key, hold_ms)
  call('DEL', session_key, models_key, unpack(item, 5))
  return {fields[1] or '', fields[2] or '', fields[3] and 1 or 0, traces, repeated and 1 or 0}
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(erase, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return pack(replies)
