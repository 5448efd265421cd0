"""What the fleet's rate limit does inside Redis, atomically and by Redis' own clock.

Keys, all of one workspace: `next` (earliest start of the next request), `tokens` (moment at which all reserved tokens
are paid off), `pause` (nobody starts before), `slow` (hash: `factor` of the rate that is used since the 429 at `at`;
`seen`, the latest 429; `learned`, requests a second where no limit is set; `firm`, once that proved to be one), `sent`
(hash: second → requests started, where no limit is set). Moments are seconds since 1970.
"""

_CLOCK = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
-- further ahead than this lies no moment: 32 of the slowest rate for a request, what is believed of Retry-After else
local function far(rate)
  if rate and rate > 0 then return 60 + 32 / (0.02 * rate) end
  return 900
end
-- After five quiet seconds the factor recovers, faster and faster: by a hundredth in the first second, from next to
-- nothing to all within a minute and a half. What was learnt from the first 429s may be far too low, for little had
-- been sent by then: it doubles every other second after two, until it is forgotten or meets a 429 on its way up. Then
-- it is firm: a limit that somebody sets, and is approached as slowly as the others.
local function factor_at(factor, at, is_guess)
  local quiet = now - tonumber(at or now)
  if quiet < -far() then quiet = 1000 end
  if is_guess then return tonumber(factor or '1') * 2 ^ math.max(0, math.min(100, quiet - 2) / 2) end
  quiet = math.max(0, quiet - 5)
  return tonumber(factor or '1') * 1.01 ^ math.min(1000, quiet + quiet * quiet / 20)
end
"""

#: Keys: next, tokens, pause, slow. Arguments: requests per second (0: no limit), tokens per second (0), tokens of the
#: requests, longest wait in s, how many requests. Reserves moments for them, evenly spaced, and returns the wait for
#: the first in µs and the spacing in µs; a negative wait: longer than the longest, nothing was reserved.
RESERVE = (
    _CLOCK
    + """
local rate, token_rate, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local slow = redis.call('HMGET', KEYS[4], 'factor', 'at', 'learned', 'firm')
local factor = 1
if slow[1] then
  factor = factor_at(slow[1], slow[2], slow[3] and not slow[4])
  if rate > 0 or token_rate > 0 then
    if factor >= 1 then
      factor = 1
      redis.call('HDEL', KEYS[4], 'factor', 'at')
    end
  elseif factor > 4 then
    redis.call('DEL', KEYS[4])
  else
    rate = tonumber(slow[3] or '0')
  end
end
local start = now
for i = 1, 3 do
  local at = tonumber(redis.call('GET', KEYS[i]) or '0')
  -- what lies too far ahead was written before the clock was set back
  if at > start and at < now + far(i == 1 and rate) then start = at end
end
local wait = start - now
if wait > tonumber(ARGV[4]) then return {-math.ceil(wait * 1000000), 0} end
local spacing = 0
if rate > 0 then
  spacing = 1 / (rate * factor)
  local until_at = start + count * spacing
  redis.call('SET', KEYS[1], string.format('%.6f', until_at), 'PX', math.ceil((until_at - now + 60) * 1000))
end
if token_rate > 0 then
  local until_at = start + tonumber(ARGV[3]) / (token_rate * factor)
  redis.call('SET', KEYS[2], string.format('%.6f', until_at), 'PX', math.ceil((until_at - now + 60) * 1000))
end
return {math.ceil(wait * 1000000), math.ceil(spacing * 1000000)}
"""
)

#: Keys: tokens. Arguments: tokens per second, tokens to add to what is reserved (negative: to give back).
SETTLE = (
    _CLOCK
    + """
local reserved = tonumber(redis.call('GET', KEYS[1]) or '0')
if reserved > now + far() then reserved = 0 end
local until_at = math.max(now, reserved) + tonumber(ARGV[2]) / tonumber(ARGV[1])
if until_at <= now then redis.call('DEL', KEYS[1]) return 0 end
redis.call('SET', KEYS[1], string.format('%.6f', until_at), 'PX', math.ceil((until_at - now + 60) * 1000))
return 0
"""
)

#: Keys: pause, slow, sent. Arguments: seconds, 1 if a limit is set, requests started here that `sent` does not know of.
#: Holds everybody back; a longer pause is never shortened. The rate shrinks, once however many requests were refused
#: together: to 85% when another 429 came within the minute (one alone may be bad luck), and where no limit is set to
#: 85% of what the fleet sent in its busiest second of late.
PAUSE = (
    _CLOCK
    + """
local until_at = now + tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or '0') < until_at then
  redis.call('SET', KEYS[1], string.format('%.6f', until_at), 'PX', math.ceil(ARGV[1] * 1000) + 1000)
end
local slow = redis.call('HMGET', KEYS[2], 'factor', 'at', 'seen', 'learned', 'firm')
local seen = tonumber(slow[3] or '0')
if now - seen < 1 and seen - now < far() then return 0 end
local limited, second = ARGV[2] == '1', math.floor(now)
redis.call('HSET', KEYS[2], 'seen', string.format('%.6f', until_at))
redis.call('EXPIRE', KEYS[2], 3600)
if not limited and not slow[4] then
  redis.call('HINCRBY', KEYS[3], second, ARGV[3])
  local most = 1
  for back = 0, 2 do most = math.max(most, tonumber(redis.call('HGET', KEYS[3], second - back) or '0')) end
  redis.call('HSET', KEYS[2], 'learned', most)
elseif limited and now - seen > 60 and not slow[1] then
  return 0
end
local factor = factor_at(slow[1], slow[2], slow[4] and not slow[5])
if limited then factor = math.min(factor, 1) end
factor = math.max(0.02, factor * 0.85)
if slow[4] and now > tonumber(slow[2]) + 2 then redis.call('HSET', KEYS[2], 'firm', 1) end
redis.call('HSET', KEYS[2], 'factor', factor, 'at', string.format('%.6f', until_at))
return 0
"""
)

#: Keys: pause, slow, sent. Argument: requests started since the last look, where no limit is set. Returns the ms that a
#: pause has left, and whether a rate was learnt.
LOOK = (
    _CLOCK
    + """
local second = math.floor(now)
if tonumber(ARGV[1]) > 0 then
  redis.call('HINCRBY', KEYS[3], second, ARGV[1])
  redis.call('HDEL', KEYS[3], second - 5, second - 6, second - 7)
  redis.call('EXPIRE', KEYS[3], 10)
end
local pause = tonumber(redis.call('GET', KEYS[1]) or '0') - now
if pause > far() then pause = 0 end
return {math.ceil(pause * 1000), redis.call('HEXISTS', KEYS[2], 'learned')}
"""
)
