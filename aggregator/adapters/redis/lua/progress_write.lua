#!lua flags=allow-cross-slot-keys
-- progress_write: move next offsets where nobody else has moved them, and raise watermarks.
--
-- ARGV[1]  MessagePack list of items {progress key or "", watermarks key or "", field, previous, next, watermark_ms},
--          the last three as text and "" where there is none.  Without a progress key only the watermark is raised;
--          without a watermarks key only the offset is moved.  KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item 1 (written), {what stood there, "" for nothing} or its error text.
--
-- Idempotent: an item that finds its own next offset counts as written, and a watermark never falls.

local call = redis.call

local items = cmsgpack.unpack(ARGV[1])

local function write(item)
  local progress_key, watermarks_key, field = item[1], item[2], item[3]
  local previous, following, watermark_ms = item[4], item[5], item[6]
  if progress_key ~= '' then
    local stored = call('HGET', progress_key, field) or ''
    if stored ~= following then
      if stored ~= previous then
        return {stored}
      end
      call('HSET', progress_key, field, following)
    end
  end
  if watermarks_key ~= '' and watermark_ms ~= '' then
    -- What is no number is overwritten, and a key of another type left to whoever reads it: offsets go on.
    local stored = redis.pcall('HGET', watermarks_key, field)
    if type(stored) ~= 'table' then
      local stored_ms = tonumber(stored or '')
      if not stored_ms or stored_ms < tonumber(watermark_ms) then
        call('HSET', watermarks_key, field, watermark_ms)
      end
    end
  end
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
