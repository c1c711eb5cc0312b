-- Tasks that ask the same question at the same time share one fetch (jobs.queue.shared_fetch): the leader asks, the
-- others wait with it. The functions are made when they are first needed: a task without company costs nothing here.
-- needs: queue, urgent, suspects, scheduled
-- uses: place, iso
-- constants: JOB, JOB_DEADLINE, JOB_SINCE, JOB_KEPT, ROOM_MS, FLIGHT, KEEP_MS, JOB_JOINED, JOB_SHARED, SHARE_MAX,
--   JOINED, JOB_DEATHS, FLIGHTS, SHARED, LANDING, JOB_BRIDGED, JOB_MAX_AGE, LATE_TTL_MS, SHARE_TTL_MS

local made_sharing

local function sharing()
if made_sharing then return made_sharing end

-- The record of a leader: status, deadline, since when it waits for a turn, its kept outcome. Nothing if it is gone,
-- has ended or should have ended.
local function asking(id)
  local record = redis.call("HMGET", JOB .. id, "status", JOB_DEADLINE, JOB_SINCE, JOB_KEPT)
  local status, deadline = record[1], record[2]
  local lives = status == "queued" or status == "started" or status == "scheduled"
  return lives and tonumber(deadline or now_ms) + ROOM_MS > now_ms and record
end

-- nf:flight:{key} holds the leader's id, followed by "+" if others wait with it, or by "*" if others stand in the
-- queue, too. It is "*" alone before the first task asked, and "=" and the leader's id if its answer is there for those
-- that came before it.
local function parse(held)
  return held:match("^=?([^+*]*)([+*]?)$")
end

local function lead(key, id, deadline, mark)
  redis.call("SET", FLIGHT .. key, id .. mark, "PXAT", own_ms((deadline or now_ms) + KEEP_MS))
end

-- The time (hub ms) of the oldest answer that will do for a task: its arrival in the region, less its max_age.
local function oldest(bridged, max_age)
  return tonumber(bridged or 0) - tonumber(max_age or 0)
end

-- Sends a task that waited to the queue: it takes the leader's answer or, without a leader, asks itself.
local function wake(id, deaths, leader)
  redis.call("ZREM", scheduled, id)
  redis.call("HSET", JOB .. id, "status", "queued", "enqueued_at", iso(), JOB_JOINED, "", JOB_SHARED, leader)
  place(id, deaths, "LPUSH")
end

-- The next of the tasks that wait becomes the leader.
local function pass_on(key, mark)
  for _ = 1, SHARE_MAX do
    local id = redis.call("LPOP", JOINED .. key)
    if not id then break end
    local status, joined, deaths, deadline = unpack(redis.call("HMGET", JOB .. id, "status", JOB_JOINED, JOB_DEATHS, JOB_DEADLINE))
    if status == "scheduled" and joined == key then
      lead(key, id, tonumber(deadline or ""), mark or "+")
      wake(id, deaths, "")
      redis.call("ZADD", FLIGHTS, now_ms + 1000, key)
      return
    end
  end
  if redis.call("EXISTS", JOINED .. key) == 1 then redis.call("ZADD", FLIGHTS, now_ms, key)
  else redis.call("ZREM", FLIGHTS, key) end
end

-- Wakes the tasks that waited for a leader's answer, many at once. Those for whose deadline or max_age it will not do
-- wait for the next leader.
local function serve(leader)
  local name, count = SHARED .. leader, 0
  local key, last_deadline, is_late, answered = unpack(redis.call("HMGET", name, "key", "till", "late", "of"))
  last_deadline, answered = tonumber(last_deadline or 0), tonumber(answered or "") or math.huge
  for _, id in ipairs(redis.call("LPOP", LANDING .. leader, SHARE_MAX) or {}) do
    local status, joined, deaths, deadline, bridged, max_age =
      unpack(redis.call("HMGET", JOB .. id, "status", JOB_JOINED, JOB_DEATHS, JOB_DEADLINE, JOB_BRIDGED, JOB_MAX_AGE))
    joined = joined or ""
    if status == "scheduled" and joined ~= "" and joined == (key or joined) then
      if key and (tonumber(deadline or 0) > last_deadline or oldest(bridged, max_age) > answered) then
        redis.call("RPUSH", JOINED .. key, id)
      else
        wake(id, deaths, key and leader or "")
        count = count + 1
      end
    end
  end
  local left = key and redis.call("HINCRBY", name, "left", count) or 0
  if redis.call("EXISTS", LANDING .. leader) == 1 then
    redis.call("ZADD", FLIGHTS, now_ms, leader)
    return
  end
  redis.call("ZREM", FLIGHTS, leader)
  if left <= 0 and not is_late then redis.call("DEL", name) end
  if key and redis.call("EXISTS", JOINED .. key) == 1 then
    local held = redis.call("GET", FLIGHT .. key)
    if not held or held:sub(1, 1) == "=" then pass_on(key)
    else redis.call("ZADD", FLIGHTS, "NX", now_ms + 1000, key) end
  end
end

-- As `share` below, of a task that may have had company.
local function share_with_joined(held, key, id, frame, last_deadline, began_ms, answered)
  local leader, mark = parse(held)
  if leader ~= id or held:sub(1, 1) == "=" then  -- another leader's: it stays
    redis.call("SET", FLIGHT .. key, held, "PX", KEEP_MS)
    return
  end
  local is_joined = redis.call("EXISTS", JOINED .. key) == 1
  if last_deadline < now_ms and is_joined then return pass_on(key, mark) end
  redis.call("ZREM", FLIGHTS, key)
  if last_deadline < now_ms then
    if mark == "*" then redis.call("SET", FLIGHT .. key, "*", "PX", LATE_TTL_MS) end
    return
  end
  if not is_joined and mark ~= "*" then return end
  redis.call("HSET", SHARED .. id, "frame", frame, "key", key, "till", string.format("%.0f", last_deadline), "began", began_ms,
    "of", answered)
  redis.call("PEXPIRE", SHARED .. id, SHARE_TTL_MS)
  if mark == "*" then
    redis.call("HSET", SHARED .. id, "late", 1)
    redis.call("PEXPIRE", SHARED .. id, LATE_TTL_MS)
    redis.call("SET", FLIGHT .. key, "=" .. id, "PX", LATE_TTL_MS)
  end
  if is_joined then
    redis.call("RENAME", JOINED .. key, LANDING .. id)
    serve(id)
  end
end

-- A task that took a leader's answer has ended. The last one deletes the answer.
local function taken(leader)
  local name = SHARED .. leader
  local left = redis.call("HINCRBY", name, "left", -1)
  if left <= 0 and not redis.call("HGET", name, "late") and redis.call("EXISTS", LANDING .. leader) == 0 then
    redis.call("DEL", name)
  end
end

-- Looks after tasks whose leader is gone, or late, and wakes those that one call could not.
local function look_after()
  for _, name in ipairs(redis.call("ZRANGE", FLIGHTS, "-inf", now_ms, "BYSCORE", "LIMIT", 0, 100)) do
    if redis.call("EXISTS", LANDING .. name) == 1 then
      serve(name)
    else
      local held = redis.call("GET", FLIGHT .. name)
      if held and held:sub(1, 1) ~= "=" and asking((parse(held))) then redis.call("ZADD", FLIGHTS, now_ms + 1000, name)
      else pass_on(name) end
    end
  end
end

made_sharing = {
  asking = asking, parse = parse, lead = lead, oldest = oldest, share_with_joined = share_with_joined, taken = taken, look_after = look_after,
}
return made_sharing
end

-- A task ended: its answer is also that of others whose deadlines are up to `last_deadline` (-1: of nobody).
-- `began_ms`: its last attempt; `answered`: when the source gave that answer (hub ms), "" if the source was asked and
-- gave none.
local function share(key, id, frame, last_deadline, began_ms, answered)
  local held = redis.call("GETDEL", FLIGHT .. key)
  if held and held ~= id then sharing().share_with_joined(held, key, id, frame, last_deadline, began_ms, answered) end
end

