-- Replicas that are to go. {s}:del:<server> names chunks that have left the table for good; {s}:surplus:<server> names
-- chunks that stay, of which the server's replica is one too many. The second kind may become the last replica before
-- the server hears of it: it goes only while enough others are certainly there (`request.alive`: servers that the leader
-- hears, packed; `request.keep`: how many others).

local function packed_id(replicas, at) return (struct.unpack('>I2', replicas, at)) end
local function unused_key(server) return P .. 'del:' .. server end
local function surplus_key(server) return P .. 'surplus:' .. server end

local function without(replicas, server)
  local others = ''
  for at = 1, #replicas, 2 do
    if packed_id(replicas, at) ~= server then others = others .. sub(replicas, at, at + 1) end
  end
  return others
end

local safe -- servers that live and are not to be emptied, as a set

local function find_safe()
  safe = {}
  for at = 1, #request.alive, 2 do safe[packed_id(request.alive, at)] = true end
  for _, server in ipairs(call('SMEMBERS', P .. 'draining')) do safe[tonumber(server)] = nil end
end

-- Whether the chunk keeps enough replicas without the server's.
local function is_dispensable(replicas, server)
  if not safe then find_safe() end
  local others, count = without(replicas, server), 0
  for at = 1, #others, 2 do
    if safe[packed_id(others, at)] then count = count + 1 end
  end
  return count >= request.keep
end
