-- prelude: script tree content guard
-- Order the deletion of chunks that a chunkserver holds, if they are too old to be committed and the table still does
-- not name them. Answers how many.

return run(function()
  check_epoch()
  if not may_delete() then return {'', 0} end
  local floor, accepted, doomed = number('orphan_floor'), number('gc_accepted'), {}
  for i, replicas in ipairs(read_replicas(request.handles, false)) do
    local handle = request.handles[i]
    if not replicas and handle <= floor and (handle <= accepted or was_given_out(handle)) then
      doomed[#doomed + 1] = handle
    end
  end
  in_groups(doomed, function(...) call('SADD', P .. 'del:' .. request.server, ...) end)
  return {'', #doomed}
end)
