-- The regions that were asked for a task, as its ledger has them behind its state: "fra", nearly always. "fra,nyc": both are
-- out. "nyc|fra": nyc is out, fra has failed; or, of a task that has ended, nyc answered, and fra was asked, too.

-- The regions that are out, or the one that answered; and the others.
local function parted(asked) return string.match(asked, "^([^|]*)|?(.*)$") end

local function has(list, region) return string.find("," .. list .. ",", "," .. region .. ",", 1, true) ~= nil end

-- Two lists in one, without one region.
local function without(region, list, more)
  local found = {}
  for one in string.gmatch(list .. "," .. (more or ""), "[^,]+") do
    if one ~= region then found[#found + 1] = one end
  end
  return table.concat(found, ",")
end
