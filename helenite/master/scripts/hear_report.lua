-- prelude: script tree content guard
-- A page of what a chunkserver holds. Replicas that the table does not name are added to it, unless they are about to
-- be deleted. A chunk that this metadata never gave out stops all deletions, and is never given out from now on.
-- Answers orphans that are old enough to be deleted, how many of them no person has accepted, the newest life, and the
-- last handle given out.

local floor, accepted, last = number('orphan_floor'), number('gc_accepted'), number('next_handle')
local deleting = P .. 'del:' .. struct.unpack('>I2', request.server)

local function add_replica(handle, replicas)
  for at = 1, #replicas, 2 do
    if sub(replicas, at, at + 1) == request.server then return end
  end
  call('HSET', bucket_key(bucket_of(handle)), handle % BUCKET_CHUNKS, replicas .. request.server)
end

local function sort_unknown(handle, orphans, strangers)
  if handle > accepted and not was_given_out(handle) then
    strangers[#strangers + 1] = handle
  elseif handle <= floor then
    orphans[#orphans + 1] = handle
  end
end

local function refuse_strangers(strangers)
  local highest = math.max(unpack(strangers))
  if highest > last then
    note_gap(last, highest + 1)
    call('SET', P .. 'next_handle', string.format('%.0f', highest))
  end
  stop_deleting('chunkserver ' .. struct.unpack('>I2', request.server) .. ' holds chunk ' ..
    string.format('%x', strangers[1]) .. ', which this metadata never gave out: it is older than the chunks')
end

return run(function()
  check_epoch()
  write_even_when_full()
  local orphans, strangers, surprising = {}, {}, 0
  local has_deletions = call('EXISTS', deleting) == 1
  for i, replicas in ipairs(read_replicas(request.handles, false)) do
    local handle = request.handles[i]
    local is_leaving = has_deletions and call('SISMEMBER', deleting, handle) == 1
    if replicas and not is_leaving then add_replica(handle, replicas) end
    if not replicas and not is_leaving then sort_unknown(handle, orphans, strangers) end
  end
  if #strangers > 0 then refuse_strangers(strangers) end
  for _, handle in ipairs(orphans) do
    if handle > accepted then surprising = surprising + 1 end
  end
  return {'', orphans, surprising, newest_life(), last}
end)
