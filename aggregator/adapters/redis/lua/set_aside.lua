#!lua flags=allow-cross-slot-keys
-- set_aside: move values that can't be read out of the way, to where they stay for a while.
--
-- ARGV[1]  MessagePack list of items {ttl_ms, forced (0 or 1), key, where it goes, another key, where that goes, ...}.
--          KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item 1 (moved), 0 (nothing was there; or, unless it is forced, something stands where
--          it would go: another worker was faster, and what stands there now may be sound) or its error text.
--          A trace state as version 0.1.0 kept it is sound, though nothing here can read it, and stays.
--
-- Idempotent: what was moved is not there the second time.

local call = redis.call

local items = cmsgpack.unpack(ARGV[1])

local function is_trace_of_0_1_0(key)
  return call('TYPE', key).ok == 'hash' and string.find(call('HGET', key, 's') or '', '^%d+ [\1\2]') ~= nil
end

local function set_aside(item)
  local ttl_ms, forced = string.format('%.0f', item[1]), item[2] == 1
  assert(not is_trace_of_0_1_0(item[3]), 'a trace that another version has written')
  for index = 4, #item, 2 do
    if not forced and call('EXISTS', item[index]) == 1 then
      return 0
    end
  end
  local moved = 0
  for index = 3, #item, 2 do
    if call('EXISTS', item[index]) == 1 then
      call('RENAME', item[index], item[index + 1])
      call('PEXPIRE', item[index + 1], ttl_ms)
      moved = 1
    end
  end
  return moved
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(set_aside, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return cmsgpack.pack(replies)
