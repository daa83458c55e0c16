-- keep_held: changes what `publish` writes of a region, {field, value, ...}: each limit becomes what the region holds, at
-- most the new one, and the lease stays as it is.
local function keep_held(hash, write, installed)
  --@constants HEAD_LEASED_BYTES LEASE_BEGINS LIMIT LIMIT_BYTES ELSEWHERE
  local held_grants = {}
  for i = 1, #write, 2 do
    local field, value = write[i], write[i + 1]
    if field == 'e' and installed and #installed >= HEAD_LEASED_BYTES then
      write[i + 1] = string.sub(value, 1, LEASE_BEGINS) .. string.sub(installed, LEASE_BEGINS + 1, HEAD_LEASED_BYTES)
        .. string.sub(value, HEAD_LEASED_BYTES + 1)
    elseif string.sub(field, 1, 2) == 'm:' then
      local allowance, over_max = struct.unpack(LIMIT, value)
      local before = redis.call('HGET', hash, field)
      local held, held_over = 0, 0
      if before then held, held_over = struct.unpack(LIMIT, before) end
      -- Without a cap nothing is held of the overage: it is for sale in each region.
      if over_max > 0 and held_over < 0 then held_over = 0 end
      if over_max > held_over and held_over >= 0 then over_max = held_over end
      local known = before and #before > LIMIT_BYTES and before or value
      local _, more_left, more_over, free, unsold = struct.unpack(ELSEWHERE, known, LIMIT_BYTES + 1)
      held = math.min(allowance, held)
      -- Until the next lease it is not known what others have drawn of what is new.
      local more = allowance - held
      write[i + 1] = struct.pack(LIMIT, held, over_max)
        .. struct.pack(ELSEWHERE, more, math.min(more, more_left), more_over, free, unsold)
    elseif string.sub(field, 1, 2) == 'g:' then
      for id, units in string.gmatch(redis.call('HGET', hash, field) or '', '(%S+) (%d+) %d+') do held_grants[id] = units end
      write[i + 1] = string.gsub(value, '(%S+) (%d+) (%d+)', function(id, units, expires)
        return string.format('%s %.0f %s', id, math.min(units, held_grants[id] or 0), expires)
      end)
    end
  end
end
