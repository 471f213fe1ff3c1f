#!lua flags=allow-cross-slot-keys
-- session_settle: close many sessions whose summaries have been acknowledged.
--
-- ARGV[1]  MessagePack list {retention_ms, items}; an item is {session key, :traces key, :models key, revision}.
--          KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item 1 (closed at that revision) or 0 (open again, another revision, gone), or its
--          error text.
--
-- Idempotent: a session that is closed already at that revision answers 1 and keeps the life it has.

local call, unpack_all, pack = redis.call, cmsgpack.unpack, cmsgpack.pack
local CLOSING, CLOSED = 1, 2
-- Positions in the private field _s (session_put.lua).
local STATUS, REVISION, ENDED = 1, 2, 10

local request = unpack_all(ARGV[1])
local retention_ms, items = string.format('%.0f', request[1]), request[2]

-- Numbers by %d, since cjson would round the large ones.
local function state_text(state)
  local function bound(us)
    return us and string.format('%d', us) or 'false'
  end
  return string.format('[%d,%d,%d,%d,%d,%d,%d,%d,%s,%s]', state[1], state[2], state[3], state[4], state[5], state[6],
    state[7], state[8], bound(state[9]), bound(state[10]))
end

local function settle(item)
  local session_key, revision = item[1], item[4]
  local stored = call('HGET', session_key, '_s')
  if not stored then
    return 0
  end
  local state = cjson.decode(stored)
  assert(#state == ENDED, 'a session that another version has written')
  if state[REVISION] ~= revision then
    return 0
  elseif state[STATUS] == CLOSED then
    return 1
  elseif state[STATUS] ~= CLOSING then
    return 0
  end
  state[STATUS] = CLOSED
  -- Life first: should a slot be moving, a key that is elsewhere fails the item before anything is written.
  call('PEXPIRE', item[2], retention_ms)
  call('PEXPIRE', item[3], retention_ms)
  call('HSET', session_key, '_s', state_text(state), 'status', 'closed')
  call('PEXPIRE', session_key, retention_ms)
  return 1
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(settle, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return pack(replies)
