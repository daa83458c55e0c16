--[[ lower: a region gives up units that it holds and does not need. Its home counts on it once it is told.

    KEYS[1] organization hash   KEYS[2] the shard's generation
    ARGV[1] generation   ARGV[2] it has lowered more often than that   ARGV[3...] account and units: `m:<meter>` its allowance, `o:<meter>` its overage, `g:<grant>` a grant
  returns how often the region has lowered; MEMORY_LOST where Redis has lost its memory since: then nothing changed
  A lease that the home has sent before it is told is not installed any more: it does not know of this.
  What was drawn already stays drawn, also where that is more. ARGV[2] is what the home has heard: a hash that was lost begins
  anew at 0, and the home believes it only above that. ]]
--@constants MEMORY_LOST LIMIT LIMIT_BYTES
local hash = KEYS[1]
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return MEMORY_LOST end
local most = {}
for i = 3, #ARGV, 2 do most[ARGV[i]] = tonumber(ARGV[i + 1]) end
local write = {}
for _, field in ipairs(redis.call('HKEYS', hash)) do
  local kind, meter = string.match(field, '^([mg]):(.*)$')
  if kind == 'm' then
    local limits = redis.call('HGET', hash, field)
    local allowance, over_max = struct.unpack(LIMIT, limits)
    allowance = math.min(allowance, most['m:' .. meter] or allowance)
    if over_max > 0 then over_max = math.min(over_max, most['o:' .. meter] or over_max) end
    write[#write + 1], write[#write + 2] = field, struct.pack(LIMIT, allowance, over_max)
      .. string.sub(limits, LIMIT_BYTES + 1)
  elseif kind == 'g' then
    local list = string.gsub(redis.call('HGET', hash, field), '(%S+) (%d+) (%d+)', function(id, units, expires)
      return string.format('%s %.0f %s', id, math.min(units, most['g:' .. id] or units), expires)
    end)
    write[#write + 1], write[#write + 2] = field, list
  end
end
local lowered, installed = string.match(redis.call('HGET', hash, 'lease') or '0 0', '^(%d+) (%d+)$')
lowered = string.format('%.0f', math.max(lowered, ARGV[2]) + 1)
redis.call('HSET', hash, 'lease', lowered .. ' ' .. installed, unpack(write))
return tonumber(lowered)
