-- Forgets that the first request to a model is under way: it met a fault that tells nothing about the model's limits.
--
-- Keys
--   1 model first  there while that request is under way
-- Result: 0

redis.call('DEL', KEYS[1])
return 0
