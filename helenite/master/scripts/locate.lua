-- prelude: script tree content
-- The replicas of chunks, '' for those that are not in the table.

return run(function()
  local found = {}
  for i, handle in ipairs(request.handles) do found[i] = read_replicas(handle) or '' end
  return {'', found}
end)
