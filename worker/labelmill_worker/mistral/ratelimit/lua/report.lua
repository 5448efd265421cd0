-- Records what an answer told of a model's limits, and what was used since the caller's last report.
--
-- Keys
--   1 model reported  hash, see shared.lua
--   2 model first     there while the first request to a model whose limits are unknown is under way
--   3 model window    sorted set of starts, see reserve.lua
--   4 model used      hash: a ring of the seconds of a minute, `second:tokens`
--   5 model tokens    time at which all tokens that were reserved are paid off
--   6 model under way hash: tokens that each process has under way, see shared.lua
--   7 models          set of the models that were asked lately
--   8 model answered  hash, see shared.lua
-- Arguments
--   1, 2  requests a minute, and how many of them are left (-1: not told)
--   3, 4  tokens a minute, and how many are left
--   5     tokens that are left of the month
--   6     how long ago the answered request started (s)
--   7     tokens that answers used since the caller's last report
--   8     what the caller is known by
--   9     tokens that it has under way
--  10     the model
--  11, 12 tokens of the largest request answered since the last report (0: none was); how long ago the last was (s)
-- Result: 0

local reported_key, first_key, window_key, used_key, tokens_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local function told(argument)
  local number = tonumber(argument)
  if number >= 0 then return number end
end
local requests, requests_left = told(ARGV[1]), told(ARGV[2])
local tokens, tokens_left, month = told(ARGV[3]), told(ARGV[4]), told(ARGV[5])
local began, used = now - tonumber(ARGV[6]), tonumber(ARGV[7])

redis.call('DEL', first_key)
redis.call('HSET', reported_key, 'at', string.format('%.6f', now))
redis.call('EXPIRE', reported_key, LAW.reported_kept_s)
local function keep(field, value)
  if value then redis.call('HSET', reported_key, field, value) else redis.call('HDEL', reported_key, field) end
end

-- What is left to others. They used what is gone and was not sent from here. While that rises they have begun lately,
-- and go on as they did in the last seconds; and what they used at most is soon used again, where they send in bursts.
local function keep_for_others(field, limit, used)
  local names, found = {}, {}
  for index, suffix in ipairs({'', '_at', '_seen', '_seen_at', '_before', '_before_at'}) do names[index] = field .. suffix end
  for index, value in ipairs(redis.call('HMGET', reported_key, unpack(names))) do found[index] = tonumber(value) or false end
  local kept, kept_at, seen, seen_at, before, before_at = unpack(found)
  if not used or used <= LAW.shared_share * limit + 1 then
    redis.call('HDEL', reported_key, unpack(names))
    keep(field, used)
    return
  end
  if not seen_at then seen, seen_at, before, before_at = used, now, used, now end
  if now - seen_at >= LAW.rise_s then seen, seen_at, before, before_at = used, now, seen, seen_at end
  local rise, rise_s = used - before, math.max(LAW.min_rise_s, now - before_at)
  local left = math.max(used, math.min(used + rise, rise * LAW.minute_s / rise_s))
  if kept_at and kept > used then
    left = math.max(left, used + (kept - used) * math.exp(math.min(0, kept_at - now) / LAW.others_kept_s))
  end
  local values = {math.min(left, limit), now, seen, seen_at, before, before_at}
  for index, value in ipairs(values) do redis.call('HSET', reported_key, names[index], string.format('%.6f', value)) end
end

if requests and requests > 0 then
  keep('requests', requests)
  local own = redis.call('ZCOUNT', window_key, '(' .. (began - LAW.minute_s), began)
  keep_for_others('by_others', requests, requests_left and math.max(0, requests - requests_left - own))
end
if tokens and tokens > 0 then
  keep('tokens', tokens)
  local second, own = math.floor(now), used
  local slot = second % LAW.minute_s
  for index, counted in ipairs(redis.call('HGETALL', used_key)) do
    local at, count = string.match(index % 2 == 0 and counted or '', '^(%d+):(%d+)$')
    if at and now - at < LAW.minute_s then own = own + count end
  end
  local known = string.match(redis.call('HGET', used_key, slot) or '', '^' .. second .. ':(%d+)$')
  redis.call('HSET', used_key, slot, second .. ':' .. math.floor(used + (known or 0)))
  redis.call('EXPIRE', used_key, 2 * LAW.minute_s)
  local others = tokens_left and math.max(0, tokens - tokens_left - own)
  keep_for_others('of_others', tokens, others)
  if others and others > LAW.shared_share * tokens then
    local missing = LAW.low_left_share * tokens - tokens_left
    if missing > 0 then
      local held_until = now + missing / tokens * LAW.minute_s
      if read_time(tokens_key) < held_until then write_time(tokens_key, held_until) end
    end
  end
end
keep('knows_left', (requests_left or tokens_left) and 1)

-- an answer that comes late may tell of a month of before
if month and began >= (tonumber(redis.call('HGET', reported_key, 'month_began')) or 0) then
  keep('month', month)
  keep('month_began', string.format('%.6f', began))
end
write_answered(KEYS[8], tonumber(ARGV[11]), now - tonumber(ARGV[12]), tokens)
write_under_way(KEYS[6], ARGV[8], tonumber(ARGV[9]))
redis.call('SADD', KEYS[7], ARGV[10])
redis.call('EXPIRE', KEYS[7], LAW.state_kept_s)
return 0
