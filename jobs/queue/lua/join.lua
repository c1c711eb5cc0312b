-- How a claimed task joins a leader that asks the same question. Made when it is first needed, as in shared_fetch.lua.
-- needs: scheduled
-- uses: shared_fetch, host_queue, leave, kept
-- constants: SHARED, JOB, JOB_SHARED, ROOM_MS, LINE, ROUNDS, FLIGHT, FLIGHTS, JOINED, JOB_JOINED, JOB_SINCE, KEEP_MS

local frames, carried, places, made_joining = {}, 0, {}, nil

local function joining()
if made_joining then return made_joining end
local asking, parse, lead, oldest = sharing().asking, sharing().parse, sharing().lead, sharing().oldest

local function add_frame(frame)
  frames[#frames + 1], carried = frame, carried + #frame
  return #frames
end

-- The number of a leader's answer among the frames that this claim returns; nothing if the answer is gone.
local function carry(leader)
  if not places[leader] then
    local frame = redis.call("HGET", SHARED .. leader, "frame")
    if not frame then return nil end
    places[leader] = add_frame(frame)
  end
  return places[leader]
end

-- Whether the answer of a task is there. While such a task is the first of the queue no other one is called before it,
-- or it would wait for ever.
local function is_told(id)
  return id and (redis.call("HGET", JOB .. id, JOB_SHARED) or "") ~= ""
end

-- Lets a task wait with the leader: returns true. Returns false if the task asks itself. If it need not, returns false
-- and the number of the answer's frame, or nil and in how many ms its turn would be, which is too late; and then the
-- leader.
local function join(task, held, since)
  local key, deadline, host = task.key, task.deadline, task.host
  local leader, mark = parse(held)
  if held:sub(1, 1) == "=" then
    local began_ms, last_deadline, answered = unpack(redis.call("HMGET", SHARED .. leader, "began", "till", "of"))
    local asked = task.asked
    local is_for_it = asked and began_ms and asked <= tonumber(began_ms) and (deadline or 0) <= tonumber(last_deadline)
      and oldest(task.bridged, task.max_age) <= (tonumber(answered or "") or math.huge)
    if is_for_it then return false, carry(leader), nil, leader end
    lead(key, task.id, deadline, asked and "*" or "")  -- which the bridge could not say of a fetch that was over
    return false
  end
  local its = leader ~= "" and asking(leader)
  if not its then
    lead(key, task.id, deadline, mark)
    return false
  end
  local status, _, its_since, its_kept = unpack(its)
  if since then forget(host, task.id) end
  local latest = deadline and deadline - ROOM_MS or math.huge
  if status == "scheduled" and (its_since or "") ~= "" then  -- in its host's queue, where it gets the best round of all
    local known, most, every = look(host), limit_of(host, task.source)
    local round = next_round(host, task.request)
    local mine = math.min(round, tonumber(redis.call("ZSCORE", LINE .. host, leader) or round))
    local at = turn_at(known, most, every, math.max(0, redis.call("ZCOUNT", LINE .. host, "-inf", mine) - 1))
    if at > latest then return false, nil, math.max(1, math.ceil(at - exact_ms)), leader end
    redis.call("ZADD", LINE .. host, "XX", "LT", round, leader)
    redis.call("ZADD", ROUNDS .. host, round, task.request)
  elseif status == "scheduled" and its_kept and tonumber(redis.call("ZSCORE", scheduled, leader) or 0) * 1000 > latest then
    local _, _, _, ending = unpack_kept(its_kept)  -- it failed, and is tried again too late for this task
    return false, add_frame(ending.frame), nil, leader
  end
  if mark == "" then redis.call("SET", FLIGHT .. key, leader .. "+", "KEEPTTL") end
  redis.call("ZADD", FLIGHTS, "NX", now_ms + 1000, key)
  redis.call("RPUSH", JOINED .. key, task.id)
  redis.call("HSET", JOB .. task.id, "status", "scheduled", JOB_JOINED, key, JOB_SINCE, "")
  redis.call("ZADD", scheduled, (latest > now_ms and deadline and latest or deadline or now_ms + KEEP_MS) / 1000, task.id)
  return true
end

made_joining = {carry = carry, is_told = is_told, join = join}
return made_joining
end

