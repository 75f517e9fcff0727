-- prelude: script tree locks
-- Prolong a lock, or release it when `timeout_s` is 0. Its token must cover the path.

return run_once(function()
  local now = now_ms()
  local place = resolve(request.names)
  must_exist(place)
  local lock = read_lock(request.token, now)
  local is_covered = lock
    and (lock.entry_id == id_of(place.record) or (lock.is_infinite and contains(place.ids, lock.entry_id)))
  if not is_covered then fail('lock_not_found', 'no lock with this token covers ' .. place.path) end
  if lock.principal ~= request.principal then
    fail('permission_denied', 'the lock on ' .. lock.path .. ' belongs to someone else')
  end

  local sequence = tonumber(call('GET', P .. 'seq') or 0)
  if request.timeout_s == 0 then
    write_even_when_full()
    drop_lock(request.token)
    return outcome(place, place.record, false, sequence)
  end
  lock.timeout_s, lock.expires_at_ms = request.timeout_s, now + request.timeout_s * 1000
  write_lock(lock)
  return outcome(place, place.record, false, sequence, cmsgpack.pack({lock}))
end)
