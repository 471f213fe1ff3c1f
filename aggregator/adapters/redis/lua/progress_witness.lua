#!lua flags=allow-cross-slot-keys
-- progress_witness: note next offsets beside `progress`, and say where earlier ones have been forgotten.
--
-- ARGV[1]  MessagePack list of items {witness key, field, previous, next, back}, the last three as text; previous is ""
--          where nothing has been noted, back is "1" to note next also where a later one stands.  KEYS is only for
--          routing and may be empty.
-- RETURNS  MessagePack list, per item 1 (noted), {what stood there, "" for nothing} where that is less than previous,
--          which leaves it as it is, or its error text.
--
-- Idempotent: an offset never falls but where that is asked for.

local call = redis.call

local items = cmsgpack.unpack(ARGV[1])

local function note(item)
  local key, field, previous, following, back = item[1], item[2], item[3], item[4], item[5]
  if previous ~= '' then
    local stored = call('HGET', key, field)
    if not stored or tonumber(stored) < tonumber(previous) then
      return {stored or ''}
    end
    if back == '' and tonumber(stored) >= tonumber(following) then
      return 1
    end
  end
  call('HSET', key, field, following)
  return 1
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(note, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return cmsgpack.pack(replies)
