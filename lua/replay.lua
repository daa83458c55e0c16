--[[ replay: charges a request that was forwarded without a take while Redis was away. Each request once.

    KEYS[1] organization hash   KEYS[2] event stream   KEYS[3] marker of this request
    ARGV[1] request id          ARGV[2] path (as in take)   ARGV[3] seconds to remember it
    ARGV[4…] meter, units; none: the request was not served, and will never be charged
  returns {CHARGED, receipt}          charged now; the receipt is empty where nothing is to be charged
          {REPLAYED_BEFORE, receipt}  done before: nothing changed; the receipt says what was charged then
          {UNPUBLISHED}               no entitlement is published for this moment: nothing changed, try again later
  The units were used, so they are charged whatever the status, and beyond the limit: what neither allowance nor grants
  nor overage can pay counts against the allowance, and leaves nothing of it. The charge belongs to the period of this
  moment by Redis' clock, and to the windows of those quotas of the principal's own that were charged before. ]]
--@include parts/period.lua
--@include parts/sources.lua
--@include parts/entry.lua
--@include parts/windows.lua
--@constants HEAD LIMIT COST_MAX CHARGED REPLAYED_BEFORE UNPUBLISHED

local hash, stream, marker, id, path, seconds = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3]
local before = redis.call('GET', marker)
if before then return {REPLAYED_BEFORE, before} end
if #ARGV == 3 then
  redis.call('SET', marker, '', 'EX', seconds)
  return {CHARGED, ''}
end
local org = string.match(path, '^[^/]+') or ''
if string.sub(hash, -#org - 5) ~= ':org:' .. org then
  return redis.error_reply('ERR replay: not the hash of this organization')
end

local published = redis.call('HGET', hash, 'e')
if not published then return {UNPUBLISHED} end
local now_s = tonumber(redis.call('TIME')[1])
local _, _, _, _, _, start1, end1, start2, end2 = struct.unpack(HEAD, published)
local start_s = period_at(now_s, start1, end1, start2, end2)
if not start_s then return {UNPUBLISHED} end

local start, write, entries, named = string.format('%d', start_s), {}, {}, {}
local begins = start
local function set(field, value)
  write[#write + 1] = field
  write[#write + 1] = value
end
for i = 4, #ARGV, 2 do
  local meter, units = ARGV[i], tonumber(ARGV[i + 1])
  if not units or units < 0 or units > COST_MAX or units % 1 ~= 0 then
    return redis.error_reply('ERR replay: units must be a whole number from 0 to 10^12')
  end
  if named[meter] then return redis.error_reply('ERR replay: a meter is named twice: ' .. meter) end
  named[meter] = true
  local field = start .. ':' .. meter
  local read = redis.call('HMGET', hash, 'used:' .. field, 'burnt:' .. field, 'over:' .. field, 'm:' .. meter,
    'g:' .. meter)
  local used, burnt, over = tonumber(read[1] or 0), tonumber(read[2] or 0), tonumber(read[3] or 0)
  local allowance, over_max = 0, 0 -- of a meter that the plan lacks
  if read[4] then allowance, over_max = struct.unpack(LIMIT, read[4]) end
  local from = sources(hash, now_s, units, used, burnt, over, allowance, over_max, read[5])
  entries[#entries + 1] = entry(meter, units, from.over, from.by)
  set('used:' .. field, used + units)
  if from.burnt > 0 then set('burnt:' .. field, burnt + from.burnt) end
  if from.over > 0 then set('over:' .. field, over + from.over) end
  for g = 1, #from.by, 2 do
    local grant = 'grant:' .. from.by[g]
    set(grant, from.by[g + 1] + (redis.call('HGET', hash, grant) or 0))
  end
  for node in string.gmatch(path, '/([^/]+)') do
    local counter = 'n:' .. node .. ':' .. meter
    local held = redis.call('HGET', hash, counter)
    if held then
      set(counter, windows_after(held, start_s, now_s, units))
      begins = start .. '@' .. string.format('%d', now_s)
    end
  end
end

-- The event first and the marker last: after a failure in between the call can be repeated. The event has the form of a
-- take, so all readers of takes read it, and `settle` accepts it as a receipt.
local event = 't ' .. id .. ' ' .. path .. ' ' .. begins .. ' ' .. table.concat(entries, ' ')
redis.call('XADD', stream, '*', 'e', event)
redis.call('HSET', hash, unpack(write))
redis.call('SET', marker, event, 'EX', seconds)
return {CHARGED, event}
