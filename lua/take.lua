--[[ take: admit and charge. Every meter of a request is charged, or none.

  Several requests travel in one call, each decided on its own and in order.
    KEYS[2i-1]  organization hash of request i      KEYS[2i]  its shard's event stream
    ARGV        for each request: request id, organization, number of meters n, then n times (meter, cost)
  returns one string for each request, or its error:
    struct '<BBdddd'  verdict, meter index, now us, period start s, period end s, detail
    verdict 1 admitted      then for each meter '<ddd' limit, remaining, overage; then the receipt as text
            2 exhausted     meter index; '<ddd' of that meter; detail 1: the cost is above the whole limit
            3 rate limited  detail: whole microseconds until a request passes
            4 not entitled  detail: status
            5 not in plan   meter index
            6 unknown       detail 1: an entitlement is there, but its published periods are over
  invariants: a hard limit is never exceeded; a refusal writes nothing; a charge and its event are one step.
  Rate limit: GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm; the hash holds the theoretical arrival time. ]]
--@include parts/period.lua
--@include parts/sources.lua
--@include parts/entry.lua

local call, pack, unpack_struct, format = redis.call, struct.pack, struct.unpack, string.format
local time = call('TIME')
local now_s = tonumber(time[1])
local now_us = now_s * 1000000 + time[2]

local function take(hash, stream, at)
  local id, org, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if not n or n < 1 or n % 1 ~= 0 then error('not a number of meters: ' .. tostring(ARGV[at + 2])) end
  local last = at + 1 + 2 * n -- of the pairs' meters; their costs stand one further
  local read, named = {'e', 'tat'}, {}
  for i = at + 3, last, 2 do
    -- Both charges would start from one counter, and the second would overwrite the first.
    if named[ARGV[i]] then error('a meter is named twice: ' .. ARGV[i]) end
    named[ARGV[i]] = true
    read[#read + 1] = 'm:' .. ARGV[i]
    read[#read + 1] = 'g:' .. ARGV[i]
  end
  local published = call('HMGET', hash, unpack(read))
  if not published[1] then return pack('<BBdddd', 6, 0, now_us, 0, 0, 0) end
  local _, status, _, interval_us, burst_us, start1, end1, start2, end2 = unpack_struct('<dBBdddddd', published[1])
  if status < 1 or status > 3 then return pack('<BBdddd', 4, 0, now_us, 0, 0, status) end
  local start_s, end_s = period_at(now_s, start1, end1, start2, end2)
  if not start_s then return pack('<BBdddd', 6, 0, now_us, 0, 0, 1) end

  local names = {}
  for i = at + 3, last, 2 do
    local field = start_s .. ':' .. ARGV[i]
    names[#names + 1] = 'used:' .. field
    names[#names + 1] = 'burnt:' .. field
    names[#names + 1] = 'over:' .. field
  end
  local counters = call('HMGET', hash, unpack(names))

  local write, balances, event = {}, '', 't ' .. id .. ' ' .. org .. ' ' .. start_s
  for m = 1, n do
    local meter, cost = ARGV[at + 1 + 2 * m], tonumber(ARGV[at + 2 + 2 * m])
    if not cost or cost < 0 or cost > 1e12 or cost % 1 ~= 0 then
      error('cost must be a whole number from 0 to 10^12: ' .. tostring(ARGV[at + 2 + 2 * m]))
    end
    local limit, grants = published[1 + 2 * m], published[2 + 2 * m]
    if not limit then return pack('<BBdddd', 5, m, now_us, start_s, end_s, 0) end
    local allowance, over_max = unpack_struct('<dd', limit)
    local c = 3 * m - 2
    local used, burnt, over = tonumber(counters[c] or 0), tonumber(counters[c + 1] or 0), tonumber(counters[c + 2] or 0)
    local left = allowance - (used - burnt - over)
    if cost <= left and not grants then -- the common charge: all of it from the allowance
      balances = balances .. pack('<ddd', allowance + burnt, left - cost, over)
      event = event .. ' ' .. meter .. ':' .. format('%.0f', cost)
    else
      local from = sources(hash, now_s, cost, used, burnt, over, allowance, over_max, grants)
      local whole = allowance + burnt + from.granted
      if from.short > 0 then
        local never = over_max >= 0 and cost > whole + over_max
        return pack('<BBddddddd', 2, m, now_us, start_s, end_s, never and 1 or 0, whole, from.left + from.granted, over)
      end
      balances = balances .. pack('<ddd', whole,
        from.left - from.allowance + from.granted - from.burnt, over + from.over)
      event = event .. ' ' .. entry(meter, cost, from.over, from.by)
      if from.burnt > 0 then
        write[#write + 1] = names[c + 1]
        write[#write + 1] = burnt + from.burnt
        for i = 1, #from.by, 2 do
          local field = 'grant:' .. from.by[i]
          write[#write + 1] = field
          write[#write + 1] = from.by[i + 1] + (call('HGET', hash, field) or 0)
        end
      end
      if from.over > 0 then
        write[#write + 1] = names[c + 2]
        write[#write + 1] = over + from.over
      end
    end
    write[#write + 1] = names[c]
    write[#write + 1] = used + cost
  end

  if interval_us > 0 then
    local arrival_us = tonumber(published[2] or 0)
    if arrival_us < now_us then arrival_us = now_us end
    arrival_us = arrival_us + interval_us
    local early_us = arrival_us - burst_us - now_us
    if early_us > 0 then return pack('<BBdddd', 3, 0, now_us, start_s, end_s, math.ceil(early_us)) end
    write[#write + 1] = 'tat'
    write[#write + 1] = arrival_us
  end

  -- The event first: should the stream refuse it, no counter has moved.
  call('XADD', stream, '*', 'e', event)
  call('HSET', hash, unpack(write))
  return pack('<BBdddd', 1, 0, now_us, start_s, end_s, 0) .. balances .. event
end

local replies, at = {}, 1
for i = 1, #KEYS, 2 do
  local done, reply = pcall(take, KEYS[i], KEYS[i + 1], at)
  if not done then
    -- A redis.call that failed raises a table, our own checks a text.
    reply = redis.error_reply('ERR take: ' .. (type(reply) == 'table' and reply.err or tostring(reply)))
  end
  replies[#replies + 1] = reply
  -- After a request that cannot be read, nobody knows where the next one starts: the rest are errors, too.
  local n = tonumber(ARGV[at + 2])
  at = n and n >= 1 and n % 1 == 0 and at + 3 + 2 * n or #ARGV + 1
end
return replies
