"""An expensive value is computed once in the whole system; everyone else is woken with it."""
