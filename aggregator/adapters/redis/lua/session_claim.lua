#!lua flags=allow-cross-slot-keys
-- session_claim: mark many due sessions as closing and read them whole.
--
-- ARGV[1]  MessagePack list {watermark_ms, idle_timeout_ms, max_duration_ms, retention_ms, items}; an item is
--          {session key, :traces key, :models key}.  KEYS is only for routing and may be empty.
-- RETURNS  MessagePack list, per item its error text or one of
--          {0, deadline_ms, revision, reason, opened_ms, started_us or false, ended_us or false, folded traces,
--           sums as texts, _f or "", values of :traces, flat list of :models}            claimed
--          {1, deadline_ms}                                                              not due
--          {2}  closed          {3}  dropped          {4}  gone
--          reason is 1 (idle) or 2 (max_duration); times are distances from opened_ms, in microseconds; _f is as
--          session_put.lua keeps it.  The sums are those of model.Counts before the cost (0 where missing), and
--          cost_nano_usd.
--
-- Idempotent: a session that is closing already and still due is read again as it stands, with the same revision and
-- the reason that was stored at its first claim.  One that was dropped is gone the second time.

local call, unpack_all, pack = redis.call, cmsgpack.unpack, cmsgpack.pack
local min = math.min
local CLAIMED, NOT_DUE, ANSWER_CLOSED, DROPPED, GONE = 0, 1, 2, 3, 4
local OPEN, CLOSED = 0, 2
local IDLE, MAX_DURATION = 1, 2
-- Positions in the private field _s (session_put.lua).
local STATUS, REVISION, OPENED, SINCE, LAST, FOLDED, REASON, STARTED, ENDED = 1, 2, 3, 4, 5, 7, 8, 9, 10
local FIELDS = {
  '_s', '_f', 'trace_count', 'span_count', 'llm_span_count', 'error_count', 'error_trace_count', 'prompt_tokens',
  'completion_tokens', 'cache_read_tokens', 'cache_write_tokens', 'reasoning_tokens', 'embedding_tokens',
  'llm_span_prompt_tokens', 'llm_span_completion_tokens', 'unpriced_calls', '_reported_costs', '_priced_costs',
  '_conflicting_claim_traces', '_wrapper_usage_traces', '_nested_llm_traces', '_missing_root_traces',
  '_truncated_traces', 'cost_nano_usd',
}

local request = unpack_all(ARGV[1])
local watermark_ms, idle_timeout_ms, max_duration_ms = request[1], request[2], request[3]
local retention_ms, items = string.format('%.0f', request[4]), request[5]

-- Numbers by %d, since cjson would round the large ones.
local function state_text(state)
  local function bound(us)
    return us and string.format('%d', us) or 'false'
  end
  return string.format('[%d,%d,%d,%d,%d,%d,%d,%d,%s,%s]', state[1], state[2], state[3], state[4], state[5], state[6],
    state[7], state[8], bound(state[9]), bound(state[10]))
end

local function claim(item)
  local session_key, traces_key, models_key = item[1], item[2], item[3]
  local stored = call('HMGET', session_key, unpack(FIELDS))
  if not stored[1] then
    return {GONE}
  end
  local state = cjson.decode(stored[1])
  assert(#state == ENDED, 'a session that another version has written')
  if state[STATUS] == CLOSED then
    return {ANSWER_CLOSED}
  end
  local idle_ms = state[OPENED] + state[LAST] + idle_timeout_ms
  local deadline_ms = min(idle_ms, state[OPENED] + state[SINCE] + max_duration_ms)
  if watermark_ms < deadline_ms then
    return {NOT_DUE, deadline_ms}
  end
  local sums = {}
  for index = 3, #FIELDS do
    sums[index - 2] = stored[index] or '0'
  end
  -- Everything is read before anything is written: should a slot be moving, a key that is elsewhere fails the item.
  local entries, models = call('HVALS', traces_key), call('HGETALL', models_key)
  if sums[1] == '0' and state[REVISION] == 0 then
    call('PEXPIRE', traces_key, retention_ms)
    call('DEL', models_key)
    call('DEL', session_key)
    return {DROPPED}
  end
  if state[STATUS] == OPEN then
    state[STATUS] = 1
    state[REVISION] = state[REVISION] + 1
    state[REASON] = idle_ms <= watermark_ms and IDLE or MAX_DURATION
    call('HSET', session_key, '_s', state_text(state), 'status', 'closing', 'revision',
      string.format('%.0f', state[REVISION]))
  end
  return {
    CLAIMED, deadline_ms, state[REVISION], state[REASON], state[OPENED], state[STARTED], state[ENDED], state[FOLDED],
    sums, stored[2] or '', entries, models,
  }
end

local replies = {}
for index = 1, #items do
  local done, reply = pcall(claim, items[index])
  if not done then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[index] = reply
end
return pack(replies)
