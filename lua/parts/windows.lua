-- windows_after: the counters of a node, `window_s:start_s:units …`, after `units` more were charged at `at_s` in the
-- organization's period that begins at `start_s`. A window that has ended since stays as it is: units that are given
-- back would be given away in the one that follows.
local function windows_after(held, start_s, at_s, units)
  return (string.gsub(held, '(%d+):(%d+):(%d+)', function(window, start, used)
    local window_s, begins = tonumber(window), start_s
    if window_s > 0 then begins = at_s - at_s % window_s end
    start, used = tonumber(start), tonumber(used)
    if start == begins then
      used = math.max(0, used + units)
    elseif start < begins and units > 0 then
      start, used = begins, units
    end
    return string.format('%s:%d:%.0f', window, start, used)
  end))
end
