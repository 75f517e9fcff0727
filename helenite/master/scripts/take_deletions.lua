-- prelude: script tree content guard replicas
-- Chunks that a chunkserver should delete; they are named again until it confirms. And chunks whose deletion is called
-- off, since the table has too few others by now (or has the chunk back): the server should look whether it still has
-- them. That never contradicts an order on its way: a server that deletes a chunk answers nothing else about it.
--
-- Under Sentinel the request names the Redis that the sentinels take for the master, by its run id (master/fence.py):
-- another one, deposed perhaps, hands out nothing. Answers, too, whether this is the one, and whether replicas can be
-- asked for what they know.

local function take(key, is_right)
  local handles = call('SRANDMEMBER', key, request.limit)
  local doomed, called_off = {}, {}
  for i, replicas in ipairs(read_replicas(handles, false)) do
    local list = is_right(replicas) and doomed or called_off
    list[#list + 1] = handles[i]
  end
  if #called_off > 0 then
    write_even_when_full()
    in_groups(called_off, function(...) call('SREM', key, ...) end)
  end
  return doomed, called_off
end

local function append(list, more)
  for _, each in ipairs(more) do list[#list + 1] = each end
end

local function is_named() return not request.redis or request.redis == own_run_id() end

-- A write, so that WAIT on this connection tells whether replicas know all that is known here. A Redis that refuses
-- writes (deposed, or by min-replicas-to-write) can have no witness; that is no error of the request.
local function mark()
  redis.pcall('DEL', P .. 'none') -- as write_even_when_full does, but without raising
  return redis.pcall('SET', P .. 'epoch', string.format('%.0f', request.epoch)).err == nil
end

return run(function()
  check_epoch()
  local doomed, called_off = take(unused_key(request.server), function(replicas) return not replicas end)
  local surplus, needed = take(surplus_key(request.server), function(replicas)
    return not replicas or is_dispensable(replicas, request.server)
  end)
  append(doomed, surplus)
  append(called_off, needed)
  local is_right = is_named()
  if not is_right or not may_delete() then doomed = {} end
  local is_marked = not request.redis or #doomed == 0 or mark()
  return {'', doomed, called_off, is_right and 1 or 0, is_marked and 1 or 0}
end)
