--[[ pop_receipts: take what gateways told by themselves.

    KEYS[1] list   KEYS[2…] generations of all shards   ARGV[1] items at most   ARGV[2] how the mark of a recovery begins
  returns the items; none while Redis is put together, or is to be
  Then the list holds the answers to a recovery's question. They are for whoever asked it, or units are given away twice. ]]
local list, at_most, rebuilding = KEYS[1], ARGV[1], ARGV[2]
for _, held in ipairs(redis.call('MGET', unpack(KEYS, 2))) do
  if not held or string.sub(held, 1, #rebuilding) == rebuilding then return {} end
end
return redis.call('LPOP', list, at_most) or {}
