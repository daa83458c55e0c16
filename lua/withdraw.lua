--[[ withdraw: removes a request from the open requests of its idempotency key, since the reply to its take was lost.
  The request itself was not charged. If it is the last open one, the charge of another request is left for nobody.

    KEYS[1] entry of the idempotency key   ARGV[1] request id
  returns the receipt that `settle` must give back, where this request is the last open one of its key; nil otherwise ]]
local idempotency_key, id = KEYS[1], ARGV[1]
local open, receipt = string.match(redis.call('GET', idempotency_key) or '', '^([^\n]*)\n(.*)$')
if open == id then return receipt end
local others, is_open = {}, false
for other in string.gmatch(open or '', '%S+') do
  if other == id then is_open = true else others[#others + 1] = other end
end
if is_open then redis.call('SET', idempotency_key, table.concat(others, ' ') .. '\n' .. receipt, 'KEEPTTL') end
return false
