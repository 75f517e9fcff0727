-- prelude: script tree content guard replicas
-- Chunks that a chunkserver should delete; they are named again until it confirms. And chunks whose deletion is called
-- off, since the table has too few others by now (or has the chunk back): the server should look whether it still has
-- them. That never contradicts an order on its way: a server that deletes a chunk answers nothing else about it.

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

return run(function()
  check_epoch()
  local doomed, called_off = take(unused_key(request.server), function(replicas) return not replicas end)
  local surplus, needed = take(surplus_key(request.server), function(replicas)
    return not replicas or is_dispensable(replicas, request.server)
  end)
  append(doomed, surplus)
  append(called_off, needed)
  return {'', may_delete() and doomed or {}, called_off}
end)
