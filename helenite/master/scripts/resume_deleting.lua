-- prelude: script tree content guard
-- A person says that the metadata is right: chunks that it does not know are orphans. Answers 1, or 0 when nothing had
-- been stopped.

return run(function()
  if call('EXISTS', P .. 'gc_stopped') == 0 then return {'', 0} end
  call('DEL', P .. 'gc_stopped')
  call('SET', P .. 'gc_accepted', string.format('%.0f', number('next_handle')))
  call('SET', P .. 'lives_checked', string.format('%.0f', newest_life()))
  return {'', 1}
end)
