#!lua flags=allow-cross-slot-keys
-- session_put: move the sums of many sessions by the difference between the new and the old versions of their traces.
--
-- ARGV[1]  A series of MessagePack values, flat, since tables are what unpacking costs: idle_timeout_ms,
--          max_duration_ms, retention_ms, max_session_traces, number of items; then per item its length in bytes, its
--          number of traces, and
--            session key, project and session id (packed once more, they are needed once); and each trace's
--            id, version, changed_ms, first, started_us, ended_us, first use or "", number of models,
--            the 23 model.Counts; and each model: name, calls, prompt, completion, embedding, dollars, nano-dollars.
--          A use is start_us in 16 digits, span id, user id, in one text.  KEYS is only for routing and may be empty.
-- ARGV[2..]  the entries of all traces.  They stand apart because making a string costs Lua a walk over its bytes.
-- RETURNS  MessagePack list, per item its error text or {transition, deadline_ms} where all traces were applied, else
--          {transition, deadline_ms, outcomes, versions}.  transition: 0 none, 1 opened, 2 reopened.
--          outcome: 0 applied, 1 same, 2 stale, 3 folded.
--
-- Private fields of the session hash, first in it because a listpack is searched from its head, and as a rule of at
-- most the 64 bytes that one takes; JSON text, since clients that decode what they read must be able to read the hash
-- whole (session_claim.lua and session_settle.lua read them too):
--   _s  [status (0 open, 1 closing, 2 closed), revision, opened_ms, since_ms (of this opening), last_activity_ms,
--       entries in :traces, traces folded, close reason (0 none, 1 idle, 2 max_duration)]
--   _b  [started_us, ended_us]
--   _c  [0, model.Counts 1 to 12]    _d  [model.Counts 13 to 23]    the sums
--   _u  start_us in 16 digits and span id of the first use of user_id; missing without a user
--   _f  [started_us, ended_us, uses, services] of the folded traces, times as text; missing while none is folded
--
-- Idempotent: a version that :traces holds already, or an older one, changes nothing; all written values are absolute.
-- Every key is read before the first is written, so that an item whose slot is moving fails whole.
-- Integers are formatted with %d, which is exact up to 2^63 where a C long has 64 bits.

local call, unpack_limit, decode, encode = redis.call, cmsgpack.unpack_limit, cjson.decode, cjson.encode
local find, format, match, sub = string.find, string.format, string.match, string.sub
local floor, max, min = math.floor, math.max, math.min

local APPLIED, SAME, STALE, IS_FOLDED = 0, 1, 2, 3
local NONE, OPENED_NOW, REOPENED = 0, 1, 2
local OPEN, CLOSED = 0, 2
-- Positions in _s, and behind them those of _b.
local STATUS, OPENED, SINCE, LAST, ENTRIES, FOLDED, REASON, STARTED, ENDED = 1, 3, 4, 5, 6, 7, 8, 9, 10
local STATE_TEXT = '[%d,%d,%d,%d,%d,%d,%d,%d]'
-- Positions in model.Counts, one further since unpack_limit puts its offset first; the first 14 are fields of their own
-- under these names.
local TRACES, PROMPT, COMPLETION, REPORTED, PRICED, TRUNCATED, USD, NANO = 2, 7, 8, 16, 17, 22, 23, 24
local COUNTS = 23
local UPPER = 12
local UPPER_TEXT = '[0' .. string.rep(',%d', UPPER) .. ']'
local LOWER_TEXT = '[%d' .. string.rep(',%d', COUNTS - UPPER - 1) .. ']'
local NAMES = {
  false, 'trace_count', 'span_count', 'llm_span_count', 'error_count', 'error_trace_count', 'prompt_tokens',
  'completion_tokens', 'cache_read_tokens', 'cache_write_tokens', 'reasoning_tokens', 'embedding_tokens',
  'llm_span_prompt_tokens', 'llm_span_completion_tokens', 'unpriced_calls',
}
-- Suffixes of the fields of :models, in the order of a model's figures; the cost is made of the 5th and the 6th.
local MODEL_FIELDS = {':calls', ':prompt_tokens', ':completion_tokens', ':embedding_tokens', ':cost_nano_usd'}
-- Positions in the private part of an entry (model.TracePut), whose times are distances from P_STARTED and whose counts
-- below zero are as many zeros; and the marker behind it: a quote within JSON text is never bare.
local P_STARTED, P_CHANGED, P_ENDED, P_COUNTS, P_USERS, P_SERVICES, P_MODELS = 3, 4, 5, 6, 7, 8, 9
local AFTER_PRIVATE = '],"trace_id":"'
local VERSION_UNIT = 4294967296  -- a version is (distinct spans, replacements)
local BILLION = 1000000000
local SLICE = 1000  -- even, since fields and values go in pairs
local LISTED = 16

local argument = ARGV[1]
local offset, idle_timeout_ms, max_duration_ms, retention_ms, max_session_traces, item_count =
  unpack_limit(argument, 5, 0)
retention_ms = format('%d', retention_ms)

-- The item at work: its keys, and what its traces change.
local session_key, traces_key, models_key
local moved, moved_models, rows, changed, exact, least_ms
local entries_before = 1  -- how many of ARGV stand before the item's own entries

-- Numbers -----------------------------------------------------------------------------------------------------------

-- Nano-dollars of (dollars, rest); together they may pass 2^53, so they meet as text.
local function nano_text(usd, nano)
  if usd > 0 then
    return format('%d%09d', usd, nano)
  end
  return format('%d', nano)
end

local function nano_parts(stored)
  if #stored <= 9 then
    return 0, tonumber(stored)
  end
  return tonumber(sub(stored, 1, -10)), tonumber(sub(stored, -9))
end

local days = {}

local function date_text(day)
  local known = days[day]
  if known then
    return known
  end
  -- Civil date from days since 1970 in the proleptic Gregorian calendar, by eras of 400 years that begin in March.
  local shifted = day + 719468
  local era = floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local shifted_month = floor((5 * of_year + 2) / 153)
  local month = shifted_month < 10 and shifted_month + 3 or shifted_month - 9
  local civil_year = year + era * 400 + (month <= 2 and 1 or 0)
  known = format('%04d-%02d-%02dT', civil_year, month, of_year - floor((153 * shifted_month + 2) / 5) + 1)
  days[day] = known
  return known
end

local function time_text(us)
  local day = floor(us / 86400000000)
  local rest = us - day * 86400000000
  local seconds = floor(rest / 1000000)
  return format('%s%02d:%02d:%02d.%06dZ', date_text(day), floor(seconds / 3600), floor(seconds / 60) % 60,
    seconds % 60, rest - seconds * 1000000)
end

local function duration_text(us)
  local sign = ''
  if us < 0 then
    sign, us = '-', -us
  end
  local ms = floor(us / 1000)
  return format('%s%d.%03d', sign, ms, us - ms * 1000)
end

-- Entries of :traces --------------------------------------------------------------------------------------------------

-- The private part, with times as they are rather than distances.
local function private_part(entry)
  local part
  if sub(entry, 1, 5) == '{"_":' then
    local stop = find(entry, AFTER_PRIVATE, 6, true)
    part = decode(stop and sub(entry, 6, stop) or sub(entry, 6, -2))
  else
    part = decode(entry)['_']
  end
  local started = part[P_STARTED]
  part[P_CHANGED], part[P_ENDED] = part[P_CHANGED] + floor(started / 1000), part[P_ENDED] + started
  for _, use in ipairs(part[P_USERS]) do
    use[1] = use[1] + started
  end
  return part
end

local function version_of(entry)
  local spans, replacements = match(entry, '^{"_":%[(%d+),(%d+)')
  if not spans then
    local part = private_part(entry)
    spans, replacements = part[1], part[2]
  end
  return spans * VERSION_UNIT + replacements
end

local function byte_order(a, b)
  -- The < of Lua asks the server's locale, which is not the order of bytes.
  for position = 1, min(#a, #b) do
    local x, y = string.byte(a, position), string.byte(b, position)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local function use_text(use)
  return use and format('%016d%-16s%s', use[1], use[2], use[3])
end

local function used_before(a, b)
  local x, y = tonumber(sub(a, 1, 16)), tonumber(sub(b, 1, 16))
  return x < y or (x == y and byte_order(a, b))
end

-- Bounds and first use from all entries and the folded part: the way when a trace that was an extreme has changed.
local function bounds_of_all()
  local started, ended, user = 0, 0, nil
  local function widen(trace_started, trace_ended, use)
    if trace_started > 0 and (started == 0 or trace_started < started) then
      started = trace_started
    end
    ended = max(ended, trace_ended)
    if use and (not user or used_before(use, user)) then
      user = use
    end
  end
  for _, entry in ipairs(call('HVALS', traces_key)) do
    local part = private_part(entry)
    widen(part[P_STARTED], part[P_ENDED], use_text(part[P_USERS][1]))
  end
  local folded = call('HGET', session_key, '_f')
  if folded then
    local part = decode(folded)
    widen(tonumber(part[1]), tonumber(part[2]), use_text(part[3][1]))
  end
  return started, ended, user
end

-- Folding -----------------------------------------------------------------------------------------------------------

local function merge_users(into, users)
  for _, user in ipairs(users) do
    local known
    for _, other in ipairs(into) do
      known = known or (other[3] == user[3] and other)
    end
    if not known then
      into[#into + 1] = user
    elseif used_before(use_text(user), use_text(known)) then
      known[1], known[2] = user[1], user[2]
    end
  end
  table.sort(into, function(a, b)
    return used_before(use_text(a), use_text(b))
  end)
  for index = #into, LISTED + 1, -1 do
    into[index] = nil
  end
end

local function merge_services(into, services)
  local seen = {}
  for _, service in ipairs(into) do
    seen[service] = true
  end
  for _, service in ipairs(services) do
    if not seen[service] then
      seen[service] = true
      into[#into + 1] = service
    end
  end
  table.sort(into, byte_order)
  for index = #into, LISTED + 1, -1 do
    into[index] = nil
  end
end

-- Takes the entries that were changed longest ago out of :traces, a tenth of those allowed; their sums stay.  Those of
-- this put stay too, however old: the put may be repeated, and must find that it has been done.
local function fold(state)
  local all, aged, fresh = call('HGETALL', traces_key), {}, {}
  for index = 1, #rows, 2 do
    fresh[rows[index]] = true
  end
  for index = 1, #all, 2 do
    if not fresh[all[index]] then
      local entry = all[index + 1]
      local started, distance_ms = match(entry, '^{"_":%[%d+,%d+,(%d+),(-?%d+)')
      local changed_ms = started and floor(started / 1000) + distance_ms or private_part(entry)[P_CHANGED]
      aged[#aged + 1] = {changed_ms, all[index], entry}
    end
  end
  table.sort(aged, function(a, b)
    if a[1] ~= b[1] then
      return a[1] < b[1]
    end
    return byte_order(a[2], b[2])
  end)
  local stored = call('HGET', session_key, '_f')
  local folded = stored and decode(stored) or {0, 0, {}, {}}
  folded[1], folded[2] = tonumber(folded[1]), tonumber(folded[2])
  local entries = #all / 2
  local count = min(#aged, max(entries - max_session_traces, floor((max_session_traces + 9) / 10)))
  for index = 1, count do
    local part = private_part(aged[index][3])
    local started = part[P_STARTED]
    if started > 0 and (folded[1] == 0 or started < folded[1]) then
      folded[1] = started
    end
    folded[2] = max(folded[2], part[P_ENDED])
    merge_users(folded[3], part[P_USERS])
    merge_services(folded[4], part[P_SERVICES])
    call('HDEL', traces_key, aged[index][2])
  end
  if count > 0 then
    -- As text, since cjson would write so large numbers rounded.
    folded[1], folded[2] = format('%d', folded[1]), format('%d', folded[2])
    for _, use in ipairs(folded[3]) do
      use[1] = format('%d', use[1])
    end
    call('HSET', session_key, '_f', encode(folded))
  end
  state[ENTRIES] = entries - count
  state[FOLDED] = state[FOLDED] + count
end

-- Models ------------------------------------------------------------------------------------------------------------

local function add_model(name, sign, calls, prompt, completion, embedding, usd, nano)
  local sums = moved_models[name]
  if not sums then
    moved_models[name] = {sign * calls, sign * prompt, sign * completion, sign * embedding, sign * usd, sign * nano}
    return
  end
  sums[1], sums[2], sums[3] = sums[1] + sign * calls, sums[2] + sign * prompt, sums[3] + sign * completion
  sums[4], sums[5], sums[6] = sums[4] + sign * embedding, sums[5] + sign * usd, sums[6] + sign * nano
end

-- Gives `sets` and `deletes` what moves one model's figures.  `fields` are the names of all models' fields and `stored`
-- their values; this model's stand behind `at`.
local function plan_model(sets, deletes, by, fields, stored, at)
  local a, b, c, d, usd, nano = by[1], by[2], by[3], by[4], by[5], by[6]
  local known = stored[at + 1]
  if known then
    a, b, c, d = a + known, b + stored[at + 2], c + stored[at + 3], d + stored[at + 4]
    local stored_usd, stored_nano = nano_parts(stored[at + 5])
    usd, nano = usd + stored_usd, nano + stored_nano
  end
  local carry = floor(nano / BILLION)
  usd, nano = usd + carry, nano - carry * BILLION
  if a == 0 and b == 0 and c == 0 and d == 0 and usd == 0 and nano == 0 then
    if known then
      for index = at + 1, at + #MODEL_FIELDS do
        deletes[#deletes + 1] = fields[index]
      end
    end
    return
  end
  local size = #sets
  sets[size + 1], sets[size + 2] = fields[at + 1], format('%d', a)
  sets[size + 3], sets[size + 4] = fields[at + 2], format('%d', b)
  sets[size + 5], sets[size + 6] = fields[at + 3], format('%d', c)
  sets[size + 7], sets[size + 8] = fields[at + 5], nano_text(usd, nano)
  if not known or by[4] ~= 0 then
    sets[size + 9], sets[size + 10] = fields[at + 4], format('%d', d)
  end
end

-- The session -------------------------------------------------------------------------------------------------------

-- Takes one trace in: its version against the one shown, and what it moves.  Returns the offset behind it.
local function take(at, entry_of, index, state, bounds, outcomes, versions)
  local id, version, changed_ms, first, started, ended, user, model_count
  at, id, version, changed_ms, first, started, ended, user, model_count = unpack_limit(argument, 8, at)
  local counts = {unpack_limit(argument, COUNTS, at)}
  at = counts[1]
  local models_at = at
  for _ = 1, model_count do
    at = unpack_limit(argument, 7, at)
  end
  local shown = entry_of[id]
  if shown == nil then
    shown = entry_of[index]
  end
  local shown_version = shown and version_of(shown) or 0
  versions[index] = shown_version
  if shown and shown_version >= version then
    outcomes[index] = shown_version == version and SAME or STALE
    return at
  elseif not shown and state[FOLDED] > 0 and not first and counts[TRACES] > 0 then
    outcomes[index] = IS_FOLDED
    return at
  end
  outcomes[index], versions[index] = APPLIED, version
  local old = shown and private_part(shown)
  if not shown then
    state[ENTRIES] = state[ENTRIES] + 1
  end
  local entry = ARGV[entries_before + index]
  entry_of[id] = entry
  rows[#rows + 1], rows[#rows + 2] = id, entry
  if counts[TRACES] == 0 and not (old and old[P_COUNTS][1] > 0) then
    return at
  end
  least_ms = changed and min(least_ms, changed_ms) or changed_ms
  changed = true
  if changed_ms > state[LAST] then
    state[LAST] = changed_ms
  end
  for _ = 1, model_count do
    local name, a, b, c, d, usd, nano
    models_at, name, a, b, c, d, usd, nano = unpack_limit(argument, 7, models_at)
    add_model(name, 1, a, b, c, d, usd, nano)
  end
  if old then
    local position = 2
    for _, count in ipairs(old[P_COUNTS]) do
      if count < 0 then
        position = position - count
      else
        counts[position] = counts[position] - count
        position = position + 1
      end
    end
    for name, figures in pairs(old[P_MODELS]) do
      add_model(name, -1, unpack(figures))
    end
    local was = use_text(old[P_USERS][1])
    if (old[P_STARTED] > 0 and old[P_STARTED] == bounds[1] and (started == 0 or started > bounds[1]))
      or (old[P_ENDED] > 0 and old[P_ENDED] == bounds[2] and ended < bounds[2])
      or (was and was == bounds[3] and (user == '' or used_before(was, user))) then
      exact = false
    end
  end
  if moved then
    for position = 2, COUNTS + 1 do
      moved[position] = moved[position] + counts[position]
    end
  else
    moved = counts
  end
  if started > 0 and (bounds[1] == 0 or started < bounds[1]) then
    bounds[1] = started
  end
  if ended > bounds[2] then
    bounds[2] = ended
  end
  if user ~= '' and (not bounds[3] or used_before(user, bounds[3])) then
    bounds[3] = user
  end
  return at
end

-- Appends the public fields of the sums that moved (of all in a new session) behind those that `sets` has.
local function plan_sums(sets, sums, new)
  local size = #sets
  for position = 2, 15 do
    if moved[position] ~= 0 or new then
      sets[size + 1], sets[size + 2] = NAMES[position], format('%d', sums[position])
      size = size + 2
    end
  end
  if new or moved[PROMPT] ~= 0 or moved[COMPLETION] ~= 0 then
    sets[size + 1], sets[size + 2] = 'total_tokens', format('%d', sums[PROMPT] + sums[COMPLETION])
    size = size + 2
  end
  if new or moved[USD] ~= 0 or moved[NANO] ~= 0 then
    local usd, nano = sums[USD], sums[NANO]
    sets[size + 1], sets[size + 2] = 'cost_nano_usd', nano_text(usd, nano)
    sets[size + 3], sets[size + 4] = 'cost_usd', format('%d.%09d', usd, nano)
    size = size + 4
  end
  if new or moved[REPORTED] ~= 0 or moved[PRICED] ~= 0 then
    local reported, priced = sums[REPORTED] > 0, sums[PRICED] > 0
    local was_reported, was_priced = sums[REPORTED] > moved[REPORTED], sums[PRICED] > moved[PRICED]
    if new or reported ~= was_reported or priced ~= was_priced then
      sets[size + 1] = 'cost_source'
      sets[size + 2] = reported and priced and 'mixed' or reported and 'reported' or priced and 'priced' or 'none'
    end
  end
end

-- Appends the fields of the bounds that differ from what `state` has; what has become unknown goes to `deletes`.
local function plan_bounds(sets, deletes, state, bounds, was_user)
  local user, size = bounds[3], #sets
  if user ~= was_user then
    if user then
      sets[size + 1], sets[size + 2], sets[size + 3], sets[size + 4] = '_u', sub(user, 1, 32), 'user_id', sub(user, 33)
      size = size + 4
    else
      deletes[1], deletes[2] = '_u', 'user_id'
    end
  end
  local started, ended = bounds[1], bounds[2]
  local was_started, was_ended = state[STARTED], state[ENDED]
  if started == was_started and ended == was_ended then
    return
  end
  state[STARTED], state[ENDED] = started, ended
  sets[size + 1], sets[size + 2] = '_b', format('[%d,%d]', started, ended)
  size = size + 2
  if started == 0 then
    deletes[#deletes + 1] = 'started_at'
  elseif started ~= was_started then
    sets[size + 1], sets[size + 2] = 'started_at', time_text(started)
    size = size + 2
  end
  if ended == 0 then
    deletes[#deletes + 1] = 'ended_at'
  elseif ended ~= was_ended then
    sets[size + 1], sets[size + 2] = 'ended_at', time_text(ended)
    size = size + 2
  end
  if started == 0 or ended == 0 then
    deletes[#deletes + 1] = 'duration_ms'
  else
    sets[size + 1], sets[size + 2] = 'duration_ms', duration_text(ended - started)
  end
end

local function state_text(state)
  return format(STATE_TEXT, unpack(state, 1, REASON))
end

-- The first use of the user shown, as `used_before` compares it; nil without a user.
local function first_use(stored)
  return stored[5] and stored[5] .. stored[6] or nil
end

-- A session that has no hash may have left tombstones, which stay; anything else belongs to one that was evicted.
local function sweep()
  local all, tombstones = call('HGETALL', traces_key), 0
  for index = 1, #all, 2 do
    if private_part(all[index + 1])[P_COUNTS][1] > 0 then
      call('HDEL', traces_key, all[index])
    else
      tombstones = tombstones + 1
    end
  end
  call('DEL', models_key)
  return tombstones
end

-- Tombstones of traces that the session did not show: they are kept as long as its keys, and change nothing else.
local function write_tombstones(state, new)
  call('HSET', traces_key, unpack(rows))
  if new then
    call('PEXPIRE', traces_key, retention_ms)
    return
  end
  call('HSET', session_key, '_s', state_text(state))
  if state[STATUS] == CLOSED then
    call('PEXPIRE', traces_key, retention_ms, 'NX')
  end
end

-- Opens or reopens the session in `state` and says which.
local function enter(state, new)
  if new then
    state[OPENED], state[SINCE] = least_ms, least_ms
    return OPENED_NOW
  elseif state[STATUS] == OPEN then
    return NONE
  end
  if state[STATUS] == CLOSED then
    call('PERSIST', session_key)
    call('PERSIST', traces_key)
    call('PERSIST', models_key)
  end
  state[STATUS], state[SINCE], state[REASON] = OPEN, least_ms, 0
  return REOPENED
end

-- All models' figures are read by one command and before anything is written; a new session has none.
-- Calls a command with as many arguments as it takes, in slices: Lua unpacks some 8,000 values at most.
local function call_with(command, key, arguments)
  local replies = {}
  for from = 1, #arguments, SLICE do
    local part = call(command, key, unpack(arguments, from, min(from + SLICE - 1, #arguments)))
    if type(part) == 'table' then
      for index = 1, #part do
        replies[from + index - 1] = part[index]
      end
    end
  end
  return replies
end

local function write_models(new)
  local fields, moves, sets, deletes = {}, {}, {}, {}
  for name, by in pairs(moved_models) do
    moves[#moves + 1] = by
    local size = #fields
    for index = 1, #MODEL_FIELDS do
      fields[size + index] = name .. MODEL_FIELDS[index]
    end
  end
  local stored = {}
  if not new and #fields > 0 then
    stored = call_with('HMGET', models_key, fields)
  end
  for index, by in ipairs(moves) do
    plan_model(sets, deletes, by, fields, stored, (index - 1) * #MODEL_FIELDS)
  end
  call_with('HSET', models_key, sets)
  call_with('HDEL', models_key, deletes)
end

-- The sums after what the traces moved, and the two fields that keep them.
local function add_sums(stored)
  local sums = moved
  if stored then
    sums = decode(stored[3])
    local lower = decode(stored[4])
    for position = 1, COUNTS - UPPER do
      sums[UPPER + 1 + position] = lower[position]
    end
    for position = 2, COUNTS + 1 do
      local by = moved[position]
      if by ~= 0 then
        sums[position] = sums[position] + by
      end
    end
  end
  local carry = floor(sums[NANO] / BILLION)
  if carry ~= 0 then
    sums[USD], sums[NANO] = sums[USD] + carry, sums[NANO] - carry * BILLION
  end
  return sums, format(UPPER_TEXT, unpack(sums, 2, UPPER + 1)), format(LOWER_TEXT, unpack(sums, UPPER + 2, COUNTS + 1))
end

-- Writes everything that a put changed; returns the transition.
local function write(names, state, stored, bounds, last_ms, leftovers)
  local new, was_folded = not stored, state[FOLDED] > 0
  if new then
    state[STARTED], state[ENDED] = 0, 0
  end
  write_models(new)
  local transition = enter(state, new)
  call('HSET', traces_key, unpack(rows))
  if leftovers then
    call('PERSIST', traces_key)
  end
  if not exact then
    bounds[1], bounds[2], bounds[3] = bounds_of_all()
  end
  if state[ENTRIES] > max_session_traces then
    fold(state)
  end
  local sums, upper, lower = add_sums(stored)
  local sets, deletes = {'_s', false, '_c', upper, '_d', lower}, {}
  if new then
    sets[7], sets[8] = '_b', '[0,0]'
  end
  plan_bounds(sets, deletes, state, bounds, stored and first_use(stored))
  sets[2] = state_text(state)
  if new or state[LAST] ~= last_ms then
    sets[#sets + 1], sets[#sets + 2] = 'last_activity_ms', format('%d', state[LAST])
  end
  plan_sums(sets, sums, new)
  local size = #sets
  local truncated = state[FOLDED] > 0 or sums[TRUNCATED] > 0
  if new or truncated ~= (was_folded or sums[TRUNCATED] > moved[TRUNCATED]) then
    sets[size + 1], sets[size + 2] = 'truncated', truncated and '1' or '0'
    size = size + 2
  end
  if transition ~= NONE then
    sets[size + 1], sets[size + 2] = 'status', 'open'
    size = size + 2
  end
  if new then
    -- What never changes goes last: the others are found sooner.
    local _, project, session_id = unpack_limit(names, 2, 0)
    sets[size + 1], sets[size + 2], sets[size + 3], sets[size + 4] = 'project', project, 'session_id', session_id
    sets[size + 5], sets[size + 6] = 'revision', '0'
    sets[size + 7], sets[size + 8] = 'opened_at', time_text(state[OPENED] * 1000)
  end
  call('HSET', session_key, unpack(sets))
  if #deletes > 0 and not new then
    call('HDEL', session_key, unpack(deletes))
  end
  return transition
end

-- What :traces holds of the item's traces, by index; `take` adds what it applies by id.
local function read_entries(at, count)
  if count == 0 then
    return {}
  elseif count == 1 then
    local _, id = unpack_limit(argument, 1, at)
    return call('HMGET', traces_key, id)
  end
  local ids = {}
  for index = 1, count do
    local id, model_count, _
    at, id, _, _, _, _, _, _, model_count = unpack_limit(argument, 8, at)
    at = unpack_limit(argument, COUNTS + 7 * model_count, at)
    ids[index] = id
  end
  return call('HMGET', traces_key, unpack(ids))
end

local function put(at, trace_count)
  local names
  at, session_key, names = unpack_limit(argument, 2, at)
  traces_key, models_key = session_key .. ':traces', session_key .. ':models'
  moved, moved_models, rows, changed, exact, least_ms = nil, {}, {}, false, true, nil
  local stored = call('HMGET', session_key, '_s', '_b', '_c', '_d', '_u', 'user_id')
  local state, leftovers
  if stored[1] then
    state = decode(stored[1])
    local bounds = decode(stored[2])
    state[STARTED], state[ENDED] = bounds[1], bounds[2]
  else
    state = {OPEN, 0, 0, 0, 0, 0, 0, 0, 0, 0}
    leftovers = call('EXISTS', traces_key, models_key) > 0
    if leftovers then
      state[ENTRIES] = sweep()
    end
    stored = nil
  end
  local last_ms, bounds = state[LAST], {state[STARTED], state[ENDED], stored and first_use(stored)}
  local entry_of, outcomes, versions = read_entries(at, trace_count), {}, {}
  for index = 1, trace_count do
    at = take(at, entry_of, index, state, bounds, outcomes, versions)
  end

  local transition = NONE
  if changed then
    transition = write(names, state, stored, bounds, last_ms, leftovers)
  elseif #rows > 0 then
    write_tombstones(state, not stored)
  end
  local deadline_ms = 0
  if state[STATUS] ~= CLOSED and (stored or changed) then
    deadline_ms = min(state[LAST] + idle_timeout_ms, state[SINCE] + max_duration_ms)
  end
  for index = 1, trace_count do
    if outcomes[index] ~= APPLIED then
      return {transition, deadline_ms, outcomes, versions}
    end
  end
  return {transition, deadline_ms}
end

local replies = {}
for index = 1, item_count do
  local length, trace_count
  offset, length, trace_count = unpack_limit(argument, 2, offset)
  local done, reply = pcall(put, offset, trace_count)
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
  offset, entries_before = offset + length, entries_before + trace_count
end
return cmsgpack.pack(replies)
