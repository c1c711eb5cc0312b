-- Takes a step of the Redis's clock back, unless another process did so or has used the new time since. Leases then end
-- when they would have ended without the step, and no turn is held for longer than turn_ms. Returns 1 when it took the
-- step back.
-- `added`: what is added to the clock now; a step is of `least_ms` at least; `lease` begins the key of a worker's
-- lease.
-- keys: clock, living, outbox_turn, scale_turn
-- args: added, step, least_ms, lease_ms, turn_ms, lease
-- uses: now
-- flags: allow-oom

local now = now_ms() + added
local last = tonumber(redis.call("ZRANGE", living, 0, 0, "REV", "WITHSCORES")[2] or -math.huge)
if tonumber(redis.call("GET", clock) or 0) ~= tonumber(added) or math.abs(now - last) < tonumber(least_ms) then return 0 end
redis.call("SET", clock, string.format("%.0f", added - step))
local workers = redis.call("ZRANGE", living, 0, -1, "WITHSCORES")
for i = 1, #workers, 2 do
  local left = tonumber(workers[i + 1]) + lease_ms - (now - step)
  if left > 0 then redis.call("SET", lease .. workers[i], workers[i], "PX", string.format("%.0f", left))
  else redis.call("DEL", lease .. workers[i]) end
end
redis.call("PEXPIRE", outbox_turn, turn_ms, "LT")
redis.call("PEXPIRE", scale_turn, turn_ms, "LT")
return 1
