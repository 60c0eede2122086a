//! Which endpoint takes a request, and whether one may be tried again: balancers, passive health, retry budgets.
//!
//! Pure: no socket, no task, no clock of its own. Every function that depends on time is told what time it is, so
//! that tests run hours in milliseconds. All state is atomic and shared by the workers; nothing locks or allocates
//! while a request is on its way.

mod balancer;
mod load;
mod retry;

pub use balancer::{Balancer, Member, Pick, Wish};
pub use load::{InFlight, Load};
pub use retry::{Budget, Granted, Refused, backoff};
