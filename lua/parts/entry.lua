-- entry: one meter's part of an event and of a receipt, `meter:units[:overage[:grant=units,…]]`. Zeros at the end are
-- left out, so that the common event is short.
local function entry(meter, units, over, by)
  local text = meter .. ':' .. string.format('%.0f', units)
  if over ~= 0 or #by > 0 then text = text .. ':' .. string.format('%.0f', over) end
  for i = 1, #by, 2 do
    text = text .. (i == 1 and ':' or ',') .. by[i] .. '=' .. string.format('%.0f', by[i + 1])
  end
  return text
end
