-- Takes a turn of a host for a running task's fetch, in exchange for the turn of another host.
-- Returns what became of it and a number of ms: {"go", until it may fetch}, {"late", until its turn, which is past its
-- patience}, {"full", 0} (it asks again), {"gone", 0} (the execution is no longer one).
-- keys: wip
-- args: task, execution, host, source, patience_ms
-- uses: hosts, leave
-- constants: TURNS, EXECUTION, EXECUTION_TURN, ASKING
-- flags: allow-oom

local member = task .. ":" .. execution
if not redis.call("ZSCORE", wip, member) then return {"gone", 0} end
local turns, had = TURNS .. host, redis.call("HGET", EXECUTION .. member, EXECUTION_TURN) or ""
local most, every = limit_of(host, source)
if had ~= host then
  if had ~= "" then leave(had, task) end
  redis.call("HSET", EXECUTION .. member, EXECUTION_TURN, host)
  redis.call("ZADD", turns, ASKING + now_ms, task)  -- which counts for claims: new tasks come after it
end
if tonumber(redis.call("ZSCORE", turns, task) or ASKING) >= ASKING then
  if redis.call("ZCOUNT", turns, "-inf", "(" .. string.format("%.0f", ASKING)) >= most then return {"full", 0} end
  redis.call("ZADD", turns, now_ms, task)
  had = ""  -- until now it was no fetch of this host
end
local known = look(host)
local start = math.max(exact_ms, known.next)
local ms = math.ceil(start - exact_ms)
if had == host and known.opened > 0 and known.is_tried then ms = math.ceil(every) end  -- further fetches of the one try
if ms > tonumber(patience_ms) then return {"late", ms} end
every = math.max(every, known.delay)
if known.opened > 0 then return {"go", math.ceil(every)} end
if every > 0 then hold(host, known, start + every) end
return {"go", ms}
