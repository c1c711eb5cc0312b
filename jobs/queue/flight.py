"""Tasks that ask the same at the same time: one asks, the others wait with it, and each gets a result of its own.

    claim ── nobody asks it ──> nf:flight:{key} is the task's, until it ends
       └─ somebody does ── join ──> nf:joined:{key} and RQ's scheduled registry: no thread, no turn
    the end of who asks ── land ── an answer ──> nf:shared:{task}; the others go to the queue's front, and take it (tell)
                              └─ none for all ── pass_on ──> the next one asks
    the bridge, of a question that stands in the queue already ──> nf:flight:{key} is "*": who asks keeps its answer for those
    DUE, once a second ── look_after ──> who waits with a task that is gone, or late

A flight is a task's, not an execution's: it lasts through the wait for a turn, retries and deaths of processes, so that
nothing of that is done twice. It ends where a task ends, which is in jobs.queue.finish.conclude or in a claim that drops it.
"""

from dataclasses import dataclass
from typing import Final

from jobs import contract
from jobs.contract import Outcome, Result, Task, Timing
from jobs.errors import Cancelled, TaskError
from jobs.queue.retry import ROOM_SECONDS
from jobs.queue.script import ROOM_MS

FOR_ALL_MS: Final = 9_000_000_000_000_000  # an answer for everybody, whatever the deadline

# Needs `place` (jobs.queue.finish.PLACE) and `scheduled`. Its functions are made when they are first needed: a task without company
# pays for none of them.
FLIGHTS: Final = """
local made_flights

local function flights()
if made_flights then return made_flights end

-- Who asks: its record, or nothing where it is gone, has ended, or should have.
local function asking(id)
  local its = redis.call("HMGET", "$job" .. id, "status", "$deadline", "$since", "$kept")
  local lives = its[1] == "queued" or its[1] == "started" or its[1] == "scheduled"
  return lives and tonumber(its[2] or now_ms) + $room > now_ms and its
end

-- A flight is the id of who asks, "+" after it where others wait with it, "*" where others stand in the queue too; or "*"
-- alone before anybody asked, or "=" and the id of whose answer is there for those who came before it.
local function parse(held)
  return held:match("^=?([^+*]*)([+*]?)$$")
end

local function lead(key, id, deadline, mark)
  redis.call("SET", "$flight" .. key, id .. mark, "PXAT", own_ms((deadline or now_ms) + $keep_ms))
end

-- The oldest answer (hub ms) that will do for a task: one that came home no earlier than the task came here, or than its
-- max_age before that.
local function oldest(bridged, max_age)
  return tonumber(bridged or 0) - tonumber(max_age or 0)
end

-- One that waited goes to the queue, for the answer of a task or, without one, to ask itself.
local function wake(id, deaths, leader)
  redis.call("ZREM", scheduled, id)
  redis.call("HSET", "$job" .. id, "status", "queued", "enqueued_at", iso(), "$joined_field", "", "$shared_field", leader)
  place(id, deaths, "LPUSH")
end

-- The next one of those that wait asks.
local function pass_on(key, mark)
  for _ = 1, $share_max do
    local id = redis.call("LPOP", "$joined" .. key)
    if not id then break end
    local fields = redis.call("HMGET", "$job" .. id, "status", "$joined_field", "$deaths", "$deadline")
    if fields[1] == "scheduled" and fields[2] == key then
      lead(key, id, tonumber(fields[4] or ""), mark or "+")
      wake(id, fields[3], "")
      redis.call("ZADD", "$flights", now_ms + 1000, key)
      return
    end
  end
  if redis.call("EXISTS", "$joined" .. key) == 1 then redis.call("ZADD", "$flights", now_ms, key)
  else redis.call("ZREM", "$flights", key) end
end

-- Tells those that waited for a task's answer, many at once; whose deadlines, or whose max_age, it is not for wait for the
-- next one.
local function serve(leader)
  local name, count = "$shared" .. leader, 0
  local told = redis.call("HMGET", name, "key", "till", "late", "of")
  local key, till, of = told[1], tonumber(told[2] or 0), tonumber(told[4] or "") or math.huge
  for _, id in ipairs(redis.call("LPOP", "$landing" .. leader, $share_max) or {}) do
    local fields = redis.call("HMGET", "$job" .. id, "status", "$joined_field", "$deaths", "$deadline", "$bridged", "$max_age")
    local asked = fields[2] or ""
    if fields[1] == "scheduled" and asked ~= "" and asked == (key or asked) then
      if key and (tonumber(fields[4] or 0) > till or oldest(fields[5], fields[6]) > of) then
        redis.call("RPUSH", "$joined" .. key, id)
      else
        wake(id, fields[3], key and leader or "")
        count = count + 1
      end
    end
  end
  local left = key and redis.call("HINCRBY", name, "left", count) or 0
  if redis.call("EXISTS", "$landing" .. leader) == 1 then
    redis.call("ZADD", "$flights", now_ms, leader)
    return
  end
  redis.call("ZREM", "$flights", leader)
  if left <= 0 and not told[3] then redis.call("DEL", name) end
  if key and redis.call("EXISTS", "$joined" .. key) == 1 then
    local held = redis.call("GET", "$flight" .. key)
    if not held or held:sub(1, 1) == "=" then pass_on(key)
    else redis.call("ZADD", "$flights", "NX", now_ms + 1000, key) end
  end
end

-- As below, of a flight that may have company.
local function land(held, key, id, frame, till, began, of)
  local leader, mark = parse(held)
  if leader ~= id or held:sub(1, 1) == "=" then  -- another one's: it stays
    redis.call("SET", "$flight" .. key, held, "PX", $keep_ms)
    return
  end
  local is_joined = redis.call("EXISTS", "$joined" .. key) == 1
  if till < now_ms and is_joined then return pass_on(key, mark) end
  redis.call("ZREM", "$flights", key)
  if till < now_ms then
    if mark == "*" then redis.call("SET", "$flight" .. key, "*", "PX", $late_ttl) end
    return
  end
  if not is_joined and mark ~= "*" then return end
  redis.call("HSET", "$shared" .. id, "frame", frame, "key", key, "till", string.format("%.0f", till), "began", began,
    "of", of)
  redis.call("PEXPIRE", "$shared" .. id, $share_ttl)
  if mark == "*" then
    redis.call("HSET", "$shared" .. id, "late", 1)
    redis.call("PEXPIRE", "$shared" .. id, $late_ttl)
    redis.call("SET", "$flight" .. key, "=" .. id, "PX", $late_ttl)
  end
  if is_joined then
    redis.call("RENAME", "$joined" .. key, "$landing" .. id)
    serve(id)
  end
end

-- One that took a task's answer has ended: the last one takes it away.
local function taken(leader)
  local name = "$shared" .. leader
  local left = redis.call("HINCRBY", name, "left", -1)
  if left <= 0 and not redis.call("HGET", name, "late") and redis.call("EXISTS", "$landing" .. leader) == 0 then
    redis.call("DEL", name)
  end
end

local function look_after()
  for _, name in ipairs(redis.call("ZRANGE", "$flights", "-inf", now_ms, "BYSCORE", "LIMIT", 0, 100)) do
    if redis.call("EXISTS", "$landing" .. name) == 1 then
      serve(name)
    else
      local held = redis.call("GET", "$flight" .. name)
      if held and held:sub(1, 1) ~= "=" and asking((parse(held))) then redis.call("ZADD", "$flights", now_ms + 1000, name)
      else pass_on(name) end
    end
  end
end

made_flights = {asking = asking, parse = parse, lead = lead, oldest = oldest, land = land, taken = taken, look_after = look_after}
return made_flights
end

-- A task ended, with an answer for those whose deadlines are up to `till`, or without one (-1). `began`: its last attempt;
-- `of`: when the source gave that answer (hub ms), "" where it was asked and gave none.
local function land(key, id, frame, till, began, of)
  local held = redis.call("GETDEL", "$flight" .. key)
  if held and held ~= id then flights().land(held, key, id, frame, till, began, of) end
end
"""

# Needs FLIGHTS and jobs.queue.host.HOSTS.
JOIN: Final = """
local frames, carried, places, made_joins = {}, 0, {}, nil

local function joins()
if made_joins then return made_joins end
local asking, parse, lead, oldest = flights().asking, flights().parse, flights().lead, flights().oldest

-- The place of an answer among those that this claim brings along; nothing where there is none any more.
local function carry(leader)
  if not places[leader] then
    local frame = redis.call("HGET", "$shared" .. leader, "frame")
    if not frame then return nil end
    frames[#frames + 1], carried = frame, carried + #frame
    places[leader] = #frames
  end
  return places[leader]
end

-- Whether a task's answer is there: before such ones nobody is called, or they would never come to be the first.
local function is_told(id)
  return id and (redis.call("HGET", "$job" .. id, "$shared_field") or "") ~= ""
end

-- Lets a task wait with the one that asks the same: true. Else it asks itself, with false, or need not: then also the
-- place of its answer, or in how many ms its turn would be, which is too late; and who asked.
local function join(key, held, id, host, source, request, deadline, since, asked, bridged, max_age)
  local leader, mark = parse(held)
  if held:sub(1, 1) == "=" then
    local told = redis.call("HMGET", "$shared" .. leader, "began", "till", "of")
    local is_for_it = asked and told[1] and asked <= tonumber(told[1]) and (deadline or 0) <= tonumber(told[2])
      and oldest(bridged, max_age) <= (tonumber(told[3] or "") or math.huge)
    if is_for_it then return false, carry(leader), nil, leader end
    lead(key, id, deadline, asked and "*" or "")  -- which the bridge could not say of a flight that was over
    return false
  end
  local its = leader ~= "" and asking(leader)
  if not its then
    lead(key, id, deadline, mark)
    return false
  end
  if since then forget(host, id) end
  local latest = deadline and deadline - $room or math.huge
  if its[1] == "scheduled" and (its[3] or "") ~= "" then  -- in its host's line, where it gets the best round of all
    local known, most, every = look(host), limit_of(host, source)
    local round = next_round(host, request)
    local mine = math.min(round, tonumber(redis.call("ZSCORE", "$line" .. host, leader) or round))
    local at = turn_at(known, most, every, math.max(0, redis.call("ZCOUNT", "$line" .. host, "-inf", mine) - 1))
    if at > latest then return false, nil, math.max(1, math.ceil(at - exact_ms)), leader end
    redis.call("ZADD", "$line" .. host, "XX", "LT", round, leader)
    redis.call("ZADD", "$rounds" .. host, round, request)
  elseif its[1] == "scheduled" and its[4] and tonumber(redis.call("ZSCORE", scheduled, leader) or 0) * 1000 > latest then
    local _, _, _, ending = unpack(cmsgpack.unpack(its[4]))  -- it failed, and is tried again too late for this one
    frames[#frames + 1], carried = ending[8], carried + #ending[8]
    return false, #frames, nil, leader
  end
  if mark == "" then redis.call("SET", "$flight" .. key, leader .. "+", "KEEPTTL") end
  redis.call("ZADD", "$flights", "NX", now_ms + 1000, key)
  redis.call("RPUSH", "$joined" .. key, id)
  redis.call("HSET", "$job" .. id, "status", "scheduled", "$joined_field", key, "$since", "")
  redis.call("ZADD", scheduled, (latest > now_ms and deadline and latest or deadline or now_ms + 300000) / 1000, id)
  return true
end

made_joins = {carry = carry, is_told = is_told, join = join}
return made_joins
end
"""


@dataclass(slots=True, frozen=True)
class Told:
    """A task's result, made of another one's; ``wire_bytes`` and ``records_bytes`` as in ``contract.Bytes``."""

    outcome: Outcome
    traceback: str
    records_bytes: int
    wire_bytes: int


def tell(task: Task, leader: str, frame: bytes, *, attempts: int, timing: Timing, now_ms: int) -> Told:
    """The result of a task that asked the same as ``leader``, of whose frame it is made. ``now_ms``: the hub's clock.

    Its records, address, warnings and error are the leader's. It fetched nothing: ``bytes.raw`` is 0, and ``attempts``
    those that it made before.
    """
    known = contract.head(frame)
    result = Result(
        task=task.task,
        source=task.source,
        region=known.region,
        status=known.status,
        attempts=attempts,
        count=known.count,
        partial=known.partial,
        warnings=known.warnings,
        url=known.url,
        definition=known.definition,
        fetched_at=known.fetched_at,
        age=contract.age_seconds(known.fetched_at, now_ms),
        cached=known.cached,
        stale=known.stale,
        timing=timing,
        error=known.error,
    )
    result.bytes.records = known.bytes.records
    timing.total_ms = float(max(0, now_ms - task.accepted_ms))
    framed = contract.reframe(result, frame)
    outcome = Outcome(
        request=task.request,
        task=task.task,
        status=known.status,
        finished_ms=now_ms,
        expires_ms=task.expires_ms,
        frame=framed,
        run=contract.Run(
            source=task.source,
            definition=known.definition,
            records_bytes=result.bytes.records,
            wire_bytes=result.bytes.wire,
            own=False,
        ),
    )
    shown = f"as task {leader}, which asked the same: {known.error.type}: {known.error.message}" if known.error else ""
    return Told(outcome, shown, result.bytes.records, result.bytes.wire)


def shared_ms(error: TaskError | None, left_seconds: float, *, failures: int, retries: int) -> int:
    """By how many ms the deadlines may be later than its own of those for whom the end of a task is the answer; -1: nobody.

    ``failures``: attempts that failed before; ``retries``: how many more than one the source allows. A failure that is
    the target's, the network's or the page's is everybody's; for want of time, only theirs who had no more of it. What is
    the region's own fault, or a cancel, is nobody else's: the next one asks.
    """
    if error is None:
        return FOR_ALL_MS
    if isinstance(error, Cancelled) or error.whose in ("region", "internal"):
        return -1
    if left_seconds <= ROOM_SECONDS or (error.is_retryable and failures < retries):
        return ROOM_MS
    return FOR_ALL_MS
