-- The target of a move or copy: what must hold there, and what becomes of what stood there.

local function check_target(target)
  parent_must_exist(target)
  check_condition(target, request.target_condition)
  if target.record and not request.overwrite then fail('precondition_failed', target.path .. ' exists') end
end

local function require_target_tokens(target, now)
  require_parent_token(target, now)
  if target.record then require_tree_tokens(target, now) end
end

-- Make room for `record`; the files, directories and bytes that are gone from the target's directory.
local function displace(target, record, sequence, now)
  local old = target.record
  if not old then return 0, 0, 0 end
  local files, directories, bytes = weigh(old)
  hand_over_locks(old, record)
  drop_tree_locks(old)
  bury(target, request.target, sequence, now)
  return files, directories, bytes
end
