#!lua flags=allow-cross-slot-keys
-- session_put: move the sums of many sessions by the difference between the new and the old versions of their traces.
--
-- ARGV[1]  A series of MessagePack values, flat, since tables are what unpacking costs: idle_timeout_ms,
--          max_duration_ms, retention_ms, max_session_traces, trace_life_ms, number of items; then per item its length
--          in bytes, its number of traces, and session key, the traces (model.TracePut.packed), project, session id,
--          and the key that stands where the session has been erased (session_erase.lua).
--          KEYS is only for routing and may be empty.
-- ARGV[2..]  the entries of all traces.  They stand apart because making a string costs Lua a walk over its bytes.
-- RETURNS  MessagePack list, for some items {index, error text}, {index, transition, deadline_ms} where all traces were
--          applied, or {index, transition, deadline_ms, outcomes, versions}.  Nothing is said of an item whose traces
--          were all applied to a session that was open, and is due idle_timeout_ms after the latest change put.
--          transition: 0 none, 1 opened, 2 reopened.
--          outcome: 0 applied, 1 same, 2 stale, 3 folded, 4 too late, 5 erased (the whole item, nothing is written).
--
-- Private fields of the session hash, as a rule of at most the 64 bytes that one takes in a listpack; JSON text, since
-- clients that decode what they read must be able to read the hash whole (session_claim.lua and session_settle.lua read
-- them too).  Fields that are read or written often come first: a listpack is searched from its head.
--   _s  [status (0 open, 1 closing, 2 closed), revision, opened_ms, since_ms (of this opening), last_activity_ms,
--       entries in :traces, traces folded, close reason (0 none, 1 idle, 2 max_duration), started_us, ended_us]; since,
--       last activity, start and end are distances from opened, the last two in microseconds and false where unknown.
--       How many there are tells the version of all three keys: whoever changes what any of them holds, adds one
--   _u  start_us in 16 digits and span id of the first use of user_id; missing without a user
--   _f  [started_us, ended_us, uses, services, latest changed_ms] of the folded traces, times as text; missing while
--       none is folded
-- The sums are the public fields; those of model.Counts that are none have a name that begins with _ and are missing
-- until there is something to count.
--
-- Idempotent: a version that :traces holds already, or an older one, changes nothing; all written values are absolute.
-- Versions go by distinct spans, then by the contents of these (core/state.py), then by replacements.
-- A trace state lives for trace_life_ms after its last write.  One that was begun later than that after the change that
-- the session shows does not go on from what is shown: it lacks the spans of before, and nothing of it is taken.  One
-- begun earlier is rebuilt, after a store has lost it, and is taken once its version is the greater.
-- Every key is read before the first is written, so that an item whose slot is moving fails whole.
-- Integers are formatted with %d, which is exact up to 2^63 where a C long has 64 bits.

local call, unpack_limit, decode, encode = redis.call, cmsgpack.unpack_limit, cjson.decode, cjson.encode
local find, format, match, sub = string.find, string.format, string.match, string.sub
local floor, max, min = math.floor, math.max, math.min

local APPLIED, SAME, STALE, IS_FOLDED, TOO_LATE, ERASED = 0, 1, 2, 3, 4, 5
local NONE, OPENED_NOW, REOPENED = 0, 1, 2
local OPEN, CLOSED = 0, 2
-- Positions in _s.
local STATUS, OPENED, SINCE, LAST, ENTRIES, FOLDED, REASON, STARTED, ENDED = 1, 3, 4, 5, 6, 7, 8, 9, 10
-- Positions in what describes a trace (model.TracePut.packed), one further since unpack_limit puts its offset first.
local ID, VERSION, CHANGED, BORN, FIRST = 2, 3, 7, 8, 9  -- behind VERSION its three contents
local T_STARTED, T_ENDED, USE, MODELS = 10, 11, 12, 13
local HEAD = 12
-- Positions in model.Counts, one further likewise, and the fields that hold the sums; the cost has fields of its own.
local TRACES, PROMPT, COMPLETION, REPORTED, PRICED, TRUNCATED, USD, NANO = 2, 7, 8, 16, 17, 22, 23, 24
local COUNTS = 23
local NAMES = {
  false, 'trace_count', 'span_count', 'llm_span_count', 'error_count', 'error_trace_count', 'prompt_tokens',
  'completion_tokens', 'cache_read_tokens', 'cache_write_tokens', 'reasoning_tokens', 'embedding_tokens',
  'llm_span_prompt_tokens', 'llm_span_completion_tokens', 'unpriced_calls', '_reported_costs', '_priced_costs',
  '_conflicting_claim_traces', '_wrapper_usage_traces', '_nested_llm_traces', '_missing_root_traces',
  '_truncated_traces', false, 'cost_nano_usd',
}
local SHOWN = 15  -- the sums up to here are public
-- What is read beside a sum that moves: the other one of those that a field is made of.
local PARTNER = {[PROMPT] = COMPLETION, [COMPLETION] = PROMPT, [REPORTED] = PRICED, [PRICED] = REPORTED}
-- Suffixes of the fields of :models, in the order of a model's figures; the cost is made of the 5th and the 6th.  The
-- last two are missing while they are 0, and are read and written only where they move.
local MODEL_FIELDS = {
  ':calls', ':prompt_tokens', ':completion_tokens', ':embedding_tokens', ':cost_nano_usd', ':reported_costs',
  ':priced_costs',
}
local ALWAYS_READ = 5
-- Positions in the private part of an entry (model.TracePut), whose times are distances from P_STARTED and whose counts
-- below zero are as many zeros; and the marker behind it: a quote within JSON text is never bare.
local P_STARTED, P_CHANGED, P_ENDED, P_COUNTS, P_USERS, P_SERVICES, P_MODELS, P_CONTENTS = 3, 4, 5, 6, 7, 8, 9, 11
local AFTER_PRIVATE = '],"trace_id":"'
local VERSION_UNIT = 4294967296  -- a version is (distinct spans, replacements)
local BILLION = 1000000000
local SLICE = 1000  -- even, since fields and values go in pairs
local LISTED = 16
local MOST_MODELS, OTHER = 100, '(other)'  -- as in core/put.py

local argument = ARGV[1]
local offset, idle_timeout_ms, max_duration_ms, retention_ms, max_session_traces, trace_life_ms, item_count =
  unpack_limit(argument, 6, 0)
retention_ms = format('%d', retention_ms)

-- The item at work: its keys, and what its traces change.
local session_key, traces_key, models_key
local moved, rows, changed, replaced, exact, least_ms, folded_ms
local entries_before = 1  -- how many of ARGV stand before the item's own entries

-- Tables that every item fills anew: growing one costs more than what is put in.
local moved_models, model_fields, model_args, sets, wanted, asked = {}, {}, {}, {}, {}, {}
-- The sums as they are stored, texts until something is added; nil until they are asked for, false where missing.
local sums = {
  false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false,
  false, false, false, false, false, false, false,
}

-- Numbers -----------------------------------------------------------------------------------------------------------

-- A whole number as text.  Formatting is the dearest thing here, and small numbers are many.
local texts = {}

local function text_of(number)
  local text = texts[number]
  if not text then
    text = format('%d', number)
    texts[number] = text
  end
  return text
end

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

-- The three contents, none in an entry of before they were kept.
local function contents_of(entry)
  local stop = find(entry, AFTER_PRIVATE, 6, true)
  if stop then
    local upper, lower, tokens = match(sub(entry, max(6, stop - 64), stop - 1), ',%[(%d+),(%d+),(%d+)%]$')
    if upper then
      return {tonumber(upper), tonumber(lower), tonumber(tokens)}
    end
  end
  return private_part(entry)[P_CONTENTS] or {}
end

local function changed_of(entry)
  local started, distance_ms = match(entry, '^{"_":%[%d+,%d+,(%d+),(-?%d+)')
  return started and floor(started / 1000) + distance_ms or private_part(entry)[P_CHANGED]
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

-- Calls a command with as many of `size` arguments as it takes, in slices: Lua unpacks some 8,000 values at most.
local function call_with(command, key, arguments, size)
  if size <= SLICE then
    return size > 0 and call(command, key, unpack(arguments, 1, size)) or {}
  end
  local replies = {}
  for from = 1, size, SLICE do
    local part = call(command, key, unpack(arguments, from, min(from + SLICE - 1, size)))
    if type(part) == 'table' then
      for index = 1, #part do
        replies[from + index - 1] = part[index]
      end
    end
  end
  return replies
end

-- Folding -----------------------------------------------------------------------------------------------------------

-- Takes first uses into `known`: user -> {use, use_text(use)}.
local function merge_users(known, users)
  for _, use in ipairs(users) do
    local text, other = use_text(use), known[use[3]]
    if not other or used_before(text, other[2]) then
      known[use[3]] = {use, text}
    end
  end
end

local function listed_users(known)
  local users = {}
  for _, user in pairs(known) do
    users[#users + 1] = user
  end
  table.sort(users, function(a, b)
    return used_before(a[2], b[2])
  end)
  for index = 1, #users do
    users[index] = index <= LISTED and users[index][1] or nil
  end
  return users
end

local function listed_services(known)
  local services = {}
  for service in pairs(known) do
    services[#services + 1] = service
  end
  table.sort(services, byte_order)
  for index = #services, LISTED + 1, -1 do
    services[index] = nil
  end
  return services
end

-- Where in `all` (field, entry, ...) the `share` entries stand that were changed longest ago, those with the smallest
-- ids where it is the same millisecond.  Numbers are sorted rather than entries, since of a session that is folded all
-- the time everything else is too dear.
local function changed_longest_ago(all, share)
  local fresh, times, time_of = {}, {}, {}
  for index = 1, #rows, 2 do
    fresh[rows[index]] = true
  end
  for index = 1, #all, 2 do
    if not fresh[all[index]] then
      time_of[index] = changed_of(all[index + 1])
      times[#times + 1] = time_of[index]
    end
  end
  table.sort(times)
  local latest, found, ties = times[min(share, #times)], {}, {}
  for index, time in pairs(time_of) do
    local list = time < latest and found or time == latest and ties
    if list then
      list[#list + 1] = index
    end
  end
  if #found + #ties > share then
    table.sort(ties, function(a, b)
      return byte_order(all[a], all[b])
    end)
  end
  for index = 1, min(share - #found, #ties) do
    found[#found + 1] = ties[index]
  end
  return found
end

-- Takes the entries that were changed longest ago out of :traces, a tenth of those allowed; their sums stay.  Those of
-- this put stay too, however old: the put may be repeated, and must find that it has been done.
local function fold(state)
  local all = call('HGETALL', traces_key)
  local entries = #all / 2
  local gone = changed_longest_ago(all, max(entries - max_session_traces, floor((max_session_traces + 9) / 10)))
  if #gone > 0 then
    local stored = call('HGET', session_key, '_f')
    local folded = stored and decode(stored) or {0, 0, {}, {}, 0}
    local started, ended, latest_ms = tonumber(folded[1]), tonumber(folded[2]), tonumber(folded[5])
    local users, services, ids = {}, {}, {}
    merge_users(users, folded[3])
    for _, service in ipairs(folded[4]) do
      services[service] = true
    end
    for index = 1, #gone do
      ids[index] = all[gone[index]]
      local part = private_part(all[gone[index] + 1])
      if part[P_STARTED] > 0 and (started == 0 or part[P_STARTED] < started) then
        started = part[P_STARTED]
      end
      ended, latest_ms = max(ended, part[P_ENDED]), max(latest_ms, part[P_CHANGED])
      merge_users(users, part[P_USERS])
      for _, service in ipairs(part[P_SERVICES]) do
        services[service] = true
      end
    end
    call_with('HDEL', traces_key, ids, #ids)
    users = listed_users(users)
    for _, use in ipairs(users) do
      use[1] = format('%d', use[1])  -- text, since cjson would write so large numbers rounded
    end
    call('HSET', session_key, '_f', encode({
      format('%d', started), format('%d', ended), users, listed_services(services), format('%d', latest_ms),
    }))
  end
  state[ENTRIES] = entries - #gone
  state[FOLDED] = state[FOLDED] + #gone
end

-- Whether a trace that the session does not show can be one of those folded: they had begun before the latest of them
-- was changed.
local function may_be_folded(trace)
  if not folded_ms then
    folded_ms = tonumber(decode(call('HGET', session_key, '_f'))[5])
  end
  return trace[BORN] <= folded_ms
end

-- Models ------------------------------------------------------------------------------------------------------------

local function add_model(name, sign, calls, prompt, completion, embedding, usd, nano, reported, priced)
  reported, priced = sign * (reported or 0), sign * (priced or 0)
  local by = moved_models[name]
  if not by then
    moved_models[name] = {
      sign * calls, sign * prompt, sign * completion, sign * embedding, sign * usd, sign * nano, reported, priced,
    }
    return
  end
  by[1], by[2], by[3] = by[1] + sign * calls, by[2] + sign * prompt, by[3] + sign * completion
  by[4], by[5], by[6] = by[4] + sign * embedding, by[5] + sign * usd, by[6] + sign * nano
  by[7], by[8] = by[7] + reported, by[8] + priced
end

-- The names of one model's fields.
local function fields_of(name)
  local fields = model_fields[name]
  if not fields then
    fields = {}
    for index = 1, #MODEL_FIELDS do
      fields[index] = name .. MODEL_FIELDS[index]
    end
    model_fields[name] = fields
  end
  return fields
end

-- What :models holds of the models that move: read by one command and before anything is written.
local function read_models()
  local size = 0
  for name, by in pairs(moved_models) do
    local fields = fields_of(name)
    for index = 1, ALWAYS_READ do
      model_args[size + index] = fields[index]
    end
    size = size + ALWAYS_READ
    for index = ALWAYS_READ + 1, #MODEL_FIELDS do
      if by[index + 1] ~= 0 then
        size = size + 1
        model_args[size] = fields[index]
      end
    end
  end
  return call_with('HMGET', models_key, model_args, size)
end

-- Takes the names that a session has no room for together as OTHER; `stored` is what was read of the models that move,
-- and what is returned is that anew.  Once there is OTHER, no name is added: so what a trace takes back it takes from
-- where it was put.  With the last of it OTHER goes as well.
local function bound_models(stored, new)
  local at, unknown = 0, {}
  for name, by in pairs(moved_models) do
    if not stored[at + 1] and name ~= OTHER then
      unknown[#unknown + 1] = name
    end
    at = at + ALWAYS_READ + (by[7] ~= 0 and 1 or 0) + (by[8] ~= 0 and 1 or 0)
  end
  local room = MOST_MODELS
  if #unknown > 0 and not new then
    local known = floor(call('HLEN', models_key) / ALWAYS_READ)
    room = call('HEXISTS', models_key, OTHER .. MODEL_FIELDS[1]) == 1 and 0 or max(0, room - known)
  end
  if #unknown <= room then
    return stored
  end
  table.sort(unknown, byte_order)
  for index = room + 1, #unknown do
    add_model(OTHER, 1, unpack(moved_models[unknown[index]]))
    moved_models[unknown[index]] = nil
  end
  return new and stored or read_models()
end

local function write_models(stored)
  local changes, deletes, at, size = model_args, {}, 0, 0
  for name, by in pairs(moved_models) do  -- in the order in which they were read: nothing was added since
    local fields, a, b, c, d, usd, nano = fields_of(name), by[1], by[2], by[3], by[4], by[5], by[6]
    local known, more = stored[at + 1], ALWAYS_READ  -- how many were read of this one
    if known then
      a, b, c, d = a + known, b + stored[at + 2], c + stored[at + 3], d + stored[at + 4]
      local stored_usd, stored_nano = nano_parts(stored[at + 5])
      usd, nano = usd + stored_usd, nano + stored_nano
    end
    local carry = floor(nano / BILLION)
    usd, nano = usd + carry, nano - carry * BILLION
    if a ~= 0 or b ~= 0 or c ~= 0 or d ~= 0 or usd ~= 0 or nano ~= 0 then
      changes[size + 1], changes[size + 2], changes[size + 3], changes[size + 4], changes[size + 5], changes[size + 6],
        changes[size + 7], changes[size + 8] = fields[1], text_of(a), fields[2], text_of(b), fields[3], text_of(c),
        fields[5], nano_text(usd, nano)
      size = size + 8
      if not known or by[4] ~= 0 then
        changes[size + 1], changes[size + 2] = fields[4], text_of(d)
        size = size + 2
      end
      for index = ALWAYS_READ + 1, #MODEL_FIELDS do
        if by[index + 1] ~= 0 then
          more = more + 1
          local sum = by[index + 1] + (stored[at + more] or 0)
          if sum ~= 0 then
            changes[size + 1], changes[size + 2] = fields[index], text_of(sum)
            size = size + 2
          else
            deletes[#deletes + 1] = fields[index]
          end
        end
      end
    else
      more = more + (by[7] ~= 0 and 1 or 0) + (by[8] ~= 0 and 1 or 0)
      if known then
        for index = 1, #MODEL_FIELDS do
          deletes[#deletes + 1] = fields[index]
        end
      end
    end
    at = at + more
  end
  call_with('HSET', models_key, changes, size)
  call_with('HDEL', models_key, deletes, #deletes)
end

-- Sums --------------------------------------------------------------------------------------------------------------

-- Has a sum read, and its partner with it; those that have been read are in `sums`.
local function want(position, count)
  if position == USD then
    position = NANO
  end
  while position and sums[position] == nil do
    sums[position] = false
    count = count + 1
    asked[count], wanted[count] = position, NAMES[position]
    position = PARTNER[position]
  end
  return count
end

-- Reads the sums of which `counts` has something and which have not been read, behind `count` fields in `wanted`.
local function read_sums(counts, count)
  local before = count
  for position = TRACES, NANO do
    if counts[position] ~= 0 then
      count = want(position, count)
    end
  end
  if count == 0 then
    return
  end
  local stored = call('HMGET', session_key, unpack(wanted, 1, count))
  for index = before + 1, count do
    sums[asked[index]] = stored[index]
  end
  return stored
end

-- Appends the fields of the sums that moved, of all in a new session, behind the first `size` in `sets`.
local function plan_sums(size, new)
  local sums, sets, moved = sums, sets, moved  -- luacheck: ignore 431 (an upvalue takes one step more each time)
  for position = TRACES, TRUNCATED do
    local by = moved[position]
    if by ~= 0 or new and position <= SHOWN then
      local sum = by + (sums[position] or 0)
      sets[size + 1], sets[size + 2], sums[position] = NAMES[position], text_of(sum), sum
      size = size + 2
    end
  end
  if new or moved[PROMPT] ~= 0 or moved[COMPLETION] ~= 0 then
    sets[size + 1], sets[size + 2] = 'total_tokens', text_of((sums[PROMPT] or 0) + (sums[COMPLETION] or 0))
    size = size + 2
  end
  if new or moved[USD] ~= 0 or moved[NANO] ~= 0 then
    local usd, nano = nano_parts(sums[NANO] or '0')
    usd, nano = usd + moved[USD], nano + moved[NANO]
    local carry = floor(nano / BILLION)
    usd, nano = usd + carry, nano - carry * BILLION
    sets[size + 1], sets[size + 2] = 'cost_nano_usd', nano_text(usd, nano)
    sets[size + 3], sets[size + 4] = 'cost_usd', format('%d.%09d', usd, nano)
    size = size + 4
  end
  if new or moved[REPORTED] ~= 0 or moved[PRICED] ~= 0 then
    local reported, priced = tonumber(sums[REPORTED] or 0), tonumber(sums[PRICED] or 0)
    local has_reported, has_priced = reported > 0, priced > 0
    if new or has_reported ~= (reported > moved[REPORTED]) or has_priced ~= (priced > moved[PRICED]) then
      sets[size + 1] = 'cost_source'
      sets[size + 2] = has_reported and has_priced and 'mixed' or has_reported and 'reported' or has_priced and 'priced'
        or 'none'
      size = size + 2
    end
  end
  return size
end

-- The session -------------------------------------------------------------------------------------------------------

-- Reads a trace of the item: its values and its counts by the positions above.
local function read_trace(at)
  local trace = {unpack_limit(argument, HEAD, at)}
  local counts = {unpack_limit(argument, COUNTS, trace[1])}
  at = counts[1]
  trace[1] = at  -- where its models begin
  for _ = 1, trace[MODELS] do
    at = unpack_limit(argument, 9, at)
  end
  return at, trace, counts
end

-- What the new version of a trace moves, `old` being the private part of the one shown.
local function move(trace, counts, old)
  local at = trace[1]
  for _ = 1, trace[MODELS] do
    local name, a, b, c, d, usd, nano, reported, priced
    at, name, a, b, c, d, usd, nano, reported, priced = unpack_limit(argument, 9, at)
    add_model(name, 1, a, b, c, d, usd, nano, reported, priced)
  end
  if old then
    replaced = true
    local position = TRACES
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
  end
  if not moved then
    moved = counts
    return
  end
  for position = TRACES, NANO do
    moved[position] = moved[position] + counts[position]
  end
end

-- How the entry shown, of this version, stands to a trace that is put: below zero where it is the older one.
-- Replacements are compared last: two states that hold the same spans have had as many only if neither was ever lost.
local function newer_than(shown, shown_version, trace)
  local version = trace[VERSION]
  if floor(shown_version / VERSION_UNIT) == floor(version / VERSION_UNIT) then
    local contents = contents_of(shown)
    for index = 1, #contents do
      local difference = contents[index] - trace[VERSION + index]
      if difference ~= 0 then
        return difference
      end
    end
  end
  return shown_version - version
end

-- Takes one trace in: its version against the one shown, and what it moves.
local function take(trace, counts, shown, state, bounds)
  local shown_version = shown and version_of(shown) or 0
  local newer = shown and newer_than(shown, shown_version, trace)
  if newer and newer >= 0 then
    if trace[BORN] > changed_of(shown) + trace_life_ms then
      return TOO_LATE, shown_version
    end
    return newer == 0 and SAME or STALE, shown_version
  elseif not shown and state[FOLDED] > 0 and trace[FIRST] == 0 and counts[TRACES] > 0 and may_be_folded(trace) then
    return IS_FOLDED, shown_version
  end
  local old = shown and private_part(shown)
  if old and trace[BORN] > old[P_CHANGED] + trace_life_ms then
    return TOO_LATE, shown_version
  end
  if not shown then
    state[ENTRIES] = state[ENTRIES] + 1
  end
  if counts[TRACES] == 0 and not (old and old[P_COUNTS][1] > 0) then
    return APPLIED, trace[VERSION]
  end
  least_ms = changed and min(least_ms, trace[CHANGED]) or trace[CHANGED]
  changed = true
  if trace[CHANGED] > state[LAST] then
    state[LAST] = trace[CHANGED]
  end
  local started, ended, user = trace[T_STARTED], trace[T_ENDED], trace[USE]
  if old then
    local was = use_text(old[P_USERS][1])
    if (old[P_STARTED] > 0 and old[P_STARTED] == bounds[1] and (started == 0 or started > bounds[1]))
      or (old[P_ENDED] > 0 and old[P_ENDED] == bounds[2] and ended < bounds[2])
      or (was and was == bounds[3] and (user == '' or used_before(was, user))) then
      exact = false
    end
  end
  move(trace, counts, old)
  if started > 0 and (bounds[1] == 0 or started < bounds[1]) then
    bounds[1] = started
  end
  if ended > bounds[2] then
    bounds[2] = ended
  end
  if user ~= '' and (not bounds[3] or used_before(user, bounds[3])) then
    bounds[3] = user
  end
  return APPLIED, trace[VERSION]
end

-- Puts the fields of the bounds that differ from what `state` has behind the first `size` in `sets`; what has become
-- unknown goes to `deletes`.
local function plan_bounds(size, deletes, state, bounds, was_user)
  local user = bounds[3]
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
    return size
  end
  state[STARTED], state[ENDED] = started, ended
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
    size = size + 2
  end
  return size
end

local function bound_text(us, opened_ms)
  return us > 0 and format('%d', us - opened_ms * 1000) or 'false'
end

local function state_text(state)
  local opened_ms = state[OPENED]
  return format('[%d,%d,%d,%d,%d,%d,%d,%d,%s,%s]', state[STATUS], state[2], opened_ms, state[SINCE] - opened_ms,
    state[LAST] - opened_ms, state[ENTRIES], state[FOLDED], state[REASON], bound_text(state[STARTED], opened_ms),
    bound_text(state[ENDED], opened_ms))
end

local function state_of(text)
  local state = decode(text)
  assert(#state == ENDED, 'a session that another version has written')
  local opened_ms, started, ended = state[OPENED], state[STARTED], state[ENDED]
  state[SINCE], state[LAST] = state[SINCE] + opened_ms, state[LAST] + opened_ms
  state[STARTED] = started and started + opened_ms * 1000 or 0
  state[ENDED] = ended and ended + opened_ms * 1000 or 0
  return state
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
  call_with('HSET', traces_key, rows, #rows)
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
    call('PERSIST', models_key)  -- first: the other two were read, so they are here
    call('PERSIST', session_key)
    call('PERSIST', traces_key)
  end
  state[STATUS], state[SINCE], state[REASON] = OPEN, least_ms, 0
  return REOPENED
end

-- Writes everything that a put changed; returns the transition.
local function write(names_at, state, bounds, last_ms, was_user, new, leftovers)
  local was_folded, models = state[FOLDED], new and {} or read_models()
  models = bound_models(models, new)
  if not new then
    if replaced then
      read_sums(moved, 0)  -- those of which only the old versions had something
    end
  end
  local transition = enter(state, new)
  call_with('HSET', traces_key, rows, #rows)
  if leftovers then
    call('PERSIST', traces_key)
  end
  write_models(models)
  if not exact then
    bounds[1], bounds[2], bounds[3] = bounds_of_all()
  end
  if state[ENTRIES] > max_session_traces then
    fold(state)
  end
  local deletes = {}
  local size = plan_bounds(2, deletes, state, bounds, was_user)
  sets[1], sets[2] = '_s', state_text(state)
  if new or state[LAST] ~= last_ms then
    sets[size + 1], sets[size + 2] = 'last_activity_ms', format('%d', state[LAST])
    size = size + 2
  end
  size = plan_sums(size, new)
  if new or moved[TRUNCATED] ~= 0 or state[FOLDED] ~= was_folded or moved_models[OTHER] then
    local truncated = state[FOLDED] > 0 or tonumber(sums[TRUNCATED] or 0) > 0
      or ((moved_models[OTHER] or not new) and call('HEXISTS', models_key, OTHER .. MODEL_FIELDS[1]) == 1)
    sets[size + 1], sets[size + 2] = 'truncated', truncated and '1' or '0'
    size = size + 2
  end
  if transition ~= NONE then
    sets[size + 1], sets[size + 2] = 'status', 'open'
    size = size + 2
  end
  if new then
    -- What never changes goes last: the others are found sooner.
    local _, project, session_id = unpack_limit(argument, 2, names_at)
    sets[size + 1], sets[size + 2], sets[size + 3], sets[size + 4] = 'project', project, 'session_id', session_id
    sets[size + 5], sets[size + 6] = 'revision', '0'
    sets[size + 7], sets[size + 8] = 'opened_at', time_text(state[OPENED] * 1000)
    size = size + 8
  end
  call('HSET', session_key, unpack(sets, 1, size))
  if #deletes > 0 and not new then
    call('HDEL', session_key, unpack(deletes))
  end
  return transition
end

-- Reads what is stored of the session: nil, or its state and its first use of a user.  The sums that the item's traces
-- have something of are read with it.
local function read_session(counts_of)
  wanted[1], wanted[2], wanted[3] = '_s', '_u', 'user_id'
  local counts = counts_of[1]
  if #counts_of > 1 then
    counts = {}
    for position = TRACES, NANO do
      counts[position] = 0
      for index = 1, #counts_of do
        counts[position] = max(counts[position], counts_of[index][position])
      end
    end
  end
  local stored = read_sums(counts or {}, 3)
  if stored[1] then
    return state_of(stored[1]), stored[2] and stored[2] .. stored[3] or nil
  end
end

-- The reply for an item whose session has been erased.
local function erased_reply(trace_count)
  local outcomes, versions = {}, {}
  for index = 1, trace_count do
    outcomes[index], versions[index] = ERASED, 0
  end
  return {NONE, 0, outcomes, versions}
end

-- Returns nil where there is nothing to tell.
local function put(at, trace_count)
  at, session_key = unpack_limit(argument, 1, at)
  traces_key, models_key = session_key .. ':traces', session_key .. ':models'
  moved, rows, changed, replaced, exact, least_ms, folded_ms = nil, {}, false, false, true, nil, nil
  for position = TRACES, NANO do
    sums[position] = nil
  end
  for name in pairs(moved_models) do
    moved_models[name] = nil
  end
  local traces, counts_of, ids = {}, {}, {}
  for index = 1, trace_count do
    local trace, counts
    at, trace, counts = read_trace(at)
    if index == 1 then  -- nearly always the only one
      traces, counts_of, ids = {trace}, {counts}, {trace[ID]}
    else
      traces[index], counts_of[index], ids[index] = trace, counts, trace[ID]
    end
  end
  local state, was_user = read_session(counts_of)
  local new, leftovers, entries = not state, false, {}
  if new then
    state = {OPEN, 0, 0, 0, 0, 0, 0, 0, 0, 0}
    local _, _, _, erased_key = unpack_limit(argument, 3, at)
    leftovers = call('EXISTS', traces_key, models_key, erased_key) > 0
    if leftovers and call('EXISTS', erased_key) == 1 then
      return erased_reply(trace_count)
    elseif leftovers then
      state[ENTRIES] = sweep()
    end
  end
  if trace_count > 0 and (not new or leftovers) then
    entries = call('HMGET', traces_key, unpack(ids))
  end
  local last_ms, bounds = state[LAST], {state[STARTED], state[ENDED], was_user}
  local entry_of, outcomes, versions, all_applied, latest_ms = nil, nil, nil, true, 0
  for index = 1, trace_count do
    local id, trace = ids[index], traces[index]
    local shown = entry_of and entry_of[id] or entries[index]
    local outcome, version = take(trace, counts_of[index], shown, state, bounds)
    if index == 1 then
      outcomes, versions, entry_of = {outcome}, {version}, trace_count > 1 and {}
    else
      outcomes[index], versions[index] = outcome, version
    end
    if outcome == APPLIED then
      local entry, size = ARGV[entries_before + index], #rows
      if size == 0 then
        rows = {id, entry}
      else
        rows[size + 1], rows[size + 2] = id, entry
      end
      if entry_of then
        entry_of[id] = entry
      end
    else
      all_applied = false
    end
    latest_ms = max(latest_ms, trace[CHANGED])
  end

  local transition = NONE
  if changed then
    transition = write(at, state, bounds, last_ms, was_user, new, leftovers)
  elseif #rows > 0 then
    write_tombstones(state, new)
  end
  local deadline_ms = 0
  if state[STATUS] ~= CLOSED and (not new or changed) then
    deadline_ms = min(state[LAST] + idle_timeout_ms, state[SINCE] + max_duration_ms)
  end
  if not all_applied then
    return {transition, deadline_ms, outcomes, versions}
  elseif transition ~= NONE or deadline_ms ~= latest_ms + idle_timeout_ms then
    return {transition, deadline_ms}
  end
end

local replies = {}
for index = 1, item_count do
  local length, trace_count
  offset, length, trace_count = unpack_limit(argument, 2, offset)
  local done, reply = pcall(put, offset, trace_count)
  if not done then
    reply = {type(reply) == 'table' and reply.err or tostring(reply)}
  end
  if reply then
    table.insert(reply, 1, index)
    replies[#replies + 1] = reply
  end
  offset, entries_before = offset + length, entries_before + trace_count
end
return cmsgpack.pack(replies)
