--[[ publish: install an entitlement, if it is newer than the one that is there.

    KEYS[1] organization hash   KEYS[2] the shard's generation, where it matters
    ARGV[1] header: HEAD, and CONCURRENT_MAX where it is limited   ARGV[2] organization   ARGV[3] pub/sub channel
    ARGV[4] seconds until it is forgotten, 0: never       ARGV[5] counters of periods before this start are dropped
    ARGV[6] number of meters, then each meter and its LIMIT
    ARGV[…] then each meter that has grants and its list "id units expires_s …"
    ARGV[#ARGV] with KEYS[2] the generation that the counters were looked after in
  returns {INSTALLED or NOT_NEWER, version now in place}, or {MEMORY_LOST, 0} where Redis has lost its memory since:
          nothing changed
  Counters are never touched, except that those of periods long over are dropped, and those of grants no longer listed.
  Every call is announced on the channel, so that a gateway that waits for this organization tries again. ]]
--@constants HEAD INSTALLED NOT_NEWER MEMORY_LOST
if KEYS[2] and redis.call('GET', KEYS[2]) ~= table.remove(ARGV) then return {MEMORY_LOST, 0} end
local hash = KEYS[1]
local header, org, channel, ttl_s, keep_from_s = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local version = struct.unpack(HEAD, header)
local installed = redis.call('HGET', hash, 'e')
local current = installed and struct.unpack(HEAD, installed) or -1
if version <= current then
  redis.call('PUBLISH', channel, org)
  return {NOT_NEWER, current}
end

local write, listed = {'e', header}, {}
local grants_from = 7 + 2 * tonumber(ARGV[6])
for i = 7, grants_from - 1, 2 do
  write[#write + 1] = 'm:' .. ARGV[i]
  write[#write + 1] = ARGV[i + 1]
end
for i = grants_from, #ARGV, 2 do
  write[#write + 1] = 'g:' .. ARGV[i]
  write[#write + 1] = ARGV[i + 1]
  for id in string.gmatch(ARGV[i + 1], '(%S+) %d+ %d+') do listed[id] = true end
end
local kept = {}
for i = 1, #write, 2 do kept[write[i]] = true end
-- Written before anything is dropped: more than one HSET can hold fails here, with the old entitlement in place.
redis.call('HSET', hash, unpack(write))

for _, field in ipairs(redis.call('HKEYS', hash)) do
  local kind, rest = string.match(field, '^(%a+):(.*)$')
  local stale = false
  if kind == 'm' or kind == 'g' then
    stale = not kept[field]
  elseif kind == 'grant' then
    stale = not listed[rest]
  elseif kind == 'used' or kind == 'burnt' or kind == 'over' or kind == 'refunds' then
    stale = tonumber(string.match(rest, '^%d+')) < keep_from_s
  end
  if stale then redis.call('HDEL', hash, field) end
end
if ttl_s > 0 then redis.call('EXPIRE', hash, ttl_s) else redis.call('PERSIST', hash) end
redis.call('PUBLISH', channel, org)
return {INSTALLED, version}
