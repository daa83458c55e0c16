-- The last key is the shard's generation, the last argument what it was when this connection was vouched for. Another one
-- means that other servers were in front since, or that Redis was put together anew: nothing is charged.
if (redis.call('GET', table.remove(KEYS)) or '') ~= table.remove(ARGV) then
  return redis.error_reply('NOTVOUCHED the generation of the shard is another one')
end
