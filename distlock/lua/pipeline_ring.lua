-- Wake one waiting handler: there is something to look at, such as a lease that became free.
-- USES: _ring
-- KEYS: bell
-- ARGV: none
-- RETURNS: 1
ring(KEYS[1])
return 1
