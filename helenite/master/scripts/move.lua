-- prelude: script tree locks content target
-- Rename. What stood at the target goes to the trash; locks stay behind (RFC 4918 section 7.6).

return run_once(function()
  local now = now_ms()
  local source, target = resolve(request.source), resolve(request.target)
  check_condition(source, request.condition)
  must_exist(source)
  refuse_cycle(source, target)
  check_target(target)
  require_tree_tokens(source, now)
  require_parent_token(source, now)
  require_target_tokens(target, now)

  local sequence = next_sequence()
  local record = source.record
  local files, directories, bytes = weigh(record)
  call('HDEL', P .. 'd:' .. source.dir, source.name)
  drop_tree_locks(record)
  add_totals(source.ids, sequence, -files, -directories, -bytes)
  local old = target.record
  local old_files, old_directories, old_bytes = displace(target, record, sequence, now)
  put_record(target, record)
  touch_parent(source, now)
  if source.dir ~= target.dir then touch_parent(target, now) end
  add_totals(target.ids, sequence, files - old_files, directories - old_directories, bytes - old_bytes)
  announce(sequence, 'move', target, source.path, record, joined(source.ids, target.ids), old)
  return outcome(target, record, not old, sequence)
end)
