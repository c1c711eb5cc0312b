-- Removes a pool, and gives its turn back.
-- keys: pools, turn
-- args: name
-- flags: allow-oom

redis.call("HDEL", pools, name)
if redis.call("GET", turn) == name then redis.call("DEL", turn) end
return 1
