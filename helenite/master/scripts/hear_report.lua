-- prelude: script tree content guard replicas
-- A page of what a chunkserver held when it listed it. A chunk that this metadata never gave out stops all deletions, and
-- is never given out from now on. Answers orphans that are old enough to be deleted, how many of them no person has
-- accepted, the newest life, the last handle given out, and replicas that the table lacks and that are not about to be
-- deleted: the server must look again before they are entered, since the list may be old.

local floor, accepted, last = number('orphan_floor'), number('gc_accepted'), number('next_handle')

local AHEAD_MAX = 2 ^ 40 -- 4,000 lives of this cluster leap less; what is further ahead is damaged, not newer

local function leaving_test(key)
  if call('EXISTS', key) == 0 then return function() return false end end
  return function(handle) return call('SISMEMBER', key, handle) == 1 end
end

local function sort_unknown(handle, orphans, strangers)
  if handle > accepted and not was_given_out(handle) then
    strangers[#strangers + 1] = handle
  elseif handle <= floor then
    orphans[#orphans + 1] = handle
  end
end

local function refuse_strangers(strangers)
  local highest = 0
  for _, handle in ipairs(strangers) do
    if handle <= last + AHEAD_MAX then highest = math.max(highest, handle) end
  end
  if highest > last then
    note_gap(last, highest + 1)
    call('SET', P .. 'next_handle', string.format('%.0f', highest))
  end
  stop_deleting('chunkserver ' .. request.server .. ' holds chunk ' ..
    string.format('%x', strangers[1]) .. ', which this metadata never gave out: it is older than the chunks')
end

return run(function()
  check_epoch()
  write_even_when_full()
  local orphans, strangers, unnamed, surprising = {}, {}, {}, 0
  local is_unused, is_surplus = leaving_test(unused_key(request.server)), leaving_test(surplus_key(request.server))
  for i, replicas in ipairs(read_replicas(request.handles, false)) do
    local handle = request.handles[i]
    if not is_unused(handle) and not is_surplus(handle) then
      if not replicas then
        sort_unknown(handle, orphans, strangers)
      elseif without(replicas, request.server) == replicas then
        unnamed[#unnamed + 1] = handle
      end
    end
  end
  if #strangers > 0 then refuse_strangers(strangers) end
  for _, handle in ipairs(orphans) do
    if handle > accepted then surprising = surprising + 1 end
  end
  return {'', orphans, surprising, newest_life(), last, unnamed}
end)
