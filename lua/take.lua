--[[ take: admit and charge. Every meter of a request is charged, or none.

  Several requests travel in one call, each decided on its own and in order.
    KEYS        for each request: organization hash, its shard's event stream, and what its idempotency key is kept in
    ARGV        for each request: request id, organization, number of meters n, then n times (meter, cost);
                `kn` in place of n where the request has an idempotency key, and so a third key; `un` the same for
                usage that is reported, and no request: no rate holds it up, and it needs no slot
  returns one string for each request, or its error:
    struct '<BBdddd'  verdict, meter index, now us, period start s, period end s, detail
    verdict 1 admitted      then for each meter '<ddd' limit, remaining, overage; then the receipt as text
            8 the same, with more to tell in place of the meter index: 1 not charged, since another request with the
              key was, and the receipt is that one's; 2 holds a slot until it is released; 3 both
            2 exhausted     meter index; '<ddd' of that meter; detail 1: the cost is above the whole limit
            3 rate limited  detail: whole microseconds until a request passes; then '<dd' microseconds between two
                            requests, and of a burst
            4 not entitled  detail: status
            5 not in plan   meter index
            6 unknown       detail 1: an entitlement is there, but its published periods are over
            7 concurrency   detail: how many requests may be under way
  invariants: a hard limit is never exceeded; a refusal writes nothing; a charge and its event are one step.
  Rate limit: GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm; the hash holds the theoretical arrival time.

  Every request of every gateway comes through here, so there are two ways. The plain one, in the loop at the end, admits
  one meter that its allowance pays for, under a key that is new or without one; it makes no closure, and texts of texts,
  since Lua prints a number slowly. All else, every refusal included, goes through `decide`, which says the same of a
  plain request. `bench/take.py` tells what either costs. ]]

local HEAD_BYTES = 58 -- of an entitlement's head without a limit of concurrent requests
local SLOT_SECONDS = 60 -- a slot that nobody renews is free after that
local ONCE_SECONDS = 86400
local ATTEMPTS_BYTES_MAX = 1300 -- some 60 requests with one key, all under way; then nobody can give the charge back

-- The period of the request before, as number and text. The requests of one call most often share it, so the counters of
-- that one are read together with the entitlement, and again only if it says otherwise.
local seen_start_s, seen_start = nil, nil

-- The functions of the second way, which most calls never need.
local function load_decide()
--@include parts/period.lua
--@include parts/sources.lua
--@include parts/entry.lua
  local call, pack = redis.call, struct.pack

  local function append_counters(names, start, first, last)
    for i = first, last, 2 do
      local field, n = start .. ':' .. ARGV[i], #names
      names[n + 1], names[n + 2], names[n + 3] = 'used:' .. field, 'burnt:' .. field, 'over:' .. field
    end
  end

  -- One request, of meters and costs ARGV[first…last]. What the plain way has read already comes with it.
  local function decide(now_us, hash, stream, id, org, first, last, published, counters, once, reported)
    local names, before, read_start_s = {}, 0, nil -- before: values in `counters` that are none
    if not published then
      local read, named = {'e', 'tat'}, {}
      for i = first, last, 2 do
        local meter = ARGV[i]
        -- Both charges would start from one counter, and the second would overwrite the first.
        if named[meter] then error('a meter is named twice: ' .. meter, 0) end
        named[meter] = true
        read[#read + 1] = 'm:' .. meter
        read[#read + 1] = 'g:' .. meter
      end
      if seen_start_s then
        before, read_start_s = #read, seen_start_s
        append_counters(read, seen_start, first, last)
      end
      published = call('HMGET', hash, unpack(read))
    end
    if not published[1] then return pack('<BBdddd', 6, 0, now_us, 0, 0, 0) end
    local _, status, _, interval_us, burst_us, start1, end1, start2, end2 = struct.unpack('<dBBdddddd', published[1])
    if status < 1 or status > 3 then return pack('<BBdddd', 4, 0, now_us, 0, 0, status) end
    local now_s = math.floor(now_us / 1000000)
    local start_s, end_s = period_at(now_s, start1, end1, start2, end2)
    if not start_s then return pack('<BBdddd', 6, 0, now_us, 0, 0, 1) end

    if start_s ~= seen_start_s then seen_start_s, seen_start = start_s, string.format('%d', start_s) end
    local start = seen_start
    append_counters(names, start, first, last)
    if start_s == read_start_s then
      counters = published
    else
      counters, before = counters or call('HMGET', hash, unpack(names)), 0
    end
    -- A request that was charged under the key already: whose attempts are open, and its receipt.
    local attempts, receipt = nil, nil
    local held = once and call('GET', once)
    if held then attempts, receipt = string.match(held, '^([^\n]*)\n(.*)$') end

    local write, balances, event = {}, '', 't ' .. id .. ' ' .. org .. ' ' .. start
    for m = 1, #names / 3 do
      local meter, cost = ARGV[first + 2 * m - 2], tonumber(ARGV[first + 2 * m - 1])
      if not cost or cost < 0 or cost > 1e12 or cost % 1 ~= 0 then
        error('cost must be a whole number from 0 to 10^12: ' .. ARGV[first + 2 * m - 1], 0)
      end
      local limits, grants, c = published[1 + 2 * m], published[2 + 2 * m], 3 * m - 2
      if not limits then return pack('<BBdddd', 5, m, now_us, start_s, end_s, 0) end
      if receipt then cost = 0 end
      local allowance, over_max = struct.unpack('<dd', limits)
      local used, burnt, over = counters[before + c], counters[before + c + 1], counters[before + c + 2]
      used, burnt, over = tonumber(used or 0), tonumber(burnt or 0), tonumber(over or 0)
      local left = allowance - (used - burnt - over)
      if cost <= left and not grants then
        balances = balances .. pack('<ddd', allowance + burnt, left - cost, over)
        event = event .. ' ' .. meter .. ':' .. string.format('%.0f', cost)
      else
        local from = sources(hash, now_s, cost, used, burnt, over, allowance, over_max, grants)
        local limit = allowance + burnt + from.granted
        if from.short > 0 then
          local never = over_max >= 0 and cost > limit + over_max
          local remaining = from.left + from.granted
          return pack('<BBddddddd', 2, m, now_us, start_s, end_s, never and 1 or 0, limit, remaining, over)
        end
        local remaining = from.left - from.allowance + from.granted - from.burnt
        balances = balances .. pack('<ddd', limit, remaining, over + from.over)
        event = event .. ' ' .. entry(meter, cost, from.over, from.by)
        if from.burnt > 0 then
          write[#write + 1] = names[c + 1]
          write[#write + 1] = burnt + from.burnt
          for i = 1, #from.by, 2 do
            local grant = 'grant:' .. from.by[i]
            write[#write + 1] = grant
            write[#write + 1] = from.by[i + 1] + (call('HGET', hash, grant) or 0)
          end
        end
        if from.over > 0 then
          write[#write + 1] = names[c + 2]
          write[#write + 1] = over + from.over
        end
      end
      if not receipt then
        write[#write + 1] = names[c]
        write[#write + 1] = used + cost
      end
    end

    if interval_us > 0 and not reported then
      local arrival_us = math.max(tonumber(published[2] or 0), now_us) + interval_us
      local early_us = arrival_us - burst_us - now_us
      if early_us > 0 then
        return pack('<BBdddddd', 3, 0, now_us, start_s, end_s, math.ceil(early_us), interval_us, burst_us)
      end
      write[#write + 1] = 'tat'
      write[#write + 1] = arrival_us
    end
    local slots = not reported and #published[1] > HEAD_BYTES and hash .. '/slots'
    if slots then
      local slots_max = struct.unpack('<I4', published[1], HEAD_BYTES + 1)
      if call('ZCARD', slots) >= slots_max then
        if call('ZCOUNT', slots, '(' .. now_s, '+inf') >= slots_max then
          return pack('<BBdddd', 7, 0, now_us, start_s, end_s, slots_max)
        end
        call('ZREMRANGEBYSCORE', slots, '-inf', now_s)
      end
    end

    if receipt then
      event = receipt
      if attempts ~= '*' then
        attempts = #attempts < ATTEMPTS_BYTES_MAX and attempts .. ' ' .. id or '*'
        call('SET', once, attempts .. '\n' .. receipt, 'KEEPTTL')
      end
    else
      -- The event first: should the stream refuse it, no counter has moved.
      call('XADD', stream, '*', 'e', event)
      if once then call('SET', once, id .. '\n' .. event, 'EX', ONCE_SECONDS) end
    end
    if #write > 0 then call('HSET', hash, unpack(write)) end
    if slots then call('ZADD', slots, now_s + SLOT_SECONDS, id) end
    local more = (receipt and 1 or 0) + (slots and 2 or 0)
    return pack('<BBdddd', more > 0 and 8 or 1, more, now_us, start_s, end_s, 0) .. balances .. event
  end
  return decide
end

local KEYS, ARGV, call, try, unpack_struct = KEYS, ARGV, redis.call, redis.pcall, struct.unpack
local time = call('TIME')
local now_s = tonumber(time[1])
local now_us = now_s * 1000000 + time[2]

local replies, at, key, decide = {}, 1, 1, nil
local named_meter, named_start_s, start, limits_field, grants_field, used_field, burnt_field, over_field -- see below
local key_count = #KEYS
while key < key_count do
  local hash, stream, id, org, n = KEYS[key], KEYS[key + 1], ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local reply, published, counters

  -- The text of the cost goes into the event as it is, so it must be the one that its number is written as.
  local cost_text, cost, once, reported
  if n == '1' then
    cost_text = ARGV[at + 4]
  elseif n == 'k1' or n == 'u1' then
    cost_text, once, reported = ARGV[at + 4], KEYS[key + 2], n == 'u1'
  end
  if cost_text == '1' then
    cost = 1
  elseif cost_text and (cost_text == '0' or string.find(cost_text, '^[1-9]%d*$')) then
    cost = tonumber(cost_text)
  end
  if cost and cost <= 1e12 then
    local meter = ARGV[at + 3]
    -- The requests of one call often share meter and period: then the fields' names are made once.
    if meter ~= named_meter then
      named_meter, named_start_s, limits_field, grants_field = meter, nil, 'm:' .. meter, 'g:' .. meter
    end
    local read_start_s = named_start_s
    if read_start_s then -- an error is a table without [1]
      published = try('HMGET', hash, 'e', 'tat', limits_field, grants_field, used_field, burnt_field, over_field)
    else
      published = try('HMGET', hash, 'e', 'tat', limits_field, grants_field)
    end
    local entitlement, limits = published[1], published[3]
    if entitlement and limits and not published[4] and #entitlement == HEAD_BYTES then
      local _, status, _, interval_us, burst_us, start_s, end_s, start2, end2 = unpack_struct('<dBBdddddd', entitlement)
      if now_s >= end_s then start_s, end_s = start2, end2 end
      if now_s >= start_s and now_s < end_s and status >= 1 and status <= 3 then
        local used, burnt, over
        if start_s == read_start_s then
          used, burnt, over = published[5], published[6], published[7]
        else
          if start_s ~= seen_start_s then seen_start_s, seen_start = start_s, string.format('%d', start_s) end
          named_start_s, start = start_s, seen_start
          local field = start .. ':' .. meter
          used_field, burnt_field, over_field = 'used:' .. field, 'burnt:' .. field, 'over:' .. field
          local read = call('HMGET', hash, used_field, burnt_field, over_field)
          used, burnt, over = read[1], read[2], read[3]
        end
        used, burnt, over = used and tonumber(used) or 0, burnt and tonumber(burnt) or 0, over and tonumber(over) or 0
        local allowance = unpack_struct('<d', limits)
        local left, arrival_us, early_us = allowance - (used - burnt - over), nil, 0
        if interval_us > 0 and not reported then
          arrival_us = published[2] and tonumber(published[2]) or 0
          if arrival_us < now_us then arrival_us = now_us end
          arrival_us = arrival_us + interval_us
          early_us = arrival_us - burst_us - now_us
        end
        -- A key that is taken, or cannot be read (an error, which is no false either), is for `decide`.
        if cost <= left and early_us <= 0 and not (once and try('GET', once)) then
          local event = 't ' .. id .. ' ' .. org .. ' ' .. start .. ' ' .. meter .. ':' .. cost_text
          -- The event first: should the stream refuse it, no counter has moved.
          local appended = try('XADD', stream, '*', 'e', event)
          if type(appended) == 'table' then
            reply = redis.error_reply('ERR take: ' .. appended.err)
          else
            if once then call('SET', once, id .. '\n' .. event, 'EX', ONCE_SECONDS) end
            if arrival_us then
              call('HSET', hash, used_field, used + cost, 'tat', arrival_us)
            else
              call('HSET', hash, used_field, used + cost)
            end
            reply = struct.pack('<BBddddddd', 1, 0, now_us, start_s, end_s, 0, allowance + burnt, left - cost, over)
              .. event
          end
        else
          counters = {used, burnt, over}
        end
      end
    end
    published = entitlement and published
  end

  local meters = tonumber(n)
  if not meters and n then
    local mark = string.byte(n)
    if mark == 107 or mark == 117 then -- k, u
      meters, once, reported = tonumber(string.sub(n, 2)), KEYS[key + 2], mark == 117
      key = key + 1
    end
  end
  if not meters or meters < 1 or meters % 1 ~= 0 then
    -- Nobody knows where the next request starts: it and those after it are errors, too.
    reply, at = redis.error_reply('ERR take: not a number of meters: ' .. tostring(n)), #ARGV + 1
  else
    if not reply then
      decide = decide or load_decide()
      local done
      local last = at + 1 + 2 * meters
      done, reply = pcall(decide, now_us, hash, stream, id, org, at + 3, last, published, counters, once,
        reported)
      if not done then
        -- A redis.call that failed raises a table, our own checks a text.
        reply = redis.error_reply('ERR take: ' .. (type(reply) == 'table' and reply.err or tostring(reply)))
      end
    end
    at = at + 3 + 2 * meters
  end
  key = key + 2
  replies[#replies + 1] = reply
end
return replies
