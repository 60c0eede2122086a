//! Which endpoint takes a request, and whether one may be tried again: balancers, health, outlier detection, retry
//! budgets.
//!
//! Pure: no socket, no task, no clock of its own. Every function that depends on time is told what time it is, so
//! that tests run hours in milliseconds. All state is atomic and shared by the workers; nothing locks or allocates
//! while a request is on its way, but the failure that ejects an endpoint.

mod adaptive;
mod balancer;
mod check;
mod limit;
mod load;
mod outlier;
mod retry;

pub use adaptive::Adaptive;
pub use balancer::{Balancer, Member, Pick, Wish, hash};
pub use check::Answers;
pub use limit::{Limit, Limits, Place, Queue, Waiting};
pub use load::{Cause, InFlight, Load, Standing, State};
pub use outlier::Outliers;
pub use retry::{Budget, backoff};
