-- What a key uses, in the hash `used`: `open` tasks; `all` bytes of results that are kept, with those of each minute in which
-- they expire; `next`, when a request fits the rate again.

-- Forgets the bytes of results that have expired. Returns those that are left, and after how many ms the next ones expire.
local function forget_expired(used, now)
  local bytes, first = tonumber(redis.call("HGET", used, "all") or 0), math.huge
  for _, minute in ipairs(redis.call("HKEYS", used)) do
    local ends = tonumber(minute)
    if ends and ends * 60000 <= now then
      bytes = redis.call("HINCRBY", used, "all", -redis.call("HGET", used, minute))
      redis.call("HDEL", used, minute)
    elseif ends then
      first = math.min(first, ends * 60000 - now)
    end
  end
  return bytes, first
end

-- The limit of a key that `count` more tasks would exceed, its value, and after how many ms to ask again; nothing if none.
local function exceeded(used, count, now, limits)
  local every = limits.rate > 0 and 1000 / limits.rate or 0
  local known = redis.call("HMGET", used, "open", "all", "next")
  local open, bytes, next_ms = tonumber(known[1] or 0), tonumber(known[2] or 0), math.max(now, tonumber(known[3] or 0))
  if limits.open > 0 and math.max(0, open) + count > limits.open then return "open_tasks", limits.open, 1000 end
  if limits.bytes > 0 and bytes >= limits.bytes then
    local first
    bytes, first = forget_expired(used, now)
    if bytes >= limits.bytes then return "bytes_kept", limits.bytes, math.min(first, 60000) end
  end
  if every > 0 and next_ms + every - now > math.max(1000, every) then  -- GCRA, with the requests of a second as its burst
    return "requests_per_second", limits.rate, next_ms + every - now - math.max(1000, every)
  end
  if every > 0 then redis.call("HSET", used, "next", string.format("%.3f", next_ms + every)) end
end

-- Counts tasks that have ended, and the bytes of their results until they expire. Nothing of a key that was revoked meanwhile.
local function free(used, count, size, expires)
  if redis.call("EXISTS", used) == 0 then return end
  redis.call("HINCRBY", used, "open", -count)
  if size == 0 then return end
  redis.call("HINCRBY", used, "all", size)
  local is_new_minute = redis.call("HINCRBY", used, math.floor(expires / 60000) + 1, size) == size
  if is_new_minute then forget_expired(used, now_ms()) end
end
