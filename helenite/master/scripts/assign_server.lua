-- prelude: script
-- The id of a chunkserver: the one that it shows, if it is its own or nobody's (the table was restored from a backup),
-- else the one it got before, else a new one.

local SERVERS_MAX = 65535 -- an id has 16 bits

local function find_id()
  local servers = call('HGETALL', P .. 'servers')
  local shown = request.id
  for i = 1, #servers, 2 do
    local id, uuid = tonumber(servers[i]), cmsgpack.unpack(servers[i + 1]).uuid
    if uuid == request.server.uuid then return id end
    if id == shown then fail('foreign_cluster', 'chunkserver ' .. id .. ' has another identity; clear the data directory') end
  end
  if shown > 0 then return shown end
  local id = tonumber(call('GET', P .. 'last_server') or 0) + 1
  if id > SERVERS_MAX then fail('quota_exceeded', 'all ' .. SERVERS_MAX .. ' ids of chunkservers are used') end
  return id
end

return run(function()
  local id = find_id()
  if id > tonumber(call('GET', P .. 'last_server') or 0) then call('SET', P .. 'last_server', id) end
  call('HSET', P .. 'servers', id, cmsgpack.pack(request.server))
  return {'', id}
end)
