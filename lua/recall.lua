--[[ recall: what idempotency keys were charged for, and which period is open. Changes nothing.

    KEYS[1] organization hash   KEYS[2…] what each idempotency key is kept in
  returns {now s, now us of that second, the published head or nil, then for each key its receipt or nil} ]]
local time = redis.call('TIME')
local reply = {time[1], time[2], redis.call('HGET', KEYS[1], 'e')}
if #KEYS > 1 then
  -- What is no string reads as nil here, and is an error of the take that comes next.
  for i, held in ipairs(redis.call('MGET', unpack(KEYS, 2))) do
    reply[3 + i] = held and string.match(held, '^[^\n]*\n(.*)$') or false
  end
end
return reply
