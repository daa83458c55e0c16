--[[ rebase: corrects counters by their drift, once, while traffic goes on.

    KEYS[1] organization hash   KEYS[2] the shard's generation
    ARGV[1] generation, and ARGV[2] repairs of this organization, both as they were when the drift was measured
    ARGV[3…] field, units to add; of a principal's own quota the field is `n:<node>:<meter>:<window seconds>:<start>`
  returns 1, or 0 where somebody else has repaired or rebuilt the organization since: then nothing changed
  Traffic does not change drift, so it is added and not set. No event is appended: drift is measured against events. ]]
local NODE = '^(n:.+):(%d+):(%d+)$'
local hash, generation_key, generation, repairs = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if (redis.call('GET', generation_key) or '') ~= generation then return 0 end
local read = redis.call('HMGET', hash, 'e', 'repairs')
if not read[1] or (read[2] or '0') ~= repairs then return 0 end
-- rebase_window: the windows of a node's counter, `window_s:start_s:units …`, with this one moved. One that has begun since
-- stays as it is. Words that are no windows are dropped.
local function rebase_window(held, window, start_s, units)
  local words, found = {}, false
  for word in string.gmatch(held, '%S+') do
    local its, begins, used = string.match(word, '^(%d+):(%d+):(%d+)$')
    if its == window then
      found = true
      if tonumber(begins) < start_s then begins, used = start_s, 0 end
      if tonumber(begins) == start_s then used = math.max(0, used + units) end
    end
    if its then words[#words + 1] = string.format('%s:%.0f:%.0f', its, begins, used) end
  end
  if not found then words[#words + 1] = string.format('%s:%.0f:%.0f', window, start_s, math.max(0, units)) end
  return table.concat(words, ' ')
end

for i = 3, #ARGV, 2 do
  local field, window, start_s = string.match(ARGV[i], NODE)
  if field then
    local held = redis.call('HGET', hash, field) or ''
    redis.call('HSET', hash, field, rebase_window(held, window, tonumber(start_s), tonumber(ARGV[i + 1])))
  else
    redis.call('HINCRBY', hash, ARGV[i], ARGV[i + 1])
  end
end
redis.call('HINCRBY', hash, 'repairs', 1)
return 1
