//! Which endpoint takes a request: balancers, health, budgets. No I/O.
