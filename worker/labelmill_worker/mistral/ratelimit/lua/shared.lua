-- What the scripts share. It stands before each of them, behind the table LAW (`law.py`). It touches no key by itself.
-- Times are seconds since 1970 by Redis' clock, which is the same for all workers.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

-- How far ahead a stored time may lie (s). `rate`: requests a second, where the time was reserved at one.
local function furthest(rate)
  if rate and rate > 0 then
    return LAW.max_reservation_base_s + LAW.max_reserved_permits / (LAW.min_factor * rate)
  end
  return LAW.max_pause_s
end

-- A stored time; 0 where there is none, or one from before the clock was set back.
local function read_time(key, rate)
  local at = tonumber(redis.call('GET', key) or '0')
  if at > now + furthest(rate) then return 0 end
  return at
end

local function write_time(key, at)
  local kept_ms = math.ceil((at - now + LAW.time_kept_s) * 1000)
  redis.call('SET', key, string.format('%.6f', at), 'PX', kept_ms)
end

-- What 429s have taught of a model's limit, or nil for each field that is not set:
--   factor, since, hold   the share of the limit that is used; the end of the pause that set it; s until it grows
--   guess, firm           requests a second where no limit is set; 1 once a 429 has confirmed that guess
--   pause_end             end of the latest pause
--   short_pauses          how many pauses in a row proved too short
local function read_adaptation(key)
  local found = redis.call('HMGET', key, 'factor', 'since', 'hold', 'guess', 'firm', 'pause_end', 'short_pauses')
  return {
    factor = tonumber(found[1]), since = tonumber(found[2]), hold = tonumber(found[3]), guess = tonumber(found[4]),
    is_firm = found[5] and true, pause_end = tonumber(found[6]), short_pauses = tonumber(found[7]),
  }
end

-- The share of the limit that may be used now: the stored one, grown by the time without a 429.
local function grown_factor(adaptation)
  local factor = adaptation.factor or 1
  local quiet_s = now - (adaptation.since or now)
  if quiet_s < -furthest() then quiet_s = LAW.max_growth_steps end -- written before the clock was set back
  if adaptation.guess and not adaptation.is_firm then
    local doublings = math.max(0, quiet_s - LAW.guess_hold_s) / LAW.guess_doubling_s
    return factor * 2 ^ math.min(LAW.max_guess_doublings, doublings)
  end
  local growing_s = math.max(0, quiet_s - (adaptation.hold or LAW.first_hold_s))
  local steps = growing_s + growing_s * growing_s / LAW.growth_acceleration_s
  return factor * LAW.growth_per_s ^ math.min(LAW.max_growth_steps, steps)
end

-- What Mistral reported of a model's limits, or nil for each field that it did not:
--   at                      when an answer came last, whatever it told; nil: nothing is known
--   requests, tokens        the limits of a minute
--   by_others, of_others    requests and tokens of a minute that are left to other programs, see report.lua
--   knows_left              1 where the answers tell what is left
--   month                   tokens left of the month
local function read_reported(key)
  local found = redis.call('HMGET', key, 'at', 'requests', 'tokens', 'by_others', 'of_others', 'month', 'knows_left')
  return {
    at = tonumber(found[1]), requests = tonumber(found[2]), tokens = tonumber(found[3]),
    by_others = tonumber(found[4]) or 0, of_others = tonumber(found[5]) or 0,
    month = tonumber(found[6]), knows_left = found[7] and true,
  }
end

-- Tokens of what processes have under way. `key`: hash, process → `time:tokens`, which each writes for itself as one sum:
-- whatever a process that is killed leaves behind, and a message that is lost, counts for a while and not forever.
local function under_way_beside(key, process)
  local total, fields = 0, redis.call('HGETALL', key)
  for index = 1, #fields, 2 do
    local at, tokens = string.match(fields[index + 1], '^([%d.]+):(%d+)$')
    if not at or math.abs(now - at) > LAW.under_way_kept_s then
      redis.call('HDEL', key, fields[index])
    elseif fields[index] ~= process then
      total = total + tokens
    end
  end
  return total
end

local function write_under_way(key, process, tokens)
  if tokens > 0 then
    redis.call('HSET', key, process, string.format('%.3f:%.0f', now, tokens))
    redis.call('EXPIRE', key, LAW.under_way_kept_s)
  else
    redis.call('HDEL', key, process)
  end
end

-- What was answered, kept for longer than what is reported: a text that is tried again and again comes after a pause.
--   at       when an answer came last
--   largest  tokens of the largest request that was answered
--   tokens   the limit of a minute as it was told last
-- `largest`: of the answers that are new, 0 without any; `at`: of the last of them; `tokens`: nil where it is not told.
local function write_answered(key, largest, at, tokens)
  if largest > 0 then
    local known = redis.call('HMGET', key, 'at', 'largest')
    redis.call('HSET', key, 'at', string.format('%.3f', math.max(at, tonumber(known[1]) or 0)))
    redis.call('HSET', key, 'largest', math.max(largest, tonumber(known[2]) or 0))
  end
  if tokens and tokens > 0 then redis.call('HSET', key, 'tokens', tokens) end
  redis.call('EXPIRE', key, LAW.state_kept_s)
end

-- How much of a minute's limit may be used here, and the rate (1/s) at which it is; nil, 0 where none is reported.
local function own_part(limit, others)
  if not limit then return nil, 0 end
  local part = math.max(1, LAW.min_factor * limit, limit - others)
  return part, part / LAW.minute_s / LAW.minute_margin_factor
end

-- The lower of two rates, of which 0 is none.
local function lower(left, right)
  if left > 0 and right > 0 then return math.min(left, right) end
  return math.max(left, right)
end

-- Count requests that started (negative: that did not start after all) in the ring's slot of a time.
local function count_started(key, at, count)
  local slot = math.floor(at / LAW.slot_s)
  local counted_slot, counted = string.match(redis.call('HGET', key, slot % LAW.ring_slots) or '', '(%d+):(-?%d+)')
  if tonumber(counted_slot) == slot then count = count + tonumber(counted) end
  redis.call('HSET', key, slot % LAW.ring_slots, slot .. ':' .. count)
  redis.call('EXPIRE', key, LAW.ring_kept_s)
end

-- How many requests started in the second before a time, and after another.
local function started_before(key, before, after)
  local last = math.floor(before / LAW.slot_s)
  local part = before / LAW.slot_s - last
  local total = 0
  for back = 0, LAW.window_slots do
    local slot = last - back
    local counted_slot, count = string.match(redis.call('HGET', key, slot % LAW.ring_slots) or '', '(%d+):(-?%d+)')
    if tonumber(counted_slot) == slot and (slot + 1) * LAW.slot_s > after then
      local share = 1
      if back == 0 then share = part elseif back == LAW.window_slots then share = 1 - part end
      total = total + share * tonumber(count)
    end
  end
  return total
end

local function microseconds(seconds)
  return math.ceil(seconds * 1000000)
end
