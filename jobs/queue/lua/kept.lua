-- The outcome of a failed attempt, as it is kept in the job's record until the next one: a list, which older workers
-- read, too.
-- Of an ending: `status` and `problem` are RQ's status and traceback, `state` is the task's, `size_bytes` are those of
-- the JSON. It is also the answer for others whose deadlines are up to `shared_ms` later (-1: for nobody). `meta` is
-- what the cache keeps of it, or "".
-- `answered_ms`: when the source gave the answer (hub ms), or "".
-- rows: ending (status, problem, request, state, finished_ms, expires_ms, size_bytes, frame, raw_bytes, records_bytes,
--   wire_bytes, trail, shared_ms, meta, answered_ms)

local function pack_kept(execution, worker, began, ending)
  return cmsgpack.pack({execution, worker, began, {unpack(ending, 1, ending_size())}})
end

-- Returns the execution, its worker, when it began, and the ending.
local function unpack_kept(text)
  return unpack(cmsgpack.unpack(text))
end

