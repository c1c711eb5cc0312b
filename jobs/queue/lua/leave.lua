-- Gives turns of hosts back.
-- constants: HOSTS, TURNS, ASKING, HOST, HOST_TTL_MS, LINE

-- Gives a task's turn back; the next claim calls a task that waits for the host. The mean duration of a turn moves a
-- tenth of the way to this one: at each turn while tasks wait, else at one turn of eight.
local function leave(host, id)
  local is_waited_for = redis.call("ZADD", HOSTS, "XX", "CH", now_ms, host) == 1
  local since = (is_waited_for or micros % 8 == 0) and tonumber(redis.call("ZSCORE", TURNS .. host, id) or 0) or 0
  redis.call("ZREM", TURNS .. host, id)
  if since <= 0 or since >= ASKING then return end
  local mean = tonumber(redis.call("HGET", HOST .. host, "mean") or now_ms - since)
  redis.call("HSET", HOST .. host, "mean", string.format("%.1f", mean + (now_ms - since - mean) / 10))
  redis.call("PEXPIRE", HOST .. host, HOST_TTL_MS)
end

-- Takes a task out of a host's queue, and gives back a turn to which it was called and that it did not take up.
local function forget(host, id)
  redis.call("ZREM", LINE .. host, id)
  leave(host, id)
end

