#!lua flags=allow-cross-slot-keys
-- schedule_move: move or remove entries of the deadline index that nobody has changed since they were read.
--
-- ARGV[1]  MessagePack list of items {due key, member, deadline_ms as read, new deadline_ms or "" to remove}, numbers
--          as text.  KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item 1 (moved or removed), 0 (changed meanwhile, left alone) or its error text.
--
-- Idempotent: after the first time the entry no longer has the deadline that was read, so a repeat does nothing.

local call = redis.call

local items = cmsgpack.unpack(ARGV[1])

local function move(item)
  local due_key, member, read_ms, new_ms = item[1], item[2], item[3], item[4]
  local score = call('ZSCORE', due_key, member)
  if not score or tonumber(score) ~= tonumber(read_ms) then
    return 0
  elseif new_ms == '' then
    call('ZREM', due_key, member)
  else
    call('ZADD', due_key, new_ms, member)
  end
  return 1
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(move, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return cmsgpack.pack(replies)
