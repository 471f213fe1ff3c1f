#!lua flags=allow-cross-slot-keys
-- session_put: move the sums of many sessions by the difference between the new and the old versions of their traces.
--
-- ARGV[1]  MessagePack list {idle_timeout_ms, max_duration_ms, retention_ms, max_session_traces, items}; an item is
--          {session key, :traces key, :models key, project, session id, traces}, a trace is model.TracePut in its
--          order.  KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item its error text or {transition, deadline_ms} where all traces were applied, else
--          {transition, deadline_ms, outcomes, versions}.  transition: 0 none, 1 opened, 2 reopened.
--          outcome: 0 applied, 1 same, 2 stale, 3 folded.
--
-- Private fields of the session hash, first in it because a listpack is searched from its head, each a series of
-- MessagePack values that stays below the 64 bytes a listpack takes:
--   _s  status (0 open, 1 closing, 2 closed), revision, opened_ms, since_ms (of this opening), last_activity_ms,
--       started_us, ended_us, entries in :traces, traces folded, close reason (0 none, 1 idle, 2 max_duration)
--   _c, _d  the sums: model.Counts 1 to 12 and 13 to 23
--   _u  first use of the user shown: start_us, span id, user id; missing without a user
--   _f  what folded traces leave behind: started_us, ended_us, users, services; missing while none is folded
--
-- Idempotent: a version that :traces holds already, or an older one, changes nothing; all written values are absolute.
-- Every key is read before the first is written, so that an item whose slot is moving fails whole.

local call, pack, unpack_all, decode = redis.call, cmsgpack.pack, cmsgpack.unpack, cjson.decode
local find, format, match, sub = string.find, string.format, string.match, string.sub
local floor, max, min = math.floor, math.max, math.min

local APPLIED, SAME, STALE, IS_FOLDED = 0, 1, 2, 3
local NONE, OPENED_NOW, REOPENED = 0, 1, 2
local OPEN, CLOSED = 0, 2
-- Positions in _s.
local STATUS, OPENED, SINCE, LAST, STARTED, ENDED, ENTRIES, FOLDED, REASON = 1, 3, 4, 5, 6, 7, 8, 9, 10
-- Positions in model.Counts; the first 14 are fields of their own under these names.
local PROMPT, COMPLETION, REPORTED, PRICED, TRUNCATED, USD, NANO, COUNTS = 6, 7, 15, 16, 21, 22, 23, 23
local NAMES = {
  'trace_count', 'span_count', 'llm_span_count', 'error_count', 'error_trace_count', 'prompt_tokens',
  'completion_tokens', 'cache_read_tokens', 'cache_write_tokens', 'reasoning_tokens', 'embedding_tokens',
  'llm_span_prompt_tokens', 'llm_span_completion_tokens', 'unpriced_calls',
}
-- Suffixes of the fields of :models, in the order of a model's figures; the cost is made of the 5th and the 6th.
local MODEL_FIELDS = {':calls', ':prompt_tokens', ':completion_tokens', ':embedding_tokens', ':cost_nano_usd'}
-- Positions in the private part of an entry, and the marker behind it: a quote within JSON text is never bare.
local P_CHANGED, P_COUNTS, P_STARTED, P_ENDED, P_USERS, P_SERVICES, P_MODELS = 2, 3, 4, 5, 6, 7, 8
local AFTER_PRIVATE = '],"trace_id":"'
local BILLION = 1000000000
local LISTED = 16

local request = unpack_all(ARGV[1])
local idle_timeout_ms, max_duration_ms = request[1], request[2]
local retention_ms, max_session_traces, items = format('%.0f', request[3]), request[4], request[5]

local function text(number)
  return format('%.0f', number)
end

-- Numbers -----------------------------------------------------------------------------------------------------------

-- Nano-dollars of (dollars, rest); together they may pass 2^53, so they meet as text.
local function nano_text(usd, nano)
  if usd > 0 then
    return format('%.0f%09.0f', usd, nano)
  end
  return text(nano)
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
  return format('%s%.0f.%03d', sign, ms, us - ms * 1000)
end

-- Entries of :traces --------------------------------------------------------------------------------------------------

local function private_part(entry)
  if sub(entry, 1, 5) == '{"_":' then
    local stop = find(entry, AFTER_PRIVATE, 6, true)
    return decode(stop and sub(entry, 6, stop) or sub(entry, 6, -2))
  end
  return decode(entry)['_']
end

local function version_of(entry)
  return tonumber(match(entry, '^{"_":%[(%d+)') or private_part(entry)[1])
end

local function byte_order(a, b)
  -- The < of Lua asks the server's locale, which is not the order of bytes.
  local shorter = min(#a, #b)
  for position = 1, shorter do
    local x, y = string.byte(a, position), string.byte(b, position)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- Orders first uses {start_us, span id, user id}.
local function used_before(a, b)
  if a[1] ~= b[1] then
    return a[1] < b[1]
  elseif a[2] ~= b[2] then
    return byte_order(a[2], b[2])
  end
  return byte_order(a[3], b[3])
end

local function same_use(a, b)
  return a[1] == b[1] and a[2] == b[2] and a[3] == b[3]
end

-- Bounds and first user of {started_us, ended_us, user}, widened by one trace's.
local function widen(bounds, started, ended, user)
  if started > 0 and (bounds[1] == 0 or started < bounds[1]) then
    bounds[1] = started
  end
  if ended > bounds[2] then
    bounds[2] = ended
  end
  if user and (not bounds[3] or used_before(user, bounds[3])) then
    bounds[3] = user
  end
end

-- Bounds from all entries and the folded part: the way when a trace that was an extreme has changed.
local function bounds_of_all(traces_key, session_key)
  local bounds = {0, 0, false}
  for _, entry in ipairs(call('HVALS', traces_key)) do
    local part = private_part(entry)
    widen(bounds, part[P_STARTED], part[P_ENDED], part[P_USERS][1])
  end
  local folded = call('HGET', session_key, '_f')
  if folded then
    local started, ended, users = unpack_all(folded)
    widen(bounds, started, ended, users[1])
  end
  return bounds
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
    elseif used_before(user, known) then
      known[1], known[2] = user[1], user[2]
    end
  end
  table.sort(into, used_before)
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

-- Takes the entries that were changed longest ago out of :traces, a tenth of those allowed; their sums stay.
local function fold(session_key, traces_key, state)
  local all, aged = call('HGETALL', traces_key), {}
  for index = 1, #all, 2 do
    local changed_ms = tonumber(match(all[index + 1], '^{"_":%[%d+,(%d+)') or private_part(all[index + 1])[P_CHANGED])
    aged[#aged + 1] = {changed_ms, all[index], all[index + 1]}
  end
  table.sort(aged, function(a, b)
    if a[1] ~= b[1] then
      return a[1] < b[1]
    end
    return byte_order(a[2], b[2])
  end)
  local stored = call('HGET', session_key, '_f')
  local started, ended, users, services = 0, 0, {}, {}
  if stored then
    started, ended, users, services = unpack_all(stored)
  end
  local bounds = {started, ended, false}
  local count = max(#aged - max_session_traces, floor((max_session_traces + 9) / 10))
  for index = 1, count do
    local part = private_part(aged[index][3])
    widen(bounds, part[P_STARTED], part[P_ENDED], nil)
    merge_users(users, part[P_USERS])
    merge_services(services, part[P_SERVICES])
    call('HDEL', traces_key, aged[index][2])
  end
  call('HSET', session_key, '_f', pack(bounds[1], bounds[2], users, services))
  state[ENTRIES] = #aged - count
  state[FOLDED] = state[FOLDED] + count
end

-- Models ------------------------------------------------------------------------------------------------------------

local function add_models(moved, models, sign)
  for name, figures in pairs(models) do
    local sums = moved[name]
    if not sums then
      sums = {0, 0, 0, 0, 0, 0}
      moved[name] = sums
    end
    for index = 1, 6 do
      sums[index] = sums[index] + sign * figures[index]
    end
  end
end

-- The six figures of a model as stored, and whether it was stored.
local function read_model(models_key, name)
  local stored = call('HMGET', models_key, name .. ':calls', name .. ':prompt_tokens', name .. ':completion_tokens',
    name .. ':embedding_tokens', name .. ':cost_nano_usd')
  if not stored[1] then
    return {0, 0, 0, 0, 0, 0}, false
  end
  local usd, nano = nano_parts(stored[5])
  return {tonumber(stored[1]), tonumber(stored[2]), tonumber(stored[3]), tonumber(stored[4]), usd, nano}, true
end

-- HSET and HDEL arguments that move a model's figures to `sums`.
local function plan_model(sets, deletes, name, before, stored, moved)
  local usd, nano = before[5] + moved[5], before[6] + moved[6]
  local carry = floor(nano / BILLION)
  usd, nano = usd + carry, nano - carry * BILLION
  local calls, prompt, completion = before[1] + moved[1], before[2] + moved[2], before[3] + moved[3]
  local embedding = before[4] + moved[4]
  if calls == 0 and prompt == 0 and completion == 0 and embedding == 0 and usd == 0 and nano == 0 then
    if stored then
      for _, suffix in ipairs(MODEL_FIELDS) do
        deletes[#deletes + 1] = name .. suffix
      end
    end
    return
  end
  local after = {calls, prompt, completion, embedding}
  local size = #sets
  for index = 1, 4 do
    if not stored or moved[index] ~= 0 then
      sets[size + 1], sets[size + 2] = name .. MODEL_FIELDS[index], text(after[index])
      size = size + 2
    end
  end
  if not stored or moved[5] ~= 0 or moved[6] ~= 0 then
    sets[size + 1], sets[size + 2] = name .. MODEL_FIELDS[5], nano_text(usd, nano)
  end
end

-- The session -------------------------------------------------------------------------------------------------------

-- Applies the traces to `state` and `bounds` in memory; says what is to be written.
local function apply(traces, entries, state, bounds)
  local outcomes, versions, all_applied = {}, {}, true
  local plan = {entries = {}, moved = nil, models = {}, changed = false, exact = true, least_ms = nil}
  local latest, sets = {}, plan.entries
  for index = 1, #traces do
    local trace = traces[index]
    local id, version, changed_ms, counts = trace[1], trace[2], trace[3], trace[5]
    local entry = latest[id] or entries[index]
    local shown = entry and version_of(entry) or 0
    local outcome
    if entry and shown >= version then
      outcome = shown == version and SAME or STALE
    elseif not entry and state[FOLDED] > 0 and not trace[4] and counts[1] > 0 then
      outcome = IS_FOLDED
    else
      outcome, shown = APPLIED, version
      local old = entry and private_part(entry)
      if not entry then
        state[ENTRIES] = state[ENTRIES] + 1
      end
      latest[id] = trace[11]
      sets[#sets + 1], sets[#sets + 2] = id, trace[11]
      if counts[1] > 0 or (old and old[P_COUNTS][1] > 0) then
        plan.changed = true
        plan.least_ms = min(plan.least_ms or changed_ms, changed_ms)
        state[LAST] = max(state[LAST], changed_ms)
        local moved, before = plan.moved or {}, old and old[P_COUNTS]
        for position = 1, COUNTS do
          moved[position] = (moved[position] or 0) + counts[position] - (before and before[position] or 0)
        end
        plan.moved = moved
        add_models(plan.models, trace[10], 1)
        local started, ended, user = trace[6], trace[7], trace[8][1]
        if old then
          add_models(plan.models, old[P_MODELS], -1)
          local was = old[P_USERS][1]
          if (old[P_STARTED] > 0 and old[P_STARTED] == bounds[1] and (started == 0 or started > bounds[1]))
            or (old[P_ENDED] > 0 and old[P_ENDED] == bounds[2] and ended < bounds[2])
            or (was and bounds[3] and same_use(was, bounds[3]) and (not user or used_before(was, user))) then
            plan.exact = false
          end
        end
        widen(bounds, started, ended, user)
      end
    end
    outcomes[index], versions[index] = outcome, shown
    all_applied = all_applied and outcome == APPLIED
  end
  return plan, not all_applied and outcomes or nil, versions
end

local function write_models(models_key, moved_models, before)
  local sets, deletes = {}, {}
  for name, moved in pairs(moved_models) do
    plan_model(sets, deletes, name, before[name][1], before[name][2], moved)
  end
  if #deletes > 0 then
    call('HDEL', models_key, unpack(deletes))
  end
  if #sets > 0 then
    call('HSET', models_key, unpack(sets))
  end
end

-- Appends the public fields of the sums that moved (of all in a new session).
local function plan_sums(sets, sums, moved, new)
  local size = #sets
  for index = 1, 14 do
    if new or moved[index] ~= 0 then
      sets[size + 1], sets[size + 2] = NAMES[index], text(sums[index])
      size = size + 2
    end
  end
  if new or moved[PROMPT] ~= 0 or moved[COMPLETION] ~= 0 then
    sets[size + 1], sets[size + 2] = 'total_tokens', text(sums[PROMPT] + sums[COMPLETION])
    size = size + 2
  end
  if new or moved[USD] ~= 0 or moved[NANO] ~= 0 then
    sets[size + 1], sets[size + 2] = 'cost_nano_usd', nano_text(sums[USD], sums[NANO])
    sets[size + 3], sets[size + 4] = 'cost_usd', format('%.0f.%09.0f', sums[USD], sums[NANO])
    size = size + 4
  end
  if new or moved[REPORTED] ~= 0 or moved[PRICED] ~= 0 then
    local reported, priced = sums[REPORTED] > 0, sums[PRICED] > 0
    sets[size + 1] = 'cost_source'
    sets[size + 2] = reported and priced and 'mixed' or reported and 'reported' or priced and 'priced' or 'none'
  end
end

-- Appends the fields of the bounds that differ from `before`; what has become unknown goes to `deletes`.
local function plan_bounds(sets, deletes, before, bounds)
  local user, was = bounds[3], before[3]
  if user and not (was and same_use(user, was)) then
    sets[#sets + 1], sets[#sets + 2] = '_u', pack(user[1], user[2], user[3])
    sets[#sets + 1], sets[#sets + 2] = 'user_id', user[3]
  elseif was and not user then
    deletes[#deletes + 1] = '_u'
    deletes[#deletes + 1] = 'user_id'
  end
  local started, ended = bounds[1], bounds[2]
  if started == before[1] and ended == before[2] then
    return
  end
  local us = {started_at = started ~= before[1] and started, ended_at = ended ~= before[2] and ended}
  for name, time in pairs(us) do
    if time and time > 0 then
      sets[#sets + 1], sets[#sets + 2] = name, time_text(time)
    elseif time then
      deletes[#deletes + 1] = name
    end
  end
  if started > 0 and ended > 0 then
    sets[#sets + 1], sets[#sets + 2] = 'duration_ms', duration_text(ended - started)
  else
    deletes[#deletes + 1] = 'duration_ms'
  end
end

-- A session that has no hash may have left tombstones, which stay; anything else belongs to one that was evicted.
local function sweep(traces_key, models_key)
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
local function write_tombstones(item, plan, state, new)
  local session_key, traces_key = item[1], item[2]
  call('HSET', traces_key, unpack(plan.entries))
  if new then
    call('PEXPIRE', traces_key, retention_ms)
    return
  end
  call('HSET', session_key, '_s', pack(unpack(state)))
  if state[STATUS] == CLOSED then
    call('PEXPIRE', traces_key, retention_ms, 'NX')
  end
end

-- Opens or reopens the session in `state` and says which.
local function enter(item, state, new, least_ms)
  if new then
    state[OPENED], state[SINCE] = least_ms, least_ms
    return OPENED_NOW
  elseif state[STATUS] == OPEN then
    return NONE
  end
  if state[STATUS] == CLOSED then
    call('PERSIST', item[1])
    call('PERSIST', item[2])
    call('PERSIST', item[3])
  end
  state[STATUS], state[SINCE], state[REASON] = OPEN, least_ms, 0
  return REOPENED
end

-- Writes everything that a put changed; returns the transition.
local function write(item, plan, state, stored, before, bounds)
  local session_key, traces_key, models_key = item[1], item[2], item[3]
  local new, last_ms, folded = not stored, before[4], state[FOLDED]
  local models = {}
  for name in pairs(plan.models) do
    models[name] = {read_model(models_key, name)}
  end
  local transition = enter(item, state, new, plan.least_ms)
  call('HSET', traces_key, unpack(plan.entries))
  if plan.leftovers then
    call('PERSIST', traces_key)
  end
  if not plan.exact then
    bounds = bounds_of_all(traces_key, session_key)
  end
  if state[ENTRIES] > max_session_traces then
    fold(session_key, traces_key, state)
  end
  write_models(models_key, plan.models, models)

  local moved, sums = plan.moved, stored and {unpack_all(stored[2] .. stored[3])} or plan.moved
  local was_truncated = stored and (folded > 0 or sums[TRUNCATED] > 0)
  if stored then
    for position = 1, COUNTS do
      sums[position] = sums[position] + moved[position]
    end
  end
  local carry = floor(sums[NANO] / BILLION)
  sums[USD], sums[NANO] = sums[USD] + carry, sums[NANO] - carry * BILLION
  state[STARTED], state[ENDED] = bounds[1], bounds[2]
  local sets = {
    '_s', pack(unpack(state)), '_c', pack(unpack(sums, 1, 12)), '_d', pack(unpack(sums, 13, COUNTS)),
  }
  local deletes = {}
  plan_bounds(sets, deletes, before, bounds)
  if transition ~= NONE then
    sets[#sets + 1], sets[#sets + 2] = 'status', 'open'
  end
  if new then
    sets[#sets + 1], sets[#sets + 2] = 'project', item[4]
    sets[#sets + 1], sets[#sets + 2] = 'session_id', item[5]
    sets[#sets + 1], sets[#sets + 2] = 'revision', '0'
    sets[#sets + 1], sets[#sets + 2] = 'opened_at', time_text(state[OPENED] * 1000)
  end
  if new or state[LAST] ~= last_ms then
    sets[#sets + 1], sets[#sets + 2] = 'last_activity_ms', text(state[LAST])
  end
  plan_sums(sets, sums, moved, new)
  local truncated = state[FOLDED] > 0 or sums[TRUNCATED] > 0
  if new or truncated ~= was_truncated then
    sets[#sets + 1], sets[#sets + 2] = 'truncated', truncated and '1' or '0'
  end
  call('HSET', session_key, unpack(sets))
  if #deletes > 0 and not new then
    call('HDEL', session_key, unpack(deletes))
  end
  return transition
end

local function put(item)
  local session_key, traces_key, models_key, traces = item[1], item[2], item[3], item[6]
  local stored = call('HMGET', session_key, '_s', '_c', '_d', '_u')
  local state, user, leftovers
  if stored[1] then
    state = {unpack_all(stored[1])}
    user = stored[4] and {unpack_all(stored[4])}
  else
    state = {OPEN, 0, 0, 0, 0, 0, 0, 0, 0, 0}
    leftovers = call('EXISTS', traces_key, models_key) > 0
    if leftovers then
      state[ENTRIES] = sweep(traces_key, models_key)
    end
    stored = nil
  end
  local ids = {}
  for index = 1, #traces do
    ids[index] = traces[index][1]
  end
  local entries = call('HMGET', traces_key, unpack(ids))
  local before = {state[STARTED], state[ENDED], user, state[LAST]}
  local bounds = {state[STARTED], state[ENDED], user}
  local plan, outcomes, versions = apply(traces, entries, state, bounds)

  plan.leftovers = leftovers

  local transition = NONE
  if plan.changed then
    transition = write(item, plan, state, stored, before, bounds)
  elseif #plan.entries > 0 then
    write_tombstones(item, plan, state, not stored)
  end
  local deadline_ms = 0
  if state[STATUS] ~= CLOSED and (stored or plan.changed) then
    deadline_ms = min(state[LAST] + idle_timeout_ms, state[SINCE] + max_duration_ms)
  end
  if outcomes then
    return {transition, deadline_ms, outcomes, versions}
  end
  return {transition, deadline_ms}
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(put, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return pack(replies)
