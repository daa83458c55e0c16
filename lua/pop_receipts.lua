--[[ pop_receipts: takes receipts from the list that gateways sent without being asked.

    KEYS[1] list of receipts   KEYS[2…] generations of all shards; on a Cluster the mark of a recovery that has asked
    ARGV[1] the most items to take   ARGV[2] the first characters of a generation that is being rebuilt, and of the mark
    ARGV[3] 1 where KEYS[2] is the mark
  returns the items; none while a shard has no generation, or is being rebuilt, or the mark is there
  During a recovery the list holds the answers for the control plane that recovers. If another one took them, units
  would be given away twice. ]]
local list, items_max, rebuilding, may_be_absent = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == '1'
for _, generation in ipairs(redis.call('MGET', unpack(KEYS, 2))) do
  if not generation then
    if not may_be_absent then return {} end
  elseif string.sub(generation, 1, #rebuilding) == rebuilding then
    return {}
  end
end
return redis.call('LPOP', list, items_max) or {}
