-- own_limits: what the limits of the principal's own say of the request whose meters are ARGV[first…last].
--   text   `node [@interval_us,burst_us] [meter=window_s:units,window_s:units …]`, one node after the other
--   free   nothing is charged: a repetition        rated   rate limits apply
--   start_s, end_s   the organization's period, which is the window 0
-- returns a refusal, or nothing; {field, value, …} to write; whether units were counted; the refusal by a rate, which
--         comes after that of the organization's rate
local function own_limits(text, hash, first, last, free, rated, now_s, now_us, start_s, end_s)
  --@constants NODE_LETTERS LEVEL_FACTOR
  local write, n, counted, early, node, level = {}, 0, false, nil, nil, nil
  local at, costs = {}, {}
  for i = first, last, 2 do
    at[ARGV[i]], costs[ARGV[i]] = (i - first) / 2 + 1, free and 0 or tonumber(ARGV[i + 1])
  end
  for word in string.gmatch(text, '%S+') do
    local meter, windows = string.match(word, '^([%l%d_]+)=(.+)$')
    local interval_us, burst_us = string.match(word, '^@([^,]+),(.+)$')
    interval_us, burst_us = tonumber(interval_us), tonumber(burst_us)
    if node and interval_us and burst_us then
      local field = 'nt:' .. node
      local arrival_us = rated and tonumber(redis.call('HGET', hash, field) or 0) or 0
      if arrival_us < now_us then arrival_us = now_us end
      arrival_us = arrival_us + interval_us
      local early_us = arrival_us - burst_us - now_us
      if rated and early_us > 0 and not early then
        --@constants RATE_LIMITED REPLY_WITH_RATE
        early = struct.pack(REPLY_WITH_RATE, RATE_LIMITED, level, now_us, start_s, end_s, math.ceil(early_us),
          interval_us, burst_us)
      end
      if rated then write[n + 1], write[n + 2], n = field, arrival_us, n + 2 end
    elseif node and meter then
      local cost = costs[meter]
      if cost then
        local field = 'n:' .. node .. ':' .. meter
        local held, after = ' ' .. (redis.call('HGET', hash, field) or ''), {}
        for window, units in string.gmatch(windows, '(%d+):(%d+)') do
          local window_s, begins, ends = tonumber(window), start_s, end_s
          if window_s > 0 then
            begins = now_s - now_s % window_s
            ends = begins + window_s
          end
          units = tonumber(units)
          local start, used = string.match(held, ' ' .. window .. ':(%d+):(%d+)')
          used = tonumber(start) == begins and tonumber(used) or 0
          if cost > 0 and used + cost > units then
            --@constants EXHAUSTED REPLY_WITH_BALANCE
            local detail = level * LEVEL_FACTOR + (cost > units and 1 or 0)
            return struct.pack(REPLY_WITH_BALANCE, EXHAUSTED, at[meter], now_us, begins, ends, detail, units,
              math.max(0, units - used), 0)
          end
          after[#after + 1] = string.format('%s:%d:%.0f', window, begins, used + cost)
        end
        if not free then
          write[n + 1], write[n + 2], n, counted = field, table.concat(after, ' '), n + 2, true
        end
      end
    else
      node, level = word, string.find(NODE_LETTERS, string.match(word, '^(%l):.') or '-', 1, true)
      if not level then error('not a limit: ' .. word, 0) end
    end
  end
  return nil, write, counted, early
end
