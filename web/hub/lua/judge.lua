-- Writes a source's verdict unless another gateway did meanwhile. Returns 1 when it wrote. `before`: the verdict that
-- was there, or "".
-- keys: verdicts
-- args: source, before, verdict

if (redis.call("HGET", verdicts, source) or "") ~= before then return 0 end
redis.call("HSET", verdicts, source, verdict)
return 1
