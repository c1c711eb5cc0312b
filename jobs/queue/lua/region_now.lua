-- Returns the region's time in ms.
-- flags: allow-oom

return now_ms
