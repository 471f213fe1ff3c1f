#!lua flags=allow-cross-slot-keys
-- trace_store: compare-and-set of many trace states.
--
-- ARGV[1]  MessagePack list of items {key, expected version, ttl_ms}, each text; "0" is expected where nothing is
--          thought to be stored.  KEYS is only for routing and may be empty.
-- ARGV[2..]  per item "<version> <state>".  They stand apart because making a string costs Lua a walk over its bytes.
-- RETURNS  MessagePack list of what was not stored: {index, version, state} with what stands there instead ("0" and ""
--          for nothing), or {index, error}.  Indexes count from 1.  Empty when all were stored.
--
-- A trace is a hash with the one field "s" holding "<version> <state>": one field costs half of two in memory and time.
-- Idempotent: an item that meets exactly its own version and state is stored already and only has its life renewed.

local HGET, HSET, PEXPIRE = 'HGET', 'HSET', 'PEXPIRE'
local call, byte, find, sub = redis.call, string.byte, string.find, string.sub
local BLANK = 32

local items = cmsgpack.unpack(ARGV[1])
local left = {}

local function store(index, item)
  local key, expected, value = item[1], item[2], ARGV[index + 1]
  local stored = call(HGET, key, 's')
  local matches
  if stored then
    matches = sub(stored, 1, #expected) == expected and byte(stored, #expected + 1) == BLANK
  else
    matches = expected == '0'
  end
  if matches then
    call(HSET, key, 's', value)
    call(PEXPIRE, key, item[3])
  elseif stored == value then
    call(PEXPIRE, key, item[3])
  elseif stored then
    local blank = find(stored, ' ', 1, true)
    left[#left + 1] = {index, sub(stored, 1, blank - 1), sub(stored, blank + 1)}
  else
    left[#left + 1] = {index, '0', ''}
  end
end

for index = 1, #items do
  local done, problem = pcall(store, index, items[index])
  if not done then
    left[#left + 1] = {index, type(problem) == 'table' and problem.err or tostring(problem)}
  end
end
return cmsgpack.pack(left)
