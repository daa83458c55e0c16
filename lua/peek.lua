--[[ peek: reads everything that Redis holds of one organization, and the time. Writes nothing.

    KEYS[1] organization hash
  returns {seconds, microseconds, field, value, …}; no fields where the organization is unknown ]]
local hash = KEYS[1]
local time, fields = redis.call('TIME'), redis.call('HGETALL', hash)
local reply = {time[1], time[2]}
for i = 1, #fields do reply[i + 2] = fields[i] end
return reply
