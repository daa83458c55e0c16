--[[ peek: everything Redis holds of one organization, with the time it was read. Writes nothing.

    KEYS[1] organization hash
  returns {seconds, microseconds, field, value, …}; no fields where the organization is unknown ]]
local time, fields = redis.call('TIME'), redis.call('HGETALL', KEYS[1])
local reply = {time[1], time[2]}
for i = 1, #fields do reply[i + 2] = fields[i] end
return reply
