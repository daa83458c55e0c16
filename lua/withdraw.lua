--[[ withdraw: a request with an idempotency key, of which nobody knows whether it was admitted, is none of its key's
  open requests. Its own charge is not there; that of another one may now be there for nobody.

    KEYS[1] what the idempotency key is kept in   ARGV[1] request id
  returns the receipt that `settle` must give back for this request, as the last of its key; nothing otherwise ]]
local open, receipt = string.match(redis.call('GET', KEYS[1]) or '', '^([^\n]*)\n(.*)$')
if open == ARGV[1] then return receipt end
local others, found = {}, false
for other in string.gmatch(open or '', '%S+') do
  if other == ARGV[1] then found = true else others[#others + 1] = other end
end
if found then redis.call('SET', KEYS[1], table.concat(others, ' ') .. '\n' .. receipt, 'KEEPTTL') end
return false
