-- Records a 429 for one model: pauses the model's requests, and adapts the share of its limit that is used.
-- The fleet's state is not touched: other models go on.
--
-- Keys
--   1 model pause       time before which no request to the model starts
--   2 model adaptation  hash, see shared.lua
--   3 model started     hash: a ring of counters, see shared.lua
--   4 reported          hash, see shared.lua
--   5 window            sorted set of the starts in the last minute, see reserve.lua
--   6 answered          hash, see shared.lua
-- Arguments
--   1     pause that the 429 asks for (s)
--   2, 3  the model's limit: requests a second, tokens a second (0: none)
--   4     requests started by the caller that the ring does not know of, where no limit is set
--   5     how long ago the refused request started (s)
--   6     1: its headers say that a window is used up, which explains it
--   7, 8  tokens of the largest request answered since the caller's last report (0: none); how long ago the last was (s)
-- Result: {how long the model is paused from now on (ms), how long before the refused request the last answer came (ms;
-- -1: none is known), tokens of the largest request that was answered (0: not known), the limit of a minute's tokens as
-- it was told last (-1: not told)}. A longer pause is never shortened.

local pause_key, adaptation_key, started_key = KEYS[1], KEYS[2], KEYS[3]
local asked_pause_s, rate, token_rate = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local unreported, age_s = tonumber(ARGV[4]), tonumber(ARGV[5])

local reported = read_reported(KEYS[4])
local _, reported_rate = own_part(reported.requests, reported.by_others)
local _, reported_token_rate = own_part(reported.tokens, reported.of_others)
rate, token_rate = lower(rate, reported_rate), lower(token_rate, reported_token_rate)
local is_limited = rate > 0 or token_rate > 0
local adaptation = read_adaptation(adaptation_key)
local last_end = adaptation.pause_end or 0
if last_end - now > furthest() then last_end = 0 end -- written before the clock was set back
local began = now - age_s
local is_new = began >= last_end -- else it was sent before the last pause ended, and tells nothing new
if not is_limited and unreported > 0 then count_started(started_key, began - LAW.unreported_age_s, unreported) end
local passed = started_before(started_key, began, is_new and last_end or 0)

-- 1. the pause. The first request after one is refused again: that one was too short, and the next is longer.
local short_pauses = 0
if is_new and began - last_end < LAW.window_s and passed < 1 then short_pauses = (adaptation.short_pauses or 0) + 1 end
local longer_s = short_pauses > 0 and math.min(LAW.max_short_pause_s, LAW.short_pause_growth ^ short_pauses) or 0
local pause_end = now + math.max(asked_pause_s, longer_s)
local known_end = read_time(pause_key)
if known_end < pause_end then
  local kept_ms = math.ceil((pause_end - now) * 1000) + LAW.pause_kept_ms
  redis.call('SET', pause_key, string.format('%.6f', pause_end), 'PX', kept_ms)
else
  pause_end = known_end
end
write_answered(KEYS[6], tonumber(ARGV[7]), now - tonumber(ARGV[8]))
local answered = redis.call('HMGET', KEYS[6], 'at', 'largest', 'tokens')
local quiet_ms = answered[1] and math.max(0, math.floor((began - tonumber(answered[1])) * 1000)) or -1
local result = {
  math.ceil((pause_end - now) * 1000), quiet_ms,
  math.floor(tonumber(answered[2]) or 0), math.floor(tonumber(answered[3]) or -1),
}
-- requests refused together each end the pause a little later; yet a request that starts at its first end is new
if is_new or pause_end > last_end + LAW.same_pause_s then
  redis.call('HSET', adaptation_key, 'pause_end', string.format('%.6f', pause_end))
end
redis.call('EXPIRE', adaptation_key, LAW.state_kept_s)
if not is_new then
  -- what the other processes had sent before a first 429 is known only now
  if adaptation.guess and not adaptation.is_firm and passed > adaptation.guess then
    redis.call('HSET', adaptation_key, 'guess', passed)
  end
  return result
end
redis.call('HSET', adaptation_key, 'short_pauses', short_pauses)
-- Mistral does not count what it refuses
local refused = redis.call('ZREVRANGEBYSCORE', KEYS[5], began, '-inf', 'LIMIT', 0, 1)[1]
if refused then redis.call('ZREM', KEYS[5], refused) end
-- the window tells by itself when the next request fits
if ARGV[6] == '1' and reported.knows_left then return result end

-- 2. the rate, once for all requests of one pause
if is_limited and now - last_end > LAW.lone_refusal_s and not adaptation.factor then return result end
if not is_limited then
  rate = adaptation.guess or math.max(LAW.min_guess_per_s, passed)
  redis.call('HSET', adaptation_key, 'guess', rate)
end
local factor = grown_factor(adaptation)
if is_limited then factor = math.min(factor, 1) end
local quiet_s, hold_s = now - (adaptation.since or now), adaptation.hold or LAW.first_hold_s
local was_growing = adaptation.factor and quiet_s > hold_s
local allowed, last_factor = rate * factor, adaptation.factor or 1
if token_rate > 0 or passed < LAW.min_measured_requests or (passed >= LAW.full_rate_share * allowed and quiet_s <= hold_s) then
  factor = factor * LAW.shrink_factor -- nothing tells the limit: it lies somewhere below
else
  -- Mistral let pass what started in the second before: that tells the limit
  local sent_per_s = passed / math.max(LAW.min_measured_s, math.min(LAW.window_s, began - last_end))
  local measured = LAW.below_limit_factor * math.min(passed, allowed)
  factor = math.max(LAW.min_measured_share * sent_per_s, measured) / rate
end
-- a rate that was answered for as long as `hold` is not the limit, though a busy machine may have sent less recently
if was_growing then factor = math.max(factor, LAW.below_limit_factor * last_factor) end
factor = math.max(LAW.min_factor, math.min(factor, LAW.below_limit_factor * allowed / rate))
if was_growing and factor < LAW.same_limit_factor * last_factor then
  hold_s = math.min(LAW.max_hold_s, 2 * hold_s) -- the same limit again: probe for more only after twice the time
else
  hold_s = LAW.first_hold_s
end
if adaptation.guess and quiet_s > LAW.guess_hold_s then redis.call('HSET', adaptation_key, 'firm', 1) end
redis.call('HSET', adaptation_key, 'factor', factor, 'since', string.format('%.6f', pause_end), 'hold', hold_s)
return result
