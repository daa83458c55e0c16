--[[ publish: installs an entitlement if it is newer than the installed one.

    KEYS[1] organization hash   KEYS[2] optional: the shard's generation
    ARGV[1] head: HEAD, and CONCURRENT_MAX where it is limited   ARGV[2] organization   ARGV[3] pub/sub channel
    ARGV[4] seconds until it expires, 0: never   ARGV[5] counters of periods that start before this second are dropped
    ARGV[6] number of meters, then each meter and its LIMIT
    ARGV[…] then each meter that has grants, and its list "id units expires_s …"
    ARGV[#ARGV] with KEYS[2]: the generation in which the counters were checked
  returns {INSTALLED or NOT_NEWER, the version that is installed now}, or {MEMORY_LOST, 0} where Redis has lost its
          memory since: then nothing changed
  No counter changes. Only those of periods long over, and those of grants that are no longer listed, are dropped.
  Every call is announced on the channel, so that a gateway that waits for this organization tries again. ]]
--@constants HEAD INSTALLED NOT_NEWER MEMORY_LOST
if KEYS[2] and redis.call('GET', KEYS[2]) ~= table.remove(ARGV) then return {MEMORY_LOST, 0} end
local hash = KEYS[1]
local head, org, channel, ttl_s, keep_from_s = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local version = struct.unpack(HEAD, head)
local installed = redis.call('HGET', hash, 'e')
local current = installed and struct.unpack(HEAD, installed) or -1
if version <= current then
  redis.call('PUBLISH', channel, org)
  return {NOT_NEWER, current}
end

local write, listed = {'e', head}, {}
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
local published = {}
for i = 1, #write, 2 do published[write[i]] = true end
-- Write before dropping: an entitlement too large for one HSET fails here, with the old one in place.
redis.call('HSET', hash, unpack(write))

for _, field in ipairs(redis.call('HKEYS', hash)) do
  local kind, name = string.match(field, '^(%a+):(.*)$')
  local stale = false
  if kind == 'm' or kind == 'g' then
    stale = not published[field]
  elseif kind == 'grant' then
    stale = not listed[name]
  elseif kind == 'used' or kind == 'burnt' or kind == 'over' or kind == 'refunds' then
    stale = tonumber(string.match(name, '^%d+')) < keep_from_s
  end
  if stale then redis.call('HDEL', hash, field) end
end
if ttl_s > 0 then redis.call('EXPIRE', hash, ttl_s) else redis.call('PERSIST', hash) end
redis.call('PUBLISH', channel, org)
return {INSTALLED, version}
