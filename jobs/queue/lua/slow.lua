-- Keeps all fetches from a host for a time that it asked for.
-- args: name, ms
-- uses: hosts
-- flags: allow-oom

local host = look(name)
if host.next < exact_ms + ms then hold(name, host, exact_ms + ms) end
