--[[ recall: reads what was charged under idempotency keys, and which period is current. Writes nothing.

    KEYS[1] organization hash   KEYS[2…] the entry of each idempotency key
  returns {now s, now us of that second, the published head or nil, the field SHADOW or nil, then for each key its
          receipt or nil} ]]
--@constants SHADOW
local hash = KEYS[1]
local time = redis.call('TIME')
local published = redis.call('HMGET', hash, 'e', SHADOW)
local reply = {time[1], time[2], published[1], published[2]}
if #KEYS > 1 then
  -- A value of another type reads as nil here; the take that follows answers with the error.
  for i, entry in ipairs(redis.call('MGET', unpack(KEYS, 2))) do
    reply[4 + i] = entry and string.match(entry, '^[^\n]*\n(.*)$') or false
  end
end
return reply
