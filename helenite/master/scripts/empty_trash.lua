-- prelude: script tree content
-- Free what is in the trash for good: the named items, or everything up to now, which is one number (the leader's
-- loop does the rest).

return run_once(function()
  write_even_when_full()
  local sequence = tonumber(call('GET', P .. 'seq') or 0)
  if #request.ids == 0 then call('SET', P .. 'trash_floor', sequence) end
  for _, id in ipairs(request.ids) do
    local item = read_trashed(id)
    if item then
      forget_trashed(id)
      discard(item.record)
    end
  end
  return {'', '', '', 0, sequence, ''}
end)
