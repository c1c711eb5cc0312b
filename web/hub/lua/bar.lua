-- Bars a region for a time.
-- keys: barred
-- args: region, for_ms, why
-- uses: now
-- flags: allow-oom

redis.call("HSET", barred, region, string.format("%.0f", now_ms() + for_ms) .. " " .. why)
