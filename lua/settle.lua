--[[ settle: correct a charge when its outcome is known, once for each receipt.

    KEYS[1] organization hash   KEYS[2] event stream   KEYS[3] marker of this receipt
    ARGV[1] receipt             ARGV[2] seconds to remember that it was settled
    ARGV[3…] meter, units really used; a meter that is not named stays as charged
  returns {applied, meter, units, shortfall, …}  applied 0: settled before, nothing changed
    units      added to the meter's counter, negative when given back
    shortfall  units used that could not be charged: a hard limit is never exceeded
  Units go back where they came from, in reverse: overage, then grants (the latest expiry first), then allowance.
  The correction belongs to the receipt's period, whatever period it is now. ]]
--@include parts/sources.lua
--@include parts/entry.lua

if redis.call('EXISTS', KEYS[3]) == 1 then return {0} end

local hash, receipt = KEYS[1], ARGV[1]
local id, org, start_s, charges = string.match(receipt, '^%a (%S+) (%S+) (%d+) (.+)$')
if not id then return redis.error_reply('ERR settle: not a receipt') end
local now_s = tonumber(redis.call('TIME')[1])

local actual = {}
for i = 3, #ARGV, 2 do
  local units = tonumber(ARGV[i + 1])
  if not units or units < 0 or units > 1e12 or units % 1 ~= 0 then
    return redis.error_reply('ERR settle: units must be a whole number from 0 to 10^12')
  end
  actual[ARGV[i]] = units
end

local reply, write, entries = {1}, {}, {}
for meter, charged, over_text, grants_text in string.gmatch(charges, '([^:%s]+):(%d+):?(%d*):?(%S*)') do
  local units = actual[meter]
  if units and units ~= tonumber(charged) then
    local field = start_s .. ':' .. meter
    local counters = redis.call('HMGET', hash, 'used:' .. field, 'burnt:' .. field, 'over:' .. field,
      'm:' .. meter, 'g:' .. meter)
    local used, burnt, over = tonumber(counters[1] or 0), tonumber(counters[2] or 0), tonumber(counters[3] or 0)
    local delta, over_delta, burnt_delta, by, shortfall = units - charged, 0, 0, {}, 0
    if delta < 0 then
      local back = -delta
      local from_over = math.min(back, tonumber(over_text) or 0)
      over_delta = -from_over
      back = back - from_over
      local burned = {}
      for grant, n in string.gmatch(grants_text, '([^=,]+)=(%d+)') do
        table.insert(burned, 1, {grant, tonumber(n)})
      end
      for _, one in ipairs(burned) do
        local n = math.min(back, one[2])
        if n > 0 then
          by[#by + 1] = one[1]
          by[#by + 1] = -n
          burnt_delta = burnt_delta - n
          back = back - n
        end
      end
    else
      local allowance, over_max = 0, 0
      if counters[4] then allowance, over_max = struct.unpack('<dd', counters[4]) end
      local from = sources(hash, now_s, delta, used, burnt, over, allowance, over_max, counters[5])
      over_delta, burnt_delta, by, shortfall = from.over, from.burnt, from.by, from.short
      delta = delta - shortfall
    end
    reply[#reply + 1] = meter
    reply[#reply + 1] = delta
    reply[#reply + 1] = shortfall
    if delta ~= 0 then
      -- A counter that is gone (its period is long over) stays gone; the event alone carries the correction.
      entries[#entries + 1] = entry(meter, delta, over_delta, by)
      local moves = {{'used:' .. field, used + delta}, {'burnt:' .. field, burnt + burnt_delta, burnt_delta},
        {'over:' .. field, over + over_delta, over_delta}}
      for _, move in ipairs(moves) do
        if counters[1] and move[3] ~= 0 then
          write[#write + 1] = move[1]
          write[#write + 1] = move[2]
        end
      end
      for i = 1, #by, 2 do
        local grant = 'grant:' .. by[i]
        write[#write + 1] = grant
        write[#write + 1] = (redis.call('HGET', hash, grant) or 0) + by[i + 1]
      end
    end
  end
end

redis.call('SET', KEYS[3], '', 'EX', ARGV[2])
if #entries > 0 then
  redis.call('XADD', KEYS[2], '*', 'e', 's ' .. id .. ' ' .. org .. ' ' .. start_s .. ' ' .. table.concat(entries, ' '))
  if #write > 0 then redis.call('HSET', hash, unpack(write)) end
end
return reply
