--[[ pop_receipts: takes receipts from the list that gateways sent without being asked.

    KEYS[1] list of receipts   KEYS[2…] generations of all shards
    ARGV[1] the most items to take   ARGV[2] the first characters of a generation that is being rebuilt
  returns the items; none while a shard has no generation, or is being rebuilt
  During a recovery the list holds the answers for the control plane that recovers. If another one took them, units
  would be given away twice. ]]
local list, items_max, rebuilding = KEYS[1], ARGV[1], ARGV[2]
for _, generation in ipairs(redis.call('MGET', unpack(KEYS, 2))) do
  if not generation or string.sub(generation, 1, #rebuilding) == rebuilding then return {} end
end
return redis.call('LPOP', list, items_max) or {}
