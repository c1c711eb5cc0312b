-- The region's time: the Redis's own, plus what the region's clock adds to it (jobs.queue.clock). A script refuses to
-- run at a time at which its caller does not expect it; the last argument of each call says when that is. `now_ms` and
-- `exact_ms` (with a fraction) are in ms, `now` is in seconds as a text.
-- constants: CLOCK, REFUSED

local clock, added_ms = redis.call("TIME"), tonumber(redis.call("GET", CLOCK) or 0)
local seconds, micros = tonumber(clock[1]), tonumber(clock[2])
if added_ms ~= 0 then
  micros = micros + added_ms % 1000 * 1000
  seconds = seconds + math.floor(added_ms / 1000) + math.floor(micros / 1000000)
  micros = micros % 1000000
end
local now_ms = seconds * 1000 + math.floor(micros / 1000)
local earliest, latest = (table.remove(ARGV) or ""):match("^(%d+) (%d+)$")
if latest and (now_ms < tonumber(earliest) or now_ms > tonumber(latest)) then
  return redis.error_reply(REFUSED .. " expected " .. earliest .. " to " .. latest .. ", found " .. string.format("%.0f", now_ms))
end
local exact_ms = seconds * 1000 + micros / 1000
local now = string.format("%d.%06d", seconds, micros)

-- A time of the region as the Redis's own clock will show it, for keys that expire.
local function own_ms(at) return string.format("%.0f", at - added_ms) end

