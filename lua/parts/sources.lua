-- sources: where `cost` more units of one meter come from: the allowance, then the grants (listed by their
-- expiry, the earliest first), then overage.
--   used, burnt, over  the period's counters        allowance, over_max  the published limit (-1: no cap)
--   grants             published "id units expires_s …", or false
-- returns {allowance, burnt, over, short, granted, by = {grant id, its units, …}}
--   short    units that none of the three can give
--   granted  units that live grants could still give before this charge
local function sources(hash, now_s, cost, used, burnt, over, allowance, over_max, grants)
  local left = allowance - (used - burnt - over)
  if left < 0 then left = 0 end
  local from = {allowance = cost, burnt = 0, over = 0, short = 0, granted = 0, left = left, by = {}}
  if cost > left then from.allowance = left end
  local rest = cost - from.allowance
  if grants then
    for id, units, expires in string.gmatch(grants, '(%S+) (%d+) (%d+)') do
      if tonumber(expires) > now_s then
        local available = units - (redis.call('HGET', hash, 'grant:' .. id) or 0)
        if available > 0 then
          from.granted = from.granted + available
          local burn = available
          if rest < burn then burn = rest end
          if burn > 0 then
            from.burnt = from.burnt + burn
            rest = rest - burn
            from.by[#from.by + 1] = id
            from.by[#from.by + 1] = burn
          end
        end
      end
    end
  end
  if rest > 0 and over_max ~= 0 then
    from.over = rest
    if over_max > 0 and over + rest > over_max then
      from.over = over_max - over
      if from.over < 0 then from.over = 0 end
    end
    rest = rest - from.over
  end
  from.short = rest
  return from
end
