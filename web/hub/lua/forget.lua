-- Subtracts the results that have expired by now from the bytes that are held for each region.
-- args: held...
-- uses: now
-- flags: allow-oom

local minute = math.floor(now_ms() / 60000)
for _, key in ipairs(held) do
  local fields = redis.call("HGETALL", key)
  for i = 1, #fields, 2 do
    local until_minute = tonumber(fields[i])
    if until_minute and until_minute <= minute then
      redis.call("HINCRBY", key, "all", -fields[i + 1])
      redis.call("HDEL", key, fields[i])
    end
  end
end
