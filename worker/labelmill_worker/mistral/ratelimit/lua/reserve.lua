-- Reserves permits for requests to one model, in the model's state and in the fleet's at once.
--
-- Keys
--   1 fleet next        time of the fleet's next permit
--   2 fleet tokens      time at which all tokens that the fleet reserved are paid off
--   3 fleet ranks       hash: the lowest `rank` that asked, `until` when it counts, when others get their `next` permit
--   4 fleet booked      sorted set by time: permits later than the fleet's next, `permits:tokens:who`, not yet paid by it
--   5 model next        as 1 to 3, of the model
--   6 model tokens
--   7 model ranks
--   8 model pause       time before which no request to the model starts
--   9 model adaptation  hash, see shared.lua
--  10 model started     hash: a ring of counters, see shared.lua
--  11 model reported    hash, see shared.lua
--  12 model first       there while the first request to a model whose limits are unknown is under way
--  13 model window      sorted set: the starts of the last minute and those reserved, by time
--  14 model under way   hash: tokens that each process has under way, see shared.lua
-- Arguments
--   1, 2  the fleet's limit: requests a second, tokens a second (0: none)
--   3, 4  the model's limit, which is never above the fleet's: requests a second, tokens a second (0: none)
--   5     tokens of the requests
--   6     longest wait (s)
--   7     how many permits, which the caller uses one after the other
--   8     how many of the permits that the caller reserved before were not used
--   9     rank of the requests, lower goes first (-1: none, they never yield)
--  10     1: the first request to a model whose limits are unknown goes alone; 7 is 1 then
--  11     what the caller is known by
--  12     tokens that it has under way, without these
-- Result: {what, wait (µs), spacing (µs), 1 where tokens are limited}
--   'reserved'   the first permit is for `wait` from now, each further one `spacing` later; 0: the limit is gone
--   'too far'    the first would be for `wait` from now, which is longer than the longest; nothing is reserved
--   'paused'     the model is paused for `wait`; nothing is reserved
--   'yield'      a lower rank asks: ask again after `wait`; nothing is reserved
--   'first'      as 'reserved', for the request that goes alone
--   'unknown'    that one is under way: ask again after `wait`; nothing is reserved
--   'month'      the tokens that are left of the month are fewer; nothing is reserved

local fleet_next, fleet_tokens, fleet_ranks, fleet_booked = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local model_next, model_tokens, model_ranks = KEYS[5], KEYS[6], KEYS[7]
local model_pause, model_adaptation, model_started = KEYS[8], KEYS[9], KEYS[10]
local fleet_rate, fleet_token_rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local rate, token_rate = tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens, max_wait_s = tonumber(ARGV[5]), tonumber(ARGV[6])
local count, unused, rank = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local model_reported, model_first, model_window, model_under_way = KEYS[11], KEYS[12], KEYS[13], KEYS[14]

-- 0. what Mistral reported
local reported = read_reported(model_reported)
local process, own_under_way = ARGV[11], tonumber(ARGV[12])
local is_month_over = false
if reported.month then
  is_month_over = reported.month - under_way_beside(model_under_way, process) - own_under_way < tokens
end
if is_month_over and now - reported.at < LAW.month_kept_s then return {'month', 0, 0, 0} end
-- a batch that is retried after that asks whether the limit was raised
local is_first = ARGV[10] == '1' and (not reported.at or is_month_over)
if is_first and redis.call('EXISTS', model_first) == 1 then return {'unknown', microseconds(LAW.first_poll_s), 0, 0} end
local own_requests, reported_rate = own_part(reported.requests, reported.by_others)
local _, reported_token_rate = own_part(reported.tokens, reported.of_others)

-- 1. the model's limit as far as it may be used now
local factor = 1
local adaptation = read_adaptation(model_adaptation)
if adaptation.factor then
  factor = grown_factor(adaptation)
  if rate > 0 or token_rate > 0 or reported_rate > 0 or reported_token_rate > 0 then
    if factor >= 1 then
      factor = 1
      redis.call('HDEL', model_adaptation, 'factor', 'since', 'hold')
    end
  elseif factor > LAW.forgotten_factor then
    redis.call('DEL', model_adaptation)
  else
    rate = adaptation.guess or 0
  end
end
rate, token_rate = lower(rate, reported_rate), lower(token_rate, reported_token_rate)
local used_rate, used_token_rate = rate * factor, token_rate * factor
local counts_tokens = (token_rate > 0 or reported.month) and 1 or 0

-- 2. the first time at which both limits allow a request
local pause_s = read_time(model_pause) - now
if pause_s > 0 then return {pause_s > max_wait_s and 'too far' or 'paused', microseconds(pause_s), 0, 0} end
local model_free_at = math.max(read_time(model_next, rate), read_time(model_tokens))
if own_requests then
  -- spacing alone keeps within a limit that stands still; where others use more of it, what was sent before counts
  redis.call('ZREMRANGEBYSCORE', model_window, '-inf', now - LAW.minute_s)
  redis.call('ZREMRANGEBYSCORE', model_window, now + furthest(rate), '+inf') -- from before the clock was set back
  local too_many = redis.call('ZCARD', model_window) + count - math.max(count, math.floor(own_requests))
  if too_many > 0 then
    local leaver = redis.call('ZRANGE', model_window, too_many - 1, too_many - 1, 'WITHSCORES')
    if leaver[2] then model_free_at = math.max(model_free_at, tonumber(leaver[2]) + LAW.minute_s) end
  end
end
local fleet_next_at, fleet_tokens_at, booked = 0, 0, {}
if fleet_rate > 0 or fleet_token_rate > 0 then
  if fleet_rate > 0 then fleet_next_at = read_time(fleet_next, fleet_rate) end
  if fleet_token_rate > 0 then fleet_tokens_at = read_time(fleet_tokens) end
  booked = redis.call('ZRANGE', fleet_booked, 0, -1, 'WITHSCORES')
end
-- The fleet's next permit and tokens once those booked until a time are paid, each at its own time; how many those are.
local function paid_until(at)
  local next_at, tokens_at, paid = fleet_next_at, fleet_tokens_at, 0
  for index = 1, #booked, 2 do
    local booked_at = tonumber(booked[index + 1])
    if booked_at > math.max(at, next_at, tokens_at) then break end
    local permits, booked_tokens = string.match(booked[index], '^(%d+):(%d+):')
    if fleet_rate > 0 then next_at = math.max(next_at, booked_at) + permits / fleet_rate end
    if fleet_token_rate > 0 then tokens_at = math.max(tokens_at, booked_at) + booked_tokens / fleet_token_rate end
    paid = paid + 1
  end
  return next_at, tokens_at, paid
end
local earliest = math.max(now, model_free_at)
local next_then, tokens_then = paid_until(earliest)
local start = math.max(earliest, next_then, tokens_then)
local paid
fleet_next_at, fleet_tokens_at, paid = paid_until(now)
local fleet_free_at = math.max(fleet_next_at, fleet_tokens_at)
local is_booked = start > math.max(now, fleet_free_at) + LAW.same_time_s
local wait_s = start - now
if wait_s > max_wait_s then return {'too far', microseconds(wait_s), 0, 0} end

-- 3. whether others go first: among the model's requests, and among the fleet's where its limit is what all wait for
local function cost_s(requests_per_s, tokens_per_s)
  return math.max(requests_per_s > 0 and count / requests_per_s or 0, tokens_per_s > 0 and tokens / tokens_per_s or 0)
end
local contests = {}
if rank >= 0 and (rate > 0 or token_rate > 0) then
  contests[#contests + 1] = {key = model_ranks, rate = rate, cost_s = cost_s(used_rate, used_token_rate)}
end
if rank >= 0 and (fleet_rate > 0 or fleet_token_rate > 0) and fleet_free_at >= model_free_at - LAW.same_time_s then
  contests[#contests + 1] = {key = fleet_ranks, rate = fleet_rate, cost_s = cost_s(fleet_rate, fleet_token_rate)}
end
for _, contest in ipairs(contests) do
  local leader = redis.call('HMGET', contest.key, 'rank', 'until', 'next')
  local leads_until = tonumber(leader[2] or '0')
  local is_led = leads_until > now and leads_until <= now + furthest()
  contest.yields = is_led and rank > tonumber(leader[1])
  local next_at = tonumber(leader[3] or '0')
  if contest.yields and next_at > start and next_at < now + furthest(contest.rate) then
    return {'yield', microseconds(next_at - now), 0, 0}
  end
end
for _, contest in ipairs(contests) do
  if contest.yields then
    redis.call('HSET', contest.key, 'next', start + LAW.yield_spacing_factor * contest.cost_s)
  else
    redis.call('HSET', contest.key, 'rank', rank, 'until', start + LAW.rank_kept_s)
  end
  redis.call('EXPIRE', contest.key, LAW.state_kept_s)
end

-- 4. reserve. A permit that is later than the fleet's next one, because its model must wait, is booked: the fleet pays
-- for it when its time comes. Paid at once from the next permit on, it would start beside others; and paid from its own
-- time on, it would hold back all other models until then.
local spacing_s = 0
if rate > 0 then
  spacing_s = 1 / used_rate
  if unused ~= 0 then count_started(model_started, now, -unused) end
  count_started(model_started, start, count)
  write_time(model_next, start + count * spacing_s)
end
if token_rate > 0 then write_time(model_tokens, start + tokens / used_token_rate) end
if paid > 0 then redis.call('ZREMRANGEBYRANK', fleet_booked, 0, paid - 1) end
if is_booked and (fleet_rate > 0 or fleet_token_rate > 0) then
  local who = string.format('%d:%d:%s:%.6f', count, tokens, model_next, now)
  redis.call('ZADD', fleet_booked, string.format('%.6f', start), who)
  redis.call('EXPIRE', fleet_booked, LAW.state_kept_s)
else
  if fleet_rate > 0 then fleet_next_at = start + count / fleet_rate end
  if fleet_token_rate > 0 then fleet_tokens_at = start + tokens / fleet_token_rate end
end
if fleet_next_at > now then write_time(fleet_next, fleet_next_at) end
if fleet_tokens_at > now then write_time(fleet_tokens, fleet_tokens_at) end
if is_first or own_requests then
  if unused > 0 then redis.call('ZREMRANGEBYRANK', model_window, -unused, -1) end
  for index = 0, count - 1 do
    local at = string.format('%.6f', start + index * spacing_s)
    redis.call('ZADD', model_window, at, at)
  end
  redis.call('EXPIRE', model_window, 2 * LAW.minute_s)
end
if reported.month then write_under_way(model_under_way, process, own_under_way + tokens * count) end
if is_first then redis.call('SET', model_first, '1', 'EX', LAW.first_kept_s) end
return {is_first and 'first' or 'reserved', microseconds(wait_s), microseconds(spacing_s), counts_tokens}
