--[[ publish: installs an entitlement, and what has changed of the organization's access, if it is newer than the
  installed one.

    KEYS[1] organization hash   KEYS[2] its access hash   KEYS[3] a hash that becomes the access hash if it exists, for
            organizations of so many keys that one call would take too long   KEYS[4] optional: the shard's generation
    ARGV[1] head: HEAD, LEASE in a region, and CONCURRENT_MAX where it is limited   ARGV[2] organization   ARGV[3] pub/sub channel
    ARGV[4] seconds until it expires, 0: never   ARGV[5] counters of periods that start before this second are dropped
    ARGV[6] number of meters   ARGV[7] number of meters that have grants
    ARGV[8] empty: access stays as it is; the version that the changes of access begin at; -1: they are all of it; -2: all
            of it is in KEYS[3]
    ARGV[9…11] numbers of access fields to write, of those to drop, and of nodes that are gone
    ARGV[12] SHADOW where nothing of the organization is refused, else empty
    ARGV[13…] each meter and its LIMIT; each meter that has grants and its list "id units expires_s …";
              access fields and their values; access fields to drop; nodes
    ARGV[#ARGV] with KEYS[4]: the generation in which the counters were checked
  returns {INSTALLED or NOT_NEWER, the version that is installed now}
          {MEMORY_LOST, 0} where Redis has lost its memory since: then nothing changed
          {BEHIND, the version that is installed now} where that is older than the changes of access: nothing changed
  No counter changes. Only those of periods and windows that are over, and those of grants and nodes that are no longer
  listed, are dropped. An older call never writes access: it would put back a key that was revoked since.
  In a region a limit is what the region holds: it stays, unless the new limit of the organization is lower; and so do
  the lease and its periods. What is new is not held yet, until `lease` comes.
  Every call is announced on the channel, so that a gateway that waits for this organization tries again. ]]
--@constants HEAD HEAD_LEASED_BYTES INSTALLED NOT_NEWER MEMORY_LOST BEHIND SHADOW
if KEYS[4] and redis.call('GET', KEYS[4]) ~= table.remove(ARGV) then return {MEMORY_LOST, 0} end
local WRITTEN_AT_ONCE = 4000 -- Lua passes at most some 8000 arguments
local hash, access = KEYS[1], KEYS[2]
local head, org, channel, ttl_s, keep_from_s = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local since = tonumber(ARGV[8])
local version, _, _, _, _, start1, end1, start2, end2 = struct.unpack(HEAD, head)
local installed = redis.call('HGET', hash, 'e')
local current = installed and struct.unpack(HEAD, installed) or -1
if version <= current then
  redis.call('PUBLISH', channel, org)
  return {NOT_NEWER, current}
end
if since and current < since then return {BEHIND, current} end

local grants_from = 13 + 2 * tonumber(ARGV[6])
local access_from = grants_from + 2 * tonumber(ARGV[7])
local drops_from = access_from + 2 * tonumber(ARGV[9])
local nodes_from = drops_from + tonumber(ARGV[10])
local write, listed, gone = {'e', head}, {}, {}
if ARGV[12] == SHADOW then
  write[#write + 1] = SHADOW
  write[#write + 1] = '1'
end
for i = 13, grants_from - 1, 2 do
  write[#write + 1] = 'm:' .. ARGV[i]
  write[#write + 1] = ARGV[i + 1]
end
for i = grants_from, access_from - 1, 2 do
  write[#write + 1] = 'g:' .. ARGV[i]
  write[#write + 1] = ARGV[i + 1]
  for id in string.gmatch(ARGV[i + 1], '(%S+) %d+ %d+') do listed[id] = true end
end
for i = nodes_from, nodes_from + ARGV[11] - 1 do gone[ARGV[i]] = true end
if #head >= HEAD_LEASED_BYTES then
--@include parts/held.lua
  keep_held(hash, write, installed)
end
local published = {}
for i = 1, #write, 2 do published[write[i]] = true end

-- Access before the head: whoever reads the new version reads the new access. And write before dropping: what is too
-- large for Redis fails here, with the old version in place.
if #write > 2 * WRITTEN_AT_ONCE - 200 then return redis.error_reply('ERR publish: too many meters and grants') end
for i = access_from, drops_from - 1, WRITTEN_AT_ONCE do
  redis.call('HSET', access, unpack(ARGV, i, math.min(i + WRITTEN_AT_ONCE, drops_from) - 1))
end
if since == -2 then
  redis.call('RENAME', KEYS[3], access)
  redis.call('PERSIST', access)
end
redis.call('HSET', hash, unpack(write))
if ARGV[12] ~= SHADOW then redis.call('HDEL', hash, SHADOW) end
for i = drops_from, nodes_from - 1 do redis.call('HDEL', access, ARGV[i]) end
if since == -1 then
  local written = {}
  for i = access_from, drops_from - 1, 2 do written[ARGV[i]] = true end
  for _, field in ipairs(redis.call('HKEYS', access)) do
    if not written[field] then redis.call('HDEL', access, field) end
  end
end

-- is_over: whether no window of a node's counter is current, "window_s:start_s:units …".
local time = redis.call('TIME')
local now_s = tonumber(time[1])
local period_s = now_s >= start1 and now_s < end1 and start1 or now_s >= start2 and now_s < end2 and start2 or nil
local function is_over(counter)
  for window_s, start_s in string.gmatch(counter, '(%d+):(%d+):%d+') do
    window_s, start_s = tonumber(window_s), tonumber(start_s)
    if window_s > 0 and now_s < start_s + window_s then return false end
    if window_s == 0 and (not period_s or start_s >= period_s) then return false end
  end
  return true
end
-- is_full: whether a bucket is full again, so that it need not be kept.
local function is_full(arrival_us) return tonumber(arrival_us) < now_s * 1000000 end
local own = {}
for _, field in ipairs(redis.call('HKEYS', hash)) do
  local kind, name = string.match(field, '^(%a+):(.*)$')
  local stale = false
  if kind == 'm' or kind == 'g' then
    stale = not published[field]
  elseif kind == 'grant' then
    stale = not listed[name]
  elseif kind == 'used' or kind == 'burnt' or kind == 'over' or kind == 'refunds' then
    stale = tonumber(string.match(name, '^%d+')) < keep_from_s
  elseif kind == 'n' or kind == 'nt' then
    stale = gone[kind == 'nt' and name or string.match(name, '^(.*):')]
    if not stale then own[#own + 1] = field end
  end
  if stale then redis.call('HDEL', hash, field) end
end
for first = 1, #own, WRITTEN_AT_ONCE do
  local last = math.min(first + WRITTEN_AT_ONCE - 1, #own)
  for i, value in ipairs(redis.call('HMGET', hash, unpack(own, first, last))) do
    local field = own[first + i - 1]
    local over = is_over
    if string.sub(field, 1, 3) == 'nt:' then over = is_full end
    if over(value) then redis.call('HDEL', hash, field) end
  end
end
if ttl_s > 0 then redis.call('EXPIRE', hash, ttl_s) else redis.call('PERSIST', hash) end
redis.call('PUBLISH', channel, org)
return {INSTALLED, version}
