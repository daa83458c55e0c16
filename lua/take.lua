--[[ take: admits requests and charges them. Every meter of a request is charged, or none.

  One call decides several requests, each on its own and in order.
    KEYS        for each request: organization hash, its shard's event stream, and its idempotency key if it has one
    ARGV        for each request: request id, path, version word, number of meters, then meter and cost of each;
                before the number MARK_KEYED where the request has an idempotency key, and so a third key;
                MARK_REPORTED the same for usage that is reported: no rate limit applies, and it needs no permit
    path        organization [/u:user] [/k:id of an API key], which goes into the event as it is
    version     empty, or the version that must be published [and the limits of the principal's own: parts/own.lua]
  returns for each request a string, or an error:
    REPLY  verdict, meter index, now us, period start s, period end s, detail
    verdict ADMITTED             then for each meter BALANCE limit, remaining, overage; then the receipt as text
            ADMITTED_WITH_MORE   the same, with bits of More in place of the meter index. REPLAYED: not charged, since
                                 another request with the key was; the receipt is that one's. PERMIT: the request
                                 holds a permit until it is released
            EXHAUSTED            meter index; BALANCE of that meter; detail 1: the cost is above the whole limit;
                                 and MORE_ELSEWHERE in a region whose home may have the units
            RATE_LIMITED         detail: whole microseconds until a request can pass; then RATE
            NOT_ENTITLED         detail: status
            NOT_IN_PLAN          meter index
            UNKNOWN              detail 1: an entitlement is published, but its periods are over, or its lease is
            CONCURRENCY_LIMITED  detail: how many requests may be under way
            STALE                detail: the version that is published
    quota/wire.py defines the numbers and the layouts.
  invariants: a hard limit is never exceeded; a refusal writes nothing; a charge and its event are one step.
  Rate limit: GCRA, https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm; the hash holds the theoretical arrival
  time.

  Every request of every gateway runs this script, so there are two ways through it. `plain` admits a request with one
  meter that the allowance pays for, without an idempotency key or with a new one. It makes no closure, and joins texts
  that it was given, since Lua prints numbers slowly. All other requests, and all refusals, go through `decide`, which
  decides a plain request in the same way. `bench/take.py` measures both ways (docs/decisions/0022, 0027). ]]

-- load_decide: makes `decide`, the general way, for one request. Most calls do not need it.
-- Each value that a closure shares with its maker costs as much as joining two texts, in every call. So constants are
-- defined where they are used, and those of refusals in their branches.
-- `seen_start_s`, `start`: the period of the request before, as number and as text, if `plain` has seen one.
local function load_decide(seen_start_s, start)
  -- What was read for the request before: the fields, the text of their period, and the position of its first meter.
  local fields, named_start, named_first = nil, nil, nil
  local sources, entry

  -- read: reads the entitlement and, for each of the meters ARGV[first…last], limit, grants and the period's counters.
  -- The names of the fields are usually those of the request before.
  local function read(hash, first, last)
    local ARGV, n, before = ARGV, 7 + (last - first) / 2 * 5, named_first
    local named = start == named_start and #fields == n
    for i = first, named and last or 0, 2 do
      if ARGV[i] ~= ARGV[before + i - first] then named = false end
    end
    if not named then
      -- Room for two meters: a table that grows is copied each time.
      local names = {'e', 'tat', nil, nil, nil, nil, nil, nil, nil, nil, nil, nil}
      n = 2
      for i = first, last, 2 do
        local meter = ARGV[i]
        for other = first, i - 2, 2 do
          -- Both charges would start from the same counter value, and the second would overwrite the first.
          if ARGV[other] == meter then error('a meter is named twice: ' .. meter, 0) end
        end
        local counter = start .. ':' .. meter
        names[n + 1], names[n + 2], names[n + 3], names[n + 4], names[n + 5] =
          'm:' .. meter, 'g:' .. meter, 'used:' .. counter, 'burnt:' .. counter, 'over:' .. counter
        n = n + 5
      end
      fields, named_start, named_first = names, start, first
    end
    return redis.call('HMGET', hash, unpack(fields, 1, n))
  end

  -- payment: makes `sources` and `entry`, for a meter that its allowance alone does not pay for.
  local function payment()
--@include parts/sources.lua
--@include parts/entry.lua
    return sources, entry
  end

  -- `found` holds what `plain` has read, in the order of `read`, if it came that far; the fields of its counters follow.
  return function(now_s, now_us, hash, stream, first, last, idempotency, reported, found, found_start, used_field,
      burnt_field, over_field)
    --@constants HEAD HEAD_BYTES LIMIT BALANCE REPLY REPLY_WITH_BALANCE COST_MAX ADMITTED ADMITTED_WITH_MORE
    --@constants MORE_REPLAYED MORE_PERMIT STATUS_SERVED_FIRST STATUS_SERVED_LAST HEAD_LEASED_BYTES
    local ARGV, call, pack, unpack_struct = ARGV, redis.call, struct.pack, struct.unpack
    -- The period is usually that of the request before, so its counters are read with the entitlement, and read again
    -- only if the entitlement has another period. The first request of a call knows none.
    local head
    if found or seen_start_s then
      found = found or read(hash, first, last)
      head = found[1]
    else
      head = call('HGET', hash, 'e')
    end
    if not head then
      --@constants UNKNOWN
      return pack(REPLY, UNKNOWN, 0, now_us, 0, 0, 0)
    end
    local version, status, _, interval_us, burst_us, start_s, end_s, start2, end2 = unpack_struct(HEAD, head)
    local word, own = ARGV[first - 2], nil
    if word ~= '' then
      local said = tonumber(word)
      if not said then
        said, own = string.match(word, '^(%d+) (.+)$')
        said = tonumber(said) or error('not a version word: ' .. word, 0)
      end
      if said ~= version then
        --@constants STALE
        return pack(REPLY, STALE, 0, now_us, 0, 0, version)
      end
    end
    if status < STATUS_SERVED_FIRST or status > STATUS_SERVED_LAST then
      --@constants NOT_ENTITLED
      return pack(REPLY, NOT_ENTITLED, 0, now_us, 0, 0, status)
    end
    if now_s < start_s or now_s >= end_s then
      start_s, end_s = start2, end2
      if now_s < start_s or now_s >= end_s then
        --@constants UNKNOWN
        return pack(REPLY, UNKNOWN, 0, now_us, 0, 0, 1)
      end
    end
    local head_bytes, asked_s = HEAD_BYTES, nil
    if #head >= HEAD_LEASED_BYTES then
      --@constants LEASE
      local lasts_s
      asked_s, lasts_s = unpack_struct(LEASE, head, HEAD_BYTES + 1)
      if now_s < asked_s or now_s >= asked_s + lasts_s then
        --@constants UNKNOWN
        return pack(REPLY, UNKNOWN, 0, now_us, 0, 0, 1)
      end
      head_bytes = HEAD_LEASED_BYTES
    end
    if not found_start and start_s ~= seen_start_s then
      seen_start_s, start = start_s, string.format('%d', start_s)
      found = read(hash, first, last)
    end
    local names = found_start and {'e', 'tat', false, false, used_field, burnt_field, over_field} or fields

    -- Where a request was charged under the key before: the ids of its open requests, and the receipt.
    local charged, attempts, receipt = idempotency and call('GET', idempotency), nil, nil
    if charged then attempts, receipt = string.match(charged, '^([^\n]*)\n(.*)$') end

    -- Where each meter's units come from, and what its counters will be.
    local charges, balances, write, n, at = '', '', own and {} or nil, 0, 2
    local whole, remaining, sold, used_after
    for i = first, last, 2 do
      local cost_text = ARGV[i + 1]
      local cost = cost_text == '1' and 1 or tonumber(cost_text)
      if not cost or cost < 0 or cost > COST_MAX or cost % 1 ~= 0 then
        error('cost must be a whole number from 0 to 10^12: ' .. tostring(cost_text), 0)
      end
      local limits, grants, used, burnt, over =
        found[at + 1], found[at + 2], found[at + 3], found[at + 4], found[at + 5]
      if not limits then
        --@constants NOT_IN_PLAN
        return pack(REPLY, NOT_IN_PLAN, (at + 3) / 5, now_us, start_s, end_s, 0)
      end
      if receipt then cost = 0 end
      local allowance, over_max = unpack_struct(LIMIT, limits)
      used, burnt, sold = used and tonumber(used) or 0, burnt and tonumber(burnt) or 0, over and tonumber(over) or 0
      local left = allowance - (used - burnt - sold)
      if cost <= left and not grants then
        whole, remaining = allowance + burnt, left - cost
        -- The text of the cost goes into the event unchanged if it is the canonical text of its number.
        if cost_text ~= '1' and not string.find(cost_text, '^[1-9]%d*$') then cost_text = string.format('%.0f', cost) end
        charges = charges .. ' ' .. ARGV[i] .. ':' .. cost_text
      else
        if not sources then sources, entry = payment() end
        local from = sources(hash, now_s, cost, used, burnt, sold, allowance, over_max, grants)
        whole = allowance + burnt + from.granted
        local asks = false
        if asked_s and from.over > 0 then
          --@constants LIMIT_BYTES ELSEWHERE OVERAGE_ASKS_SECONDS
          local _, _, _, _, free = unpack_struct(ELSEWHERE, limits, LIMIT_BYTES + 1)
          asks = free > 0 and now_s < asked_s + OVERAGE_ASKS_SECONDS
        end
        if from.short > 0 or asks then
          --@constants EXHAUSTED
          local left, detail = from.left + from.granted, 0
          if asked_s then
            --@constants LIMIT_BYTES ELSEWHERE MORE_ELSEWHERE ANSWER_SECONDS
            local more, more_left, more_over, free = unpack_struct(ELSEWHERE, limits, LIMIT_BYTES + 1)
            whole, left, over_max = whole + more, left + more_left, over_max + more_over
            if asks or from.short <= free or now_s >= asked_s + ANSWER_SECONDS then detail = MORE_ELSEWHERE end
          end
          if over_max >= 0 and cost > whole + over_max then detail = detail + 1 end
          return pack(REPLY_WITH_BALANCE, EXHAUSTED, (at + 3) / 5, now_us, start_s, end_s, detail, whole, left, sold)
        end
        remaining = from.left - from.allowance + from.granted - from.burnt
        charges = charges .. ' ' .. entry(ARGV[i], cost, from.over, from.by)
        write = write or {nil, nil, nil, nil, nil, nil, nil, nil}
        if from.burnt > 0 then
          write[n + 1], write[n + 2], n = names[at + 4], burnt + from.burnt, n + 2
          for g = 1, #from.by, 2 do
            local grant = 'grant:' .. from.by[g]
            write[n + 1], write[n + 2], n = grant, from.by[g + 1] + (call('HGET', hash, grant) or 0), n + 2
          end
        end
        if from.over > 0 then
          sold = sold + from.over
          write[n + 1], write[n + 2], n = names[at + 5], sold, n + 2
        end
      end
      if asked_s then
        --@constants LIMIT_BYTES ELSEWHERE
        local more, more_left = unpack_struct(ELSEWHERE, limits, LIMIT_BYTES + 1)
        whole, remaining = whole + more, remaining + more_left
      end
      used_after = used + cost
      if first < last then
        balances = balances .. pack(BALANCE, whole, remaining, sold)
        write = write or {nil, nil, nil, nil, nil, nil}
      end
      if write and not receipt then write[n + 1], write[n + 2], n = names[at + 3], used_after, n + 2 end
      at = at + 5
    end

    local refusal, own_write, own_counted, own_early
    if own then
--@include parts/own.lua
      refusal, own_write, own_counted, own_early =
        own_limits(own, hash, first, last, receipt, not reported, now_s, now_us, start_s, end_s)
      if refusal then return refusal end
    end

    -- The new theoretical arrival time, when the bucket will be full again after this request.
    local arrival_us
    if interval_us > 0 and not reported then
      arrival_us = found[2] and tonumber(found[2]) or 0
      if arrival_us < now_us then arrival_us = now_us end
      arrival_us = arrival_us + interval_us
      local early_us = arrival_us - burst_us - now_us
      if early_us > 0 then
        --@constants RATE_LIMITED REPLY_WITH_RATE
        return pack(REPLY_WITH_RATE, RATE_LIMITED, 0, now_us, start_s, end_s, math.ceil(early_us), interval_us, burst_us)
      end
    end

    if own_early then return own_early end

    local permits, more = nil, receipt and MORE_REPLAYED or 0
    if #head > head_bytes and not reported then
      --@constants PERMITS_SUFFIX CONCURRENT_MAX
      permits, more = hash .. PERMITS_SUFFIX, more + MORE_PERMIT
      local permits_max = unpack_struct(CONCURRENT_MAX, head, head_bytes + 1)
      if call('ZCARD', permits) >= permits_max then
        if call('ZCOUNT', permits, '(' .. now_s, '+inf') >= permits_max then
          --@constants CONCURRENCY_LIMITED
          return pack(REPLY, CONCURRENCY_LIMITED, 0, now_us, start_s, end_s, permits_max)
        end
        call('ZREMRANGEBYSCORE', permits, '-inf', now_s)
      end
    end

    -- The last check has passed: from here on, the script writes.
    local id = ARGV[first - 4]
    if not receipt then
      -- The event first: if the stream refuses it, no counter has changed.
      local begins = found_start or start
      if own_counted then begins = begins .. '@' .. string.format('%d', now_s) end
      local event = 't ' .. id .. ' ' .. ARGV[first - 3] .. ' ' .. begins .. charges
      call('XADD', stream, '*', 'e', event)
      if idempotency then
        --@constants IDEMPOTENCY_SECONDS
        call('SET', idempotency, id .. '\n' .. event, 'EX', IDEMPOTENCY_SECONDS)
      end
      charged = event
    else
      charged = receipt
      -- Enough for some 60 concurrent requests with one key. With more of them the charge cannot be given back.
      local ATTEMPTS_BYTES_MAX = 1300
      if attempts ~= '*' then
        attempts = #attempts < ATTEMPTS_BYTES_MAX and attempts .. ' ' .. id or '*'
        call('SET', idempotency, attempts .. '\n' .. receipt, 'KEEPTTL')
      end
    end
    for i = 1, own and #own_write or 0 do write[n + 1], n = own_write[i], n + 1 end
    if write or receipt then
      write = write or {nil, nil}
      if arrival_us then write[n + 1], write[n + 2], n = 'tat', arrival_us, n + 2 end
      if n > 0 then call('HSET', hash, unpack(write, 1, n)) end
    elseif arrival_us then
      call('HSET', hash, names[5], used_after, 'tat', arrival_us)
    else
      call('HSET', hash, names[5], used_after)
    end
    if permits then
      --@constants PERMIT_SECONDS
      call('ZADD', permits, now_s + PERMIT_SECONDS, id)
    end

    local verdict = more > 0 and ADMITTED_WITH_MORE or ADMITTED
    if first == last then
      return pack(REPLY_WITH_BALANCE, verdict, more, now_us, start_s, end_s, 0, whole, remaining, sold) .. charged
    end
    return pack(REPLY, verdict, more, now_us, start_s, end_s, 0) .. balances .. charged
  end
end

-- general: decides one request with `decide`.
-- returns the reply or the error, and the positions of the next request in ARGV and in KEYS
local function general(decide, now_s, now_us, at, key, ...)
  --@constants MARK_KEYED MARK_REPORTED
  local n, next_key = ARGV[at + 3], key + 2
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
    return redis.error_reply('ERR take: not a number of meters: ' .. tostring(n)), #ARGV + 1, next_key
  end
  local last = at + 2 + 2 * meters
  local done, reply = pcall(decide, now_s, now_us, KEYS[key], KEYS[key + 1], at + 4, last, idempotency, reported, ...)
  if not done then
    -- A redis.call that failed raises a table; the checks of this script raise a text.
    reply = redis.error_reply('ERR take: ' .. (type(reply) == 'table' and reply.err or tostring(reply)))
  end
  return reply, last + 2, next_key
end

-- plain: admits, one after the other, the requests with one meter that the allowance pays for. It passes each other
-- request to `general`, with what it has read. What the requests of a call share is made once. It is no function: that
-- would be one more to make in each call.
--@constants HEAD HEAD_BYTES LIMIT REPLY_WITH_BALANCE ADMITTED STATUS_SERVED_FIRST STATUS_SERVED_LAST COST_MAX
--@constants MARK_KEYED_ONE_METER MARK_REPORTED_ONE_METER IDEMPOTENCY_SECONDS
local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now_us = now_s * 1000000 + time[2]
local KEYS, ARGV, try, unpack_struct, pack_struct = KEYS, ARGV, redis.pcall, struct.unpack, struct.pack
local replies, count, at, key, key_count, decide = {nil}, 0, 1, 1, #KEYS, nil
-- Of the request before: its period, as number and as text. Of the one before that was plain: its meter and its
-- period, and the names of their fields.
local seen_start_s, start, named_meter, named_start_s, limits_field, grants_field, used_field, burnt_field, over_field
while key < key_count do
  local hash, word, n, meter, cost_text = KEYS[key], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local reply, idempotency, found, found_start
  repeat -- a request that is not plain breaks out
    local reported = nil
    if n ~= '1' then
      if n ~= MARK_KEYED_ONE_METER and n ~= MARK_REPORTED_ONE_METER then break end
      idempotency, reported = KEYS[key + 2], n == MARK_REPORTED_ONE_METER
    end
    -- The text of the cost goes into the event unchanged, so it must be the canonical text of its number.
    local cost = 1
    if cost_text ~= '1' then
      if not cost_text or cost_text ~= '0' and not string.find(cost_text, '^[1-9]%d*$') then break end
      cost = tonumber(cost_text)
      if cost > COST_MAX then break end
    end

    -- The period is usually that of the request before, so its counters are read with the entitlement. The first
    -- request of a call knows none, and reads the entitlement's head alone. An error reply is a table without [1].
    local head
    if meter == named_meter then
      found = try('HMGET', hash, 'e', 'tat', limits_field, grants_field, used_field, burnt_field, over_field)
      head = found[1]
    else
      head = try('HGET', hash, 'e')
    end
    if not head or #head < HEAD_BYTES then break end
    local version, status, _, interval_us, burst_us, start_s, end_s, start2, end2 = unpack_struct(HEAD, head)
    if now_s >= end_s then start_s, end_s = start2, end2 end
    if now_s < start_s or now_s >= end_s or status < STATUS_SERVED_FIRST or status > STATUS_SERVED_LAST then break end
    if meter ~= named_meter or start_s ~= named_start_s then
      if start_s ~= seen_start_s then seen_start_s, start = start_s, string.format('%d', start_s) end
      local counter = start .. ':' .. meter
      limits_field, grants_field, used_field, burnt_field, over_field =
        'm:' .. meter, 'g:' .. meter, 'used:' .. counter, 'burnt:' .. counter, 'over:' .. counter
      named_meter, named_start_s = meter, start_s
      found = try('HMGET', hash, 'e', 'tat', limits_field, grants_field, used_field, burnt_field, over_field)
    end
    found_start = start
    -- A word with limits is no number, and so never equal.
    if word ~= '' and tonumber(word) ~= version then break end

    local limits, used, burnt, over = found[3], found[5], found[6], found[7]
    if not limits or found[4] then break end
    used, burnt, over = used and tonumber(used) or 0, burnt and tonumber(burnt) or 0, over and tonumber(over) or 0
    local allowance = unpack_struct(LIMIT, limits)
    local left, arrival_us = allowance - (used - burnt - over), nil
    if cost > left then break end
    if #head ~= HEAD_BYTES then
      --@constants HEAD_LEASED_BYTES LEASE LIMIT_BYTES ELSEWHERE
      if #head ~= HEAD_LEASED_BYTES then break end
      local asked_s, lasts_s = unpack_struct(LEASE, head, HEAD_BYTES + 1)
      if now_s < asked_s or now_s >= asked_s + lasts_s then break end
      -- From here on they are only told.
      local more, more_left = unpack_struct(ELSEWHERE, limits, LIMIT_BYTES + 1)
      allowance, left = allowance + more, left + more_left
    end
    if interval_us > 0 and not reported then
      arrival_us = found[2] and tonumber(found[2]) or 0
      if arrival_us < now_us then arrival_us = now_us end
      arrival_us = arrival_us + interval_us
      if arrival_us - burst_us > now_us then break end
    end
    -- A key that is used already, or cannot be read (an error reply is not false either), is for `decide`.
    if idempotency and try('GET', idempotency) then break end

    local id = ARGV[at]
    local event = 't ' .. id .. ' ' .. ARGV[at + 1] .. ' ' .. start .. ' ' .. meter .. ':' .. cost_text
    -- The event first: if the stream refuses it, no counter has changed.
    local appended = try('XADD', KEYS[key + 1], '*', 'e', event)
    if type(appended) == 'table' then
      reply = redis.error_reply('ERR take: ' .. appended.err)
      break
    end
    local call = redis.call
    if idempotency then call('SET', idempotency, id .. '\n' .. event, 'EX', IDEMPOTENCY_SECONDS) end
    if arrival_us then
      call('HSET', hash, used_field, used + cost, 'tat', arrival_us)
    else
      call('HSET', hash, used_field, used + cost)
    end
    reply = pack_struct(REPLY_WITH_BALANCE, ADMITTED, 0, now_us, start_s, end_s, 0, allowance + burnt, left - cost,
      over) .. event
  until true
  if reply then
    at, key = at + 6, key + (idempotency and 3 or 2)
  else
    decide = decide or load_decide(seen_start_s, start)
    if found_start then
      reply, at, key = general(decide, now_s, now_us, at, key, found, start, used_field, burnt_field, over_field)
    else
      reply, at, key = general(decide, now_s, now_us, at, key)
    end
  end
  count = count + 1
  replies[count] = reply
end
return replies
