-- prelude: script tree locks content
-- Rename. What stood at the target goes to the trash; locks stay behind (RFC 4918 section 7.6).

return run_once(function()
  local now = now_ms()
  local source, target = resolve(request.source), resolve(request.target)
  check_condition(source, request.condition)
  must_exist(source)
  refuse_cycle(source, target)
  parent_must_exist(target)
  check_condition(target, request.target_condition)
  local old = target.record
  if old and not request.overwrite then fail('precondition_failed', target.path .. ' exists') end
  require_tree_tokens(source, now)
  require_parent_token(source, now)
  require_parent_token(target, now)
  if old then require_tree_tokens(target, now) end

  local sequence = next_sequence()
  local record = source.record
  local files, directories, bytes = weigh(record)
  call('HDEL', P .. 'd:' .. source.dir, source.name)
  drop_tree_locks(record)
  add_totals(source.ids, sequence, -files, -directories, -bytes)
  if old then
    local f, d, b = weigh(old)
    files, directories, bytes = files - f, directories - d, bytes - b
    hand_over_locks(old, record)
    drop_tree_locks(old)
    bury(target, request.target, sequence, now)
  end
  put_record(target, record)
  touch_parent(source, now)
  if source.dir ~= target.dir then touch_parent(target, now) end
  add_totals(target.ids, sequence, files, directories, bytes)
  announce(sequence, 'move', target, source.path, record, joined(source.ids, target.ids), old)
  return outcome(target, record, not old, sequence)
end)
