-- prelude: script tree
-- The cluster's identity and its root, made by whoever comes first.

return run(function()
  if call('EXISTS', P .. 'loading') == 1 then
    fail('unavailable', 'a dump is being loaded into this Redis; if that was interrupted, run helenite load again')
  end
  if call('EXISTS', P .. 'cluster') == 0 then
    local now = now_ms()
    call('HSET', P .. 'cluster', 'id', request.cluster_id, 'capability_key', request.capability_key, 'created_at_ms', now)
    call('HSET', P .. 'd:0', '', new_directory(1, 0, now, now))
    call('SET', P .. 'next_id', 1)
    start_totals(1, 0)
  end
  return {'', call('HGET', P .. 'cluster', 'id'), call('HGET', P .. 'cluster', 'capability_key')}
end)
