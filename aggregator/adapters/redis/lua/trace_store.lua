#!lua flags=allow-cross-slot-keys
-- trace_store: compare-and-set of many trace states.
--
-- ARGV[1]  A series of MessagePack values: the number of items, then per item its length in bytes, the number of its
--          long texts (1), and key, expected stamp, ttl_ms, each text; an empty stamp is expected where nothing is
--          thought to be stored.  KEYS is only for routing and may be empty.
-- ARGV[2..]  per item "<stamp> <state>".  They stand apart because making a string costs Lua a walk over its bytes.
-- RETURNS  MessagePack list of what was not stored: {index, stamp, state} with what stands there instead (two empty
--          texts for nothing), or {index, error}.  Indexes count from 1.  Empty when all were stored.
--
-- A trace is a string "<stamp> <state>"; a stamp holds no blank, and equal ones stand for equal states.
-- Idempotent: an item that meets exactly its own stamp and state is stored already and only has its life renewed.

local GET, GETRANGE, PEXPIRE, PX, SET, ZERO = 'GET', 'GETRANGE', 'PEXPIRE', 'PX', 'SET', '0'
local call, find, sub, unpack_limit = redis.call, string.find, string.sub, cmsgpack.unpack_limit

local argument = ARGV[1]
local left = {}

local function store(index, key, expected, ttl_ms)
  local value = ARGV[index + 1]
  -- Only the head is read as a rule: of nothing, or of what another worker has stored, one byte says enough.
  local awaited = expected == '' and '' or expected .. ' '
  if call(GETRANGE, key, ZERO, expected == '' and ZERO or #expected) == awaited then
    call(SET, key, value, PX, ttl_ms)
    return
  end
  local stored = call(GET, key)
  if stored == value then
    call(PEXPIRE, key, ttl_ms)
  elseif stored then
    local blank = find(stored, ' ', 1, true)
    assert(blank and blank > 1, 'no stamp')  -- or it would be answered for nothing
    left[#left + 1] = {index, sub(stored, 1, blank - 1), sub(stored, blank + 1)}
  else
    left[#left + 1] = {index, '', ''}
  end
end

local offset, count = unpack_limit(argument, 1, 0)
for index = 1, count do
  local _, key, expected, ttl_ms
  offset, _, _, key, expected, ttl_ms = unpack_limit(argument, 5, offset)
  local done, problem = pcall(store, index, key, expected, ttl_ms)
  if not done then
    left[#left + 1] = {index, type(problem) == 'table' and problem.err or tostring(problem)}
  end
end
return cmsgpack.pack(left)
