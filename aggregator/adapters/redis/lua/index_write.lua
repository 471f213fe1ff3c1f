#!lua flags=allow-cross-slot-keys
-- index_write: change many sorted sets and renew their lives.
--
-- ARGV[1]  MessagePack list of items {key, life_ms, "NX" or "", additions, removals}; additions are scores and members
--          in turn, removals are members; with "NX" a member that is there keeps its score.
--          KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item 1 or its error text.
--
-- Idempotent, as it sets.  Members and life are one step: no key is ever without an end.

local call = redis.call

local items = cmsgpack.unpack(ARGV[1])

local function write(item)
  local key, life_ms, mode, additions, removals = item[1], item[2], item[3], item[4], item[5]
  if #removals > 0 then
    call('ZREM', key, unpack(removals))
  end
  if #additions > 0 then
    if mode == 'NX' then
      call('ZADD', key, 'NX', unpack(additions))
    else
      call('ZADD', key, unpack(additions))
    end
  end
  call('PEXPIRE', key, life_ms)
  return 1
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(write, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return cmsgpack.pack(replies)
