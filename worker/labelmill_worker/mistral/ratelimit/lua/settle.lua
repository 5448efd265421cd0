-- Corrects reserved tokens by what an answer really used, in the model's state and in the fleet's at once.
--
-- Keys
--   1 fleet tokens  time at which all tokens that the fleet reserved are paid off
--   2 model tokens  the same of the model
--   3 reported      hash, see shared.lua
--   4 adaptation    hash, see shared.lua
-- Arguments
--   1  the fleet's limit: tokens a second (0: none)
--   2  the model's limit: tokens a second (0: none)
--   3  tokens used beyond those reserved (negative: to give back)
-- Result: 0

local more_tokens = tonumber(ARGV[3])
local reported = read_reported(KEYS[3])
local _, reported_rate = own_part(reported.tokens, reported.of_others)
for index = 1, 2 do
  local token_rate = tonumber(ARGV[index])
  if index == 2 then
    -- the model's tokens were reserved at the rate that 429s have left of its limit
    token_rate = lower(token_rate, reported_rate) * math.min(1, grown_factor(read_adaptation(KEYS[4])))
  end
  if token_rate > 0 then
    local free_at = math.max(now, read_time(KEYS[index])) + more_tokens / token_rate
    if free_at <= now then redis.call('DEL', KEYS[index]) else write_time(KEYS[index], free_at) end
  end
end
return 0
