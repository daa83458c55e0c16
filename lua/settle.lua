--[[ settle: corrects a charge when its outcome is known, once for each receipt.

    KEYS[1] organization hash   KEYS[2] event stream   KEYS[3] marker of this receipt
    ARGV[1] receipt             ARGV[2] seconds to remember that it was settled
    ARGV[3] for a refund the number of refunds that the receipt's period may have; '' for a settlement without a cap
    ARGV[4…] meter, units really used; a meter that is not named keeps its charge
    KEYS[4]  optional: the entry of the request's idempotency key. Then ARGV[#ARGV] is the id of the request that gives
             the whole charge back: that of the receipt, or a repetition, which was admitted without a charge
  returns {outcome, meter, units, shortfall, …}  outcome SETTLED_BEFORE: nothing changed
                                                         APPLIED
                                                         KEPT_FOR_OTHERS: the charge stays for other requests with
                                                           that key; nothing changed
                                                         REFUNDS_SPENT: the period has had its refunds; nothing changed,
                                                           and the receipt can still be settled in another way
    units      added to the meter's counter, negative when given back
    shortfall  units that were used and could not be charged: a hard limit is never exceeded
  Units go back to where they came from, in reverse: overage, then grants (the latest expiry first), then allowance.
  The correction belongs to the receipt's period, whatever period is current now, and to the windows of the principal's
  own quotas in which it was charged, as long as they are the last ones. Those quotas do not limit it. In a region, what is
  published is what it holds in the current period, while its lease lasts: nothing is charged above the charge of an earlier one. To charge more
  than before, the organization must be published: otherwise the reply is an error, and the call can be repeated. ]]
--@include parts/sources.lua
--@include parts/entry.lua
--@include parts/windows.lua
--@include parts/period.lua
--@constants HEAD HEAD_BYTES HEAD_LEASED_BYTES LEASE LIMIT COST_MAX SETTLED_BEFORE APPLIED KEPT_FOR_OTHERS REFUNDS_SPENT

local hash, stream, marker, receipt = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
if redis.call('EXISTS', marker) == 1 then return {SETTLED_BEFORE} end
local now_s = tonumber(redis.call('TIME')[1])

local id, path, start_s, at_s, text = string.match(receipt, '^t (%S+) (%S+) (%d+)@?(%d*) (%S.*)$')
local org = string.match(path or '', '^[^/]+')
local charges, words, charged_meters = {}, {}, {}
for word in string.gmatch(text or '', '%S+') do
  local meter, units, over, grants = string.match(word, '^([^:]+):(%d+):?(%d*):?(.*)$')
  if meter then
    local by = {}
    for grant, n in string.gmatch(grants, '([^=,]+)=(%d+)') do
      by[#by + 1] = grant
      by[#by + 1] = tonumber(n)
    end
    charges[#charges + 1] = {meter = meter, units = tonumber(units), over = tonumber(over) or 0, by = by}
    words[#words + 1] = entry(meter, tonumber(units), tonumber(over) or 0, by)
    charged_meters[meter] = true
  end
end
-- A receipt must be exactly what take writes, and of this organization: another would correct the wrong counters.
if not org or string.sub(hash, -#org - 5) ~= ':org:' .. org or table.concat(words, ' ') ~= text then
  return redis.error_reply('ERR settle: not a receipt of this organization')
end

local idempotency_key, attempt = KEYS[4], nil
if idempotency_key then attempt = table.remove(ARGV) end
local actual = {}
for i = 4, #ARGV, 2 do
  local meter, units = ARGV[i], tonumber(ARGV[i + 1])
  if not units or units < 0 or units > COST_MAX or units % 1 ~= 0 then
    return redis.error_reply('ERR settle: units must be a whole number from 0 to 10^12')
  end
  -- If it were ignored, its units would be used and never charged.
  if not charged_meters[meter] then return redis.error_reply('ERR settle: not in the receipt: ' .. meter) end
  actual[meter] = units
end

-- The charge stays as long as one of the requests with its key may have been served.
local open, charged = string.match(idempotency_key and redis.call('GET', idempotency_key) or '', '^([^\n]*)\n(.*)$')
if charged == receipt then
  local others = {}
  for other in string.gmatch(open, '%S+') do
    if other ~= attempt then others[#others + 1] = other end
  end
  if #others > 0 then
    local still_open = table.concat(others, ' ')
    if still_open ~= open then redis.call('SET', idempotency_key, still_open .. '\n' .. receipt, 'KEEPTTL') end
    return {KEPT_FOR_OTHERS}
  end
elseif idempotency_key and attempt ~= id then
  return {KEPT_FOR_OTHERS} -- the entry is gone or of another charge: a repetition has nothing to give back
end
local refunds_max, refunds_field = tonumber(ARGV[3]), 'refunds:' .. start_s
if not refunds_max and ARGV[3] ~= '' then return redis.error_reply('ERR settle: not a number of refunds') end
local refunds = refunds_max and tonumber(redis.call('HGET', hash, refunds_field) or 0)
if refunds and refunds >= refunds_max then return {REFUNDS_SPENT} end

-- give_back: where `back` units of a charge return to, in the form of `sources`; returned units are negative.
local function give_back(charge, back)
  local from_over = math.min(back, charge.over)
  local from = {over = 0 - from_over, burnt = 0, by = {}, short = 0} -- 0 - x: no negative zero in the event
  back = back - from_over
  for i = #charge.by - 1, 1, -2 do
    local n = math.min(back, charge.by[i + 1])
    if n > 0 then
      from.by[#from.by + 1] = charge.by[i]
      from.by[#from.by + 1] = -n
      from.burnt = from.burnt - n
      back = back - n
    end
  end
  return from
end

-- is_held: whether the published limits are those of the receipt's period; in a region, also whether its lease is in force.
local function is_held(head)
  if #head < HEAD_LEASED_BYTES then return true end
  local _, _, _, _, _, start1, end1, start2, end2 = struct.unpack(HEAD, head)
  local asked_s, lasts_s = struct.unpack(LEASE, head, HEAD_BYTES + 1)
  if now_s < asked_s or now_s >= asked_s + lasts_s then return false end
  return period_at(now_s, start1, end1, start2, end2) == tonumber(start_s)
end

local reply, write, entries = {APPLIED}, {}, {}
local function set(field, value)
  write[#write + 1] = field
  write[#write + 1] = value
end
for _, charge in ipairs(charges) do
  local meter, units = charge.meter, actual[charge.meter]
  if units and units ~= charge.units then
    local field = start_s .. ':' .. meter
    local read = redis.call('HMGET', hash, 'used:' .. field, 'burnt:' .. field, 'over:' .. field, 'm:' .. meter,
      'g:' .. meter, 'e')
    local used, burnt, over = tonumber(read[1] or 0), tonumber(read[2] or 0), tonumber(read[3] or 0)
    local delta, from = units - charge.units, nil
    if delta < 0 then
      from = give_back(charge, -delta)
    else
      if not read[6] then return redis.error_reply('ERR settle: the organization is not published') end
      local allowance, over_max = 0, 0
      if read[4] then allowance, over_max = struct.unpack(LIMIT, read[4]) end
      local grants = read[5]
      if not is_held(read[6]) then allowance, over_max, grants = 0, 0, false end
      from = sources(hash, now_s, delta, used, burnt, over, allowance, over_max, grants)
      delta = delta - from.short
    end
    reply[#reply + 1] = meter
    reply[#reply + 1] = delta
    reply[#reply + 1] = from.short
    if delta ~= 0 then
      entries[#entries + 1] = entry(meter, delta, from.over, from.by)
      -- A counter that no longer exists (its period is long over, or Redis lost it) gets nothing back; only the event
      -- has the correction. A new counter below zero would give units away. One that was never written is zero.
      if read[1] or delta > 0 then
        set('used:' .. field, used + delta)
        if from.burnt ~= 0 then set('burnt:' .. field, burnt + from.burnt) end
        if from.over ~= 0 then set('over:' .. field, over + from.over) end
      end
      for node in string.gmatch(at_s ~= '' and path or '', '/([^/]+)') do
        local counter = 'n:' .. node .. ':' .. meter
        local held = redis.call('HGET', hash, counter)
        if held then set(counter, windows_after(held, tonumber(start_s), tonumber(at_s), delta)) end
      end
      for i = 1, #from.by, 2 do
        local grant, n = 'grant:' .. from.by[i], from.by[i + 1]
        local given = redis.call('HGET', hash, grant)
        if given or n > 0 then set(grant, (given or 0) + n) end
      end
    end
  end
end

-- The event first and the marker last: after a failure in between the call can be repeated.
if #entries > 0 then
  -- A refund must not create a hash that no longer exists; its count of refunds was lost with it.
  if refunds and redis.call('EXISTS', hash) == 1 then set(refunds_field, refunds + 1) end
  local begins = at_s == '' and start_s or start_s .. '@' .. at_s
  redis.call('XADD', stream, '*', 'e', 's ' .. id .. ' ' .. path .. ' ' .. begins .. ' ' .. table.concat(entries, ' '))
  if #write > 0 then redis.call('HSET', hash, unpack(write)) end
end
redis.call('SET', marker, '', 'EX', ARGV[2])
if charged == receipt then redis.call('DEL', idempotency_key) end
return reply
