-- prelude: script tree content guard
-- All chunkservers have reported since this life began: it may delete, unless a report stopped that.

return run(function()
  check_epoch()
  if request.life > number('lives_checked') then call('SET', P .. 'lives_checked', string.format('%.0f', request.life)) end
  return {''}
end)
