"""What the fleet's rate limit does inside Redis, atomically and by Redis' own clock.

Keys, all of one workspace: `next` (earliest start of the next request), `tokens` (moment at which all reserved tokens
are paid off), `pause` (nobody starts before), `slow` (hash: `factor` of the rate that is used since the pause that
ended `at`, for `hold` seconds before it grows; `seen`, the end of the latest pause; `closed`, how many pauses in a row
proved too short; `learned`, requests a second where no limit is set; `firm`, once that proved to be one), `sent` (hash,
a ring of 64: which tenth of a second, and how many requests started in it), `ranks` (hash: the lowest `rank` that asked
`until` lately, and when others may start `next`). Moments are seconds since 1970.
"""

_CLOCK = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
-- further ahead than this lies no moment: 32 of the slowest rate for a request, what is believed of Retry-After else
local function far(rate)
  if rate and rate > 0 then return 60 + 32 / (0.02 * rate) end
  return 900
end
-- When `hold` quiet seconds are over the factor recovers, faster and faster: by a hundredth in the first second, from
-- next to nothing to all within 80. What was learnt from the first 429s may be far too low, for little had been sent
-- by then: it doubles every other second after two, until it is forgotten or meets a 429 on its way up. Then it is
-- firm: a limit that somebody sets, and is approached as slowly as the others.
local function factor_at(factor, at, hold, is_guess)
  local quiet = now - tonumber(at or now)
  if quiet < -far() then quiet = 1000 end
  if is_guess then return tonumber(factor or '1') * 2 ^ math.max(0, math.min(100, quiet - 2) / 2) end
  quiet = math.max(0, quiet - tonumber(hold or '10'))
  return tonumber(factor or '1') * 1.01 ^ math.min(1000, quiet + quiet * quiet / 20)
end
local function note_started(key, at, count)
  local tenth = math.floor(at * 10)
  local of, had = string.match(redis.call('HGET', key, tenth % 64) or '', '(%d+):(-?%d+)')
  if tonumber(of) == tenth then count = count + tonumber(had) end
  redis.call('HSET', key, tenth % 64, tenth .. ':' .. count)
  redis.call('EXPIRE', key, 10)
end
-- how many started in the second before a moment, and after another
local function started(key, before, after)
  local last = math.floor(before * 10)
  local part = before * 10 - last
  local total = 0
  for back = 0, 10 do
    local of, count = string.match(redis.call('HGET', key, (last - back) % 64) or '', '(%d+):(-?%d+)')
    if tonumber(of) == last - back and (last - back + 1) / 10 > after then
      local share = 1
      if back == 0 then share = part elseif back == 10 then share = 1 - part end
      total = total + share * tonumber(count)
    end
  end
  return total
end
"""

#: Keys: next, tokens, pause, slow, sent, ranks. Arguments: requests per second (0: no limit), tokens per second (0),
#: tokens of the requests, longest wait in s, how many requests, how many of those reserved before did not start, their
#: rank (-1: none). Reserves moments for them, evenly spaced, and returns the wait for the first and the spacing in µs.
#: A negative wait: longer than the longest, nothing was reserved. A negative spacing: nothing was reserved either, ask
#: again after the wait; for while a lower rank asks, the others have a fifth of the moments.
RESERVE = (
    _CLOCK
    + """
local rate, token_rate, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local slow = redis.call('HMGET', KEYS[4], 'factor', 'at', 'hold', 'learned', 'firm')
local factor = 1
if slow[1] then
  factor = factor_at(slow[1], slow[2], slow[3], slow[4] and not slow[5])
  if rate > 0 or token_rate > 0 then
    if factor >= 1 then
      factor = 1
      redis.call('HDEL', KEYS[4], 'factor', 'at', 'hold')
    end
  elseif factor > 4 then
    redis.call('DEL', KEYS[4])
  else
    rate = tonumber(slow[4] or '0')
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
local rank = tonumber(ARGV[7])
if rank >= 0 and (rate > 0 or token_rate > 0) then
  local first = redis.call('HMGET', KEYS[6], 'rank', 'until', 'next')
  local until_at = tonumber(first[2] or '0')
  if until_at <= now or until_at > now + far() or rank <= tonumber(first[1]) then
    redis.call('HSET', KEYS[6], 'rank', rank, 'until', start + 0.5)
  else
    local next_at = tonumber(first[3] or '0')
    if next_at > start and next_at < now + far(rate) then return {math.ceil((next_at - now) * 1000000), -1} end
    local taken = math.max(rate > 0 and count / (rate * factor) or 0,
      token_rate > 0 and tonumber(ARGV[3]) / (token_rate * factor) or 0)
    redis.call('HSET', KEYS[6], 'next', start + 5 * taken)
  end
  redis.call('EXPIRE', KEYS[6], 3600)
end
local spacing = 0
if rate > 0 then
  spacing = 1 / (rate * factor)
  if ARGV[6] ~= '0' then note_started(KEYS[5], now, -ARGV[6]) end
  note_started(KEYS[5], start, count)
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

#: Keys: pause, slow, sent. Arguments: seconds, requests per second (0: no limit), tokens per second (0), requests
#: started here that `sent` does not know of, seconds since the refused request started. Holds everybody back, and
#: returns for how many ms; a longer pause is never shortened. One that proves too short, for the first request after it
#: is refused, is followed by a longer one.
#:
#: The rate shrinks, once for all the requests that had started before the pause ended, when another 429 came within the
#: minute (one alone may be bad luck). Mistral let pass what started in the second before the one that it refused: where
#: that is clearly less than was asked for, it tells the limit. Else the limit lies just below, when the rate had grown
#: until now, or somewhere below. Who finds the same limit again looks for more only after twice the time. Where no
#: limit is set, the first 429 makes one of what was sent.
PAUSE = (
    _CLOCK
    + """
local rate, token_rate, age = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local limited = rate > 0 or token_rate > 0
local slow = redis.call('HMGET', KEYS[2], 'factor', 'at', 'hold', 'learned', 'firm', 'seen', 'closed')
local seen = tonumber(slow[6] or '0')
if seen - now > far() then seen = 0 end
local began = now - age
local is_new = began >= seen
if not limited and tonumber(ARGV[4]) > 0 then note_started(KEYS[3], began - 0.1, ARGV[4]) end
local passed = started(KEYS[3], began, is_new and seen or 0)
local closed = 0
if is_new and began - seen < 1 and passed < 1 then closed = tonumber(slow[7] or '0') + 1 end
local until_at = now + math.max(tonumber(ARGV[1]), closed > 0 and math.min(8, 2 ^ closed) or 0)
local paused_until = tonumber(redis.call('GET', KEYS[1]) or '0')
if paused_until < until_at or paused_until > now + far() then
  redis.call('SET', KEYS[1], string.format('%.6f', until_at), 'PX', math.ceil((until_at - now) * 1000) + 1000)
else
  until_at = paused_until
end
local left_ms = math.ceil((until_at - now) * 1000)
-- who was refused together with the first ends the pause a little later each; yet who woke up at its first end is new
if is_new or until_at > seen + 1 then redis.call('HSET', KEYS[2], 'seen', string.format('%.6f', until_at)) end
redis.call('EXPIRE', KEYS[2], 3600)
if not is_new then
  -- what the other processes had sent by then is known only now
  if slow[4] and not slow[5] and passed > tonumber(slow[4]) then redis.call('HSET', KEYS[2], 'learned', passed) end
  return left_ms
end
redis.call('HSET', KEYS[2], 'closed', closed)
if limited and now - seen > 60 and not slow[1] then return left_ms end
if not limited then
  rate = tonumber(slow[4] or math.max(1, passed))
  redis.call('HSET', KEYS[2], 'learned', rate)
end
local factor = factor_at(slow[1], slow[2], slow[3], slow[4] and not slow[5])
if limited then factor = math.min(factor, 1) end
local quiet, hold = now - tonumber(slow[2] or now), tonumber(slow[3] or '10')
local asked, was = rate * factor, tonumber(slow[1] or '1')
if token_rate > 0 or passed < 2 or (passed >= 0.9 * asked and quiet <= hold) then
  factor = factor * 0.85
else
  local sending = passed / math.max(0.1, math.min(1, began - seen))
  factor = math.max(0.5 * sending, 0.95 * math.min(passed, asked)) / rate
end
-- what was borne for as long is no limit, though a busy machine may have sent less of late
if slow[1] and quiet > hold then factor = math.max(factor, 0.95 * was) end
factor = math.max(0.02, math.min(factor, 0.95 * asked / rate))
if slow[1] and quiet > hold and factor < 1.15 * was then hold = math.min(60, 2 * hold) else hold = 10 end
if slow[4] and quiet > 2 then redis.call('HSET', KEYS[2], 'firm', 1) end
redis.call('HSET', KEYS[2], 'factor', factor, 'at', string.format('%.6f', until_at), 'hold', hold)
return left_ms
"""
)

#: Keys: pause, slow, sent. Argument: requests started since the last look, where no limit is set. Returns the ms that a
#: pause has left, and whether a rate was learnt.
LOOK = (
    _CLOCK
    + """
if tonumber(ARGV[1]) > 0 then note_started(KEYS[3], now, ARGV[1]) end
local pause = tonumber(redis.call('GET', KEYS[1]) or '0') - now
if pause > far() then pause = 0 end
return {math.ceil(pause * 1000), redis.call('HEXISTS', KEYS[2], 'learned')}
"""
)
