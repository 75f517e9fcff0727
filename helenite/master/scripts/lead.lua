-- prelude: script
-- Take or renew the leader lease, or give it back when `ttl_ms` is 0. Each taking raises the epoch. Answers whether
-- the asker leads, and the epoch.

return run(function()
  local leader = call('GET', P .. 'leader')
  local epoch = tonumber(call('GET', P .. 'epoch') or 0)
  if request.ttl_ms == 0 then
    if leader == request.master then call('DEL', P .. 'leader') end
    return {'', 0, epoch}
  end
  if leader and leader ~= request.master then return {'', 0, epoch} end
  write_even_when_full()
  if not leader and call('EXISTS', P .. 'loading') == 1 then fail('unavailable', 'a dump is being loaded') end
  if not leader then epoch = call('INCR', P .. 'epoch') end
  call('SET', P .. 'leader', request.master, 'PX', request.ttl_ms)
  return {'', 1, epoch}
end)
