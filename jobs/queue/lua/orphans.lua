-- Finds results that lie in the outbox for `age_ms` or longer: entries from `after` on, up to `most` of them or
-- `bytes_max` of fields. An id ahead of the time says nothing of an entry's age: it comes from before a step back that was
-- taken as the time, and so do the ids of all that follow. Then all entries count as old, since sending one twice does no harm.
-- Only one worker at a time gets them: the one that has the turn. Returns the entries.
-- keys: outbox, turn
-- args: worker, age_ms, most, turn_ms, after, bytes_max
-- flags: allow-oom

local most_entries, most_bytes = tonumber(most), tonumber(bytes_max)
local holder = redis.call("GET", turn)
if holder and holder ~= worker then return {} end
local till = string.format("%.0f", now_ms - tonumber(age_ms))
if redis.call("XREVRANGE", outbox, "+", string.format("%.0f", now_ms + tonumber(age_ms)), "COUNT", 1)[1] then till = "+" end
local found, bytes, count = {}, 0, 4
while #found < most_entries and bytes < most_bytes do
  local some = redis.call("XRANGE", outbox, after, till, "COUNT", count)
  for _, entry in ipairs(some) do
    found[#found + 1] = entry
    for i = 1, #entry[2], 2 do bytes = bytes + #entry[2][i + 1] end
  end
  if #some < count then break end
  after = "(" .. some[#some][1]
  -- As many more as have room, by the bytes of those so far.
  count = math.max(1, math.min(256, most_entries - #found, math.floor((most_bytes - bytes) * #found / bytes)))
end
if #found > 0 then redis.call("SET", turn, worker, "PX", turn_ms) end
return found
