-- sources: where `cost` more units of one meter come from: first the allowance, then the grants (listed by their
-- expiry, the earliest first), then overage.
--   used, burnt, over  the period's counters        allowance, over_max  the published limit (-1: no cap)
--   grants             published "id units expires_s …", or false
-- returns {allowance, burnt, over, short, granted, by = {grant id, its units, …}}
--   short    units that none of the three can pay
--   granted  units that grants which have not expired could pay before this charge
local function sources(hash, now_s, cost, used, burnt, over, allowance, over_max, grants)
  local left = allowance - (used - burnt - over)
  if left < 0 then left = 0 end
  local from = {allowance = cost, burnt = 0, over = 0, short = 0, granted = 0, left = left, by = {}}
  if cost > left then from.allowance = left end
  local unpaid = cost - from.allowance
  if grants then
    for id, units, expires in string.gmatch(grants, '(%S+) (%d+) (%d+)') do
      if tonumber(expires) > now_s then
        local available = units - (redis.call('HGET', hash, 'grant:' .. id) or 0)
        if available > 0 then
          from.granted = from.granted + available
          local burn = available
          if unpaid < burn then burn = unpaid end
          if burn > 0 then
            from.burnt = from.burnt + burn
            unpaid = unpaid - burn
            from.by[#from.by + 1] = id
            from.by[#from.by + 1] = burn
          end
        end
      end
    end
  end
  if unpaid > 0 and over_max ~= 0 then
    from.over = unpaid
    if over_max > 0 and over + unpaid > over_max then
      from.over = over_max - over
      if from.over < 0 then from.over = 0 end
    end
    unpaid = unpaid - from.over
  end
  from.short = unpaid
  return from
end
