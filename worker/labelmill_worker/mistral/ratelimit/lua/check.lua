-- Where a model has no limit: reports what was sent, and asks whether a 429 has led to one meanwhile.
--
-- Keys
--   1 model pause       time before which no request to the model starts
--   2 model adaptation  hash, see shared.lua
--   3 model started     hash: a ring of counters, see shared.lua
--   4 reported          hash, see shared.lua
-- Arguments
--   1  requests that the caller started since its last check
-- Result: {ms that a pause has left, 1 where a limit was guessed from 429s or is reported}

local started = tonumber(ARGV[1])
if started > 0 then count_started(KEYS[3], now, started) end
local reported = read_reported(KEYS[4])
if reported.at and started > 0 then redis.call('EXPIRE', KEYS[4], LAW.reported_kept_s) end
local has_limit = redis.call('HEXISTS', KEYS[2], 'guess') == 1 or reported.requests or reported.tokens or reported.month
return {math.ceil((read_time(KEYS[1]) - now) * 1000), has_limit and 1 or 0}
