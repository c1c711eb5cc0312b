-- Writes what was decided, and the minute that is over, if any. Returns 0, and does nothing, if it is another pool's
-- turn.
-- keys: turn, scale, day
-- args: name, decided, minute, minutes_kept
-- flags: allow-oom

if redis.call("GET", turn) ~= name then return 0 end
redis.call("SET", scale, decided)
if minute ~= "" then redis.call("XADD", day, "MAXLEN", "~", minutes_kept, "*", "d", minute) end
return 1
