--[[ take: admits requests and charges them. Every meter of a request is charged, or none.

  One call decides several requests, each on its own and in order.
    KEYS        for each request: organization hash, its shard's event stream, and its idempotency key if it has one
    ARGV        for each request: request id, organization, number of meters, then meter and cost of each;
                before the number MARK_KEYED where the request has an idempotency key, and so a third key;
                MARK_REPORTED the same for usage that is reported: no rate limit applies, and it needs no permit
  returns for each request a string, or an error:
    REPLY  verdict, meter index, now us, period start s, period end s, detail
    verdict ADMITTED             then for each meter BALANCE limit, remaining, overage; then the receipt as text
            ADMITTED_WITH_MORE   the same, with bits of More in place of the meter index. REPLAYED: not charged, since
                                 another request with the key was; the receipt is that one's. PERMIT: the request
                                 holds a permit until it is released
            EXHAUSTED            meter index; BALANCE of that meter; detail 1: the cost is above the whole limit
            RATE_LIMITED         detail: whole microseconds until a request can pass; then RATE
            NOT_ENTITLED         detail: status
            NOT_IN_PLAN          meter index
            UNKNOWN              detail 1: an entitlement is published, but its periods are over
            CONCURRENCY_LIMITED  detail: how many requests may be under way
    quota/wire.py defines the numbers and the layouts.
  invariants: a hard limit is never exceeded; a refusal writes nothing; a charge and its event are one step.
  Rate limit: GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm; the hash holds the theoretical arrival
  time.

  Every request of every gateway runs this script, so there are two ways through it. `plain` admits a request with one
  meter that the allowance pays for, without an idempotency key or with a new one. It makes no closure, and joins texts
  that it was given, since Lua prints numbers slowly. All other requests, and all refusals, go through `decide`, which
  decides a plain request in the same way, in five steps: load, limit, rate, permits, commit. `bench/take.py` measures
  both ways (docs/decisions/0022). ]]

-- decide: the general way, for one request. Its arguments hold what `plain` has read already: the fields of the hash
-- and, if it came that far, counters, period and rate limit. Most calls do not need the steps, so their functions are
-- made when a request needs them. Values pass from step to step as arguments: a table of values, or shared locals,
-- would make a refusal a quarter slower.
-- `seen_start_s`, `seen_start`: the period of the request before, as number and as text, if `plain` has seen one. The
-- counters of that period are read together with the entitlement.
local function load_decide(seen_start_s, seen_start)
--@include parts/period.lua
--@include parts/sources.lua
--@include parts/entry.lua

  -- Adds the names of the meters' counters to `names`, which has n values; returns the new number of values.
  local function append_counters(names, n, start, first, last)
    for i = first, last, 2 do
      local field = start .. ':' .. ARGV[i]
      names[n + 1], names[n + 2], names[n + 3] = 'used:' .. field, 'burnt:' .. field, 'over:' .. field
      n = n + 3
    end
    return n
  end

  -- load: reads what is published, the period and its counters, for the meters ARGV[first…last].
  -- returns the refusal where the organization is not served now; or nil, period, rate limit, the fields of the hash,
  -- names and values of the counters, and the number of other values before these
  local function load(now_s, now_us, hash, first, last, published)
    --@constants HEAD REPLY UNKNOWN NOT_ENTITLED STATUS_SERVED_FIRST STATUS_SERVED_LAST
    local read_start_s, before = nil, 0
    if not published then
      -- Room for two meters: a table that grows is copied each time.
      local read, n, named = {'e', 'tat', nil, nil, nil, nil, nil, nil, nil, nil, nil, nil}, 2, nil
      for i = first, last, 2 do
        local meter = ARGV[i]
        if last > first then
          named = named or {}
          -- Both charges would start from the same counter value, and the second would overwrite the first.
          if named[meter] then error('a meter is named twice: ' .. meter, 0) end
          named[meter] = true
        end
        read[n + 1], read[n + 2] = 'm:' .. meter, 'g:' .. meter
        n = n + 2
      end
      if seen_start_s then
        read_start_s, before = seen_start_s, n
        n = append_counters(read, n, seen_start, first, last)
      end
      published = redis.call('HMGET', hash, unpack(read, 1, n))
    end
    if not published[1] then return struct.pack(REPLY, UNKNOWN, 0, now_us, 0, 0, 0) end
    local _, status, _, interval_us, burst_us, start1, end1, start2, end2 = struct.unpack(HEAD, published[1])
    if status < STATUS_SERVED_FIRST or status > STATUS_SERVED_LAST then
      return struct.pack(REPLY, NOT_ENTITLED, 0, now_us, 0, 0, status)
    end
    local start_s, end_s = period_at(now_s, start1, end1, start2, end2)
    if not start_s then return struct.pack(REPLY, UNKNOWN, 0, now_us, 0, 0, 1) end

    if start_s ~= seen_start_s then seen_start_s, seen_start = start_s, string.format('%d', start_s) end
    local names, counters = {nil, nil, nil, nil, nil, nil}, published
    local n = append_counters(names, 0, seen_start, first, last)
    if start_s ~= read_start_s then counters, before = redis.call('HMGET', hash, unpack(names, 1, n)), 0 end
    return nil, start_s, end_s, seen_start, interval_us, burst_us, published, names, counters, before
  end

  -- limit: decides where each meter's units come from, and what its counters will be.
  -- returns the refusal where the plan lacks a meter, or too little is left; or nil, the balances, the event, and the
  -- fields and values to be written, with their number
  local function limit(now_s, now_us, hash, event, first, last, start_s, end_s, published, names, counters, before,
      receipt)
    --@constants LIMIT REPLY BALANCE NOT_IN_PLAN EXHAUSTED REPLY_WITH_BALANCE COST_MAX
    local pack, balances, write, n = struct.pack, '', nil, 0
    for m = 1, (last - first) / 2 + 1 do
      local meter, cost_text = ARGV[first + 2 * m - 2], ARGV[first + 2 * m - 1]
      local cost = tonumber(cost_text)
      if not cost or cost < 0 or cost > COST_MAX or cost % 1 ~= 0 then
        error('cost must be a whole number from 0 to 10^12: ' .. cost_text, 0)
      end
      local limits, grants, c = published[1 + 2 * m], published[2 + 2 * m], 3 * m - 2
      if not limits then return pack(REPLY, NOT_IN_PLAN, m, now_us, start_s, end_s, 0) end
      if receipt then cost = 0 end
      local allowance, over_max = struct.unpack(LIMIT, limits)
      local used, burnt, over = counters[before + c], counters[before + c + 1], counters[before + c + 2]
      used, burnt, over = tonumber(used or 0), tonumber(burnt or 0), tonumber(over or 0)
      local left = allowance - (used - burnt - over)
      if cost <= left and not grants then
        balances = balances .. pack(BALANCE, allowance + burnt, left - cost, over)
        event = event .. ' ' .. meter .. ':' .. string.format('%.0f', cost)
      else
        local from = sources(hash, now_s, cost, used, burnt, over, allowance, over_max, grants)
        local whole = allowance + burnt + from.granted
        if from.short > 0 then
          local never = over_max >= 0 and cost > whole + over_max
          local remaining = from.left + from.granted
          return pack(REPLY_WITH_BALANCE, EXHAUSTED, m, now_us, start_s, end_s, never and 1 or 0, whole, remaining,
            over)
        end
        local remaining = from.left - from.allowance + from.granted - from.burnt
        write = write or {nil, nil, nil, nil, nil, nil}
        balances = balances .. pack(BALANCE, whole, remaining, over + from.over)
        event = event .. ' ' .. entry(meter, cost, from.over, from.by)
        if from.burnt > 0 then
          write[n + 1], write[n + 2], n = names[c + 1], burnt + from.burnt, n + 2
          for g = 1, #from.by, 2 do
            local grant = 'grant:' .. from.by[g]
            write[n + 1], write[n + 2], n = grant, from.by[g + 1] + (redis.call('HGET', hash, grant) or 0), n + 2
          end
        end
        if from.over > 0 then write[n + 1], write[n + 2], n = names[c + 2], over + from.over, n + 2 end
      end
      if not receipt then
        write = write or {nil, nil, nil, nil, nil, nil}
        write[n + 1], write[n + 2], n = names[c], used + cost, n + 2
      end
    end
    return nil, balances, event, write or {}, n
  end

  -- rate: computes the new theoretical arrival time, when the bucket will be full again after this request.
  -- returns the refusal where the request comes too early; or nil, and that time
  local function rate(now_us, start_s, end_s, interval_us, burst_us, arrival_us)
    --@constants RATE_LIMITED REPLY_WITH_RATE
    arrival_us = math.max(tonumber(arrival_us or 0), now_us) + interval_us
    local early_us = math.ceil(arrival_us - burst_us - now_us)
    if early_us > 0 then
      return struct.pack(REPLY_WITH_RATE, RATE_LIMITED, 0, now_us, start_s, end_s, early_us, interval_us, burst_us)
    end
    return nil, arrival_us
  end

  -- permits: checks that a permit is free, for an organization whose concurrent requests are limited by its head.
  -- returns the refusal where none is free; or nil, and the key of the permits
  local function permits(now_s, now_us, permits_key, start_s, end_s, head)
    --@constants HEAD_BYTES REPLY CONCURRENT_MAX CONCURRENCY_LIMITED
    local permits_max = struct.unpack(CONCURRENT_MAX, head, HEAD_BYTES + 1)
    if redis.call('ZCARD', permits_key) >= permits_max then
      if redis.call('ZCOUNT', permits_key, '(' .. now_s, '+inf') >= permits_max then
        return struct.pack(REPLY, CONCURRENCY_LIMITED, 0, now_us, start_s, end_s, permits_max)
      end
      redis.call('ZREMRANGEBYSCORE', permits_key, '-inf', now_s)
    end
    return nil, permits_key
  end

  -- commit: writes the event, or one more open request of the idempotency key; then the counters and the permit.
  local function commit(now_s, hash, stream, id, idempotency, attempts, receipt, event, write, n, permits_key)
    --@constants PERMIT_SECONDS IDEMPOTENCY_SECONDS
    -- Enough for some 60 concurrent requests with one key. With more of them the charge cannot be given back.
    local ATTEMPTS_BYTES_MAX = 1300
    local call = redis.call
    if not receipt then
      -- The event first: if the stream refuses it, no counter has changed.
      call('XADD', stream, '*', 'e', event)
      if idempotency then call('SET', idempotency, id .. '\n' .. event, 'EX', IDEMPOTENCY_SECONDS) end
    elseif attempts ~= '*' then
      attempts = #attempts < ATTEMPTS_BYTES_MAX and attempts .. ' ' .. id or '*'
      call('SET', idempotency, attempts .. '\n' .. receipt, 'KEEPTTL')
    end
    if n > 0 then call('HSET', hash, unpack(write, 1, n)) end
    if permits_key then call('ZADD', permits_key, now_s + PERMIT_SECONDS, id) end
  end

  return function(now_s, now_us, hash, stream, id, org, first, last, idempotency, reported, published, names, counters,
      start_s, end_s, start, interval_us, burst_us)
    --@constants HEAD_BYTES PERMITS_SUFFIX ADMITTED ADMITTED_WITH_MORE MORE_REPLAYED MORE_PERMIT REPLY
    local refused, before, attempts, receipt, balances, event, write, n, permits_key = nil, 0
    if not counters then
      refused, start_s, end_s, start, interval_us, burst_us, published, names, counters, before =
        load(now_s, now_us, hash, first, last, published)
      if refused then return refused end
    end
    -- Where a request was charged under the key before: the ids of its open requests, and the receipt.
    local charged = idempotency and redis.call('GET', idempotency)
    if charged then attempts, receipt = string.match(charged, '^([^\n]*)\n(.*)$') end

    event = 't ' .. id .. ' ' .. org .. ' ' .. start
    refused, balances, event, write, n =
      limit(now_s, now_us, hash, event, first, last, start_s, end_s, published, names, counters, before, receipt)
    if refused then return refused end

    if interval_us > 0 and not reported then
      local arrival_us
      refused, arrival_us = rate(now_us, start_s, end_s, interval_us, burst_us, published[2])
      if refused then return refused end
      write[n + 1], write[n + 2], n = 'tat', arrival_us, n + 2
    end

    if #published[1] > HEAD_BYTES and not reported then
      refused, permits_key = permits(now_s, now_us, hash .. PERMITS_SUFFIX, start_s, end_s, published[1])
      if refused then return refused end
    end

    commit(now_s, hash, stream, id, idempotency, attempts, receipt, event, write, n, permits_key)
    local more = (receipt and MORE_REPLAYED or 0) + (permits_key and MORE_PERMIT or 0)
    return struct.pack(REPLY, more > 0 and ADMITTED_WITH_MORE or ADMITTED, more, now_us, start_s, end_s, 0)
      .. balances .. (receipt or event)
  end
end

-- general: decides one request with `decide`, which is made at its first use.
-- returns the reply or the error; the positions of the next request in ARGV and in KEYS; and `decide`
local function general(decide, now_s, now_us, seen_start_s, seen_start, at, key, ...)
  --@constants MARK_KEYED MARK_REPORTED
  local n, next_key = ARGV[at + 2], key + 2
  local meters, idempotency, reported = tonumber(n), nil, nil
  if not meters and n then
    local mark = string.sub(n, 1, 1)
    if mark == MARK_KEYED or mark == MARK_REPORTED then
      meters, idempotency, reported = tonumber(string.sub(n, 2)), KEYS[next_key], mark == MARK_REPORTED
      next_key = key + 3
    end
  end
  if not meters or meters < 1 or meters % 1 ~= 0 then
    -- The position of the next request is unknown: this request and all after it get an error.
    return redis.error_reply('ERR take: not a number of meters: ' .. tostring(n)), #ARGV + 1, next_key, decide
  end
  decide = decide or load_decide(seen_start_s, seen_start)
  local last = at + 1 + 2 * meters
  local done, reply = pcall(decide, now_s, now_us, KEYS[key], KEYS[key + 1], ARGV[at], ARGV[at + 1], at + 3, last,
    idempotency, reported, ...)
  if not done then
    -- A redis.call that failed raises a table; the checks of this script raise a text.
    reply = redis.error_reply('ERR take: ' .. (type(reply) == 'table' and reply.err or tostring(reply)))
  end
  return reply, last + 2, next_key, decide
end

-- plain: admits, one after the other, the requests with one meter that the allowance pays for. It passes each other
-- request to `general`, with what it has read. What the requests of a call share is made once. Returns the replies.
local function plain(now_s, now_us)
  --@constants HEAD HEAD_BYTES LIMIT REPLY_WITH_BALANCE ADMITTED STATUS_SERVED_FIRST STATUS_SERVED_LAST COST_MAX
  --@constants MARK_KEYED_ONE_METER MARK_REPORTED_ONE_METER IDEMPOTENCY_SECONDS
  local KEYS, ARGV, call, try, unpack_struct = KEYS, ARGV, redis.call, redis.pcall, struct.unpack
  local replies, count, at, key, key_count, decide = {}, 0, 1, 1, #KEYS, nil
  -- Of the request before: its period, as number and as text; its meter, and the names of its fields. The last three of
  -- these names belong to the period `named_start_s`.
  local seen_start_s, start, seen_meter, named_start_s, limits_field, grants_field, used_field, burnt_field, over_field
  while key < key_count do
    local hash, n, meter, cost_text = KEYS[key], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local reply, idempotency, published, names, counters, start_s, end_s, interval_us, burst_us
    repeat -- a request that is not plain breaks out
      local reported = nil
      if n ~= '1' then
        if n ~= MARK_KEYED_ONE_METER and n ~= MARK_REPORTED_ONE_METER then break end
        idempotency, reported = KEYS[key + 2], n == MARK_REPORTED_ONE_METER
      end
      -- The text of the cost goes into the event unchanged, so it must be the canonical text of its number.
      local cost
      if cost_text == '1' then
        cost = 1
      elseif cost_text and (cost_text == '0' or string.find(cost_text, '^[1-9]%d*$')) then
        cost = tonumber(cost_text)
      end
      if not cost or cost > COST_MAX then break end

      if meter ~= seen_meter then
        seen_meter, named_start_s, limits_field, grants_field = meter, nil, 'm:' .. meter, 'g:' .. meter
      end
      -- The period is usually that of the request before. So its counters are read with the entitlement, and read again
      -- only if the entitlement has another period.
      local read_start_s, read = named_start_s, nil
      if read_start_s then -- an error reply is a table without [1]
        read = try('HMGET', hash, 'e', 'tat', limits_field, grants_field, used_field, burnt_field, over_field)
      else
        read = try('HMGET', hash, 'e', 'tat', limits_field, grants_field)
      end
      local head, limits = read[1], read[3]
      if not head then break end
      published = read
      if not limits or read[4] or #head ~= HEAD_BYTES then break end
      local _, status, start2, end2
      _, status, _, interval_us, burst_us, start_s, end_s, start2, end2 = unpack_struct(HEAD, head)
      if now_s >= end_s then start_s, end_s = start2, end2 end
      if now_s < start_s or now_s >= end_s or status < STATUS_SERVED_FIRST or status > STATUS_SERVED_LAST then break end

      local used, burnt, over
      if start_s == read_start_s then
        used, burnt, over = read[5], read[6], read[7]
      else
        if start_s ~= seen_start_s then seen_start_s, start = start_s, string.format('%d', start_s) end
        named_start_s = start_s
        local field = start .. ':' .. meter
        used_field, burnt_field, over_field = 'used:' .. field, 'burnt:' .. field, 'over:' .. field
        read = call('HMGET', hash, used_field, burnt_field, over_field)
        used, burnt, over = read[1], read[2], read[3]
      end
      used, burnt, over = used and tonumber(used) or 0, burnt and tonumber(burnt) or 0, over and tonumber(over) or 0
      local allowance = unpack_struct(LIMIT, limits)
      local left, arrival_us = allowance - (used - burnt - over), nil
      if interval_us > 0 and not reported then
        arrival_us = published[2] and tonumber(published[2]) or 0
        if arrival_us < now_us then arrival_us = now_us end
        arrival_us = arrival_us + interval_us
      end
      -- A key that is used already, or cannot be read (an error reply is not false either), is for `decide`.
      if cost > left or (arrival_us and arrival_us - burst_us > now_us)
        or (idempotency and try('GET', idempotency)) then
        names, counters = {used_field, burnt_field, over_field}, {used, burnt, over}
        break
      end

      local id = ARGV[at]
      local event = 't ' .. id .. ' ' .. ARGV[at + 1] .. ' ' .. start .. ' ' .. meter .. ':' .. cost_text
      -- The event first: if the stream refuses it, no counter has changed.
      local appended = try('XADD', KEYS[key + 1], '*', 'e', event)
      if type(appended) == 'table' then
        reply = redis.error_reply('ERR take: ' .. appended.err)
        break
      end
      if idempotency then call('SET', idempotency, id .. '\n' .. event, 'EX', IDEMPOTENCY_SECONDS) end
      if arrival_us then
        call('HSET', hash, used_field, used + cost, 'tat', arrival_us)
      else
        call('HSET', hash, used_field, used + cost)
      end
      reply = struct.pack(REPLY_WITH_BALANCE, ADMITTED, 0, now_us, start_s, end_s, 0, allowance + burnt, left - cost,
        over) .. event
    until true
    if reply then
      at, key = at + 5, key + (idempotency and 3 or 2)
    else
      reply, at, key, decide = general(decide, now_s, now_us, seen_start_s, start, at, key, published, names, counters,
        start_s, end_s, start, interval_us, burst_us)
    end
    count = count + 1
    replies[count] = reply
  end
  return replies
end

local time = redis.call('TIME')
local now_s = tonumber(time[1])
return plain(now_s, now_s * 1000000 + time[2])
