//! The pools of one worker for the endpoints of one backend.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use super::{Pool, Terms};
use crate::endpoint::{Backend, Endpoint, Security};

/// A worker's connections to the endpoints of a backend, in the endpoints' order. Each pool is made when it is first
/// needed: of thousands of endpoints a worker may use few, and it stands still while it makes what nobody asks for.
#[derive(Debug)]
pub struct Pools {
    backend: Arc<Backend>,
    terms: Rc<Terms>,
    made: Box<[OnceCell<Rc<Pool>>]>,
}

impl Pools {
    /// None yet, for the endpoints of a backend, on these terms.
    pub fn new(backend: Arc<Backend>, terms: Terms) -> Self {
        let made = std::iter::repeat_with(OnceCell::new).take(backend.endpoints.len()).collect();
        Self { backend, terms: Rc::new(terms), made }
    }

    /// Of a backend of one endpoint, with the pool that there is.
    pub fn of_one(backend: Arc<Backend>, pool: Rc<Pool>) -> Self {
        let terms = pool.terms.borrow().clone();
        Self { backend, terms, made: Box::new([OnceCell::from(pool)]) }
    }

    /// The pool of the endpoint in this place.
    pub fn get(&self, at: usize) -> Option<&Rc<Pool>> {
        let (endpoint, pool) = (self.backend.endpoints.get(at)?, self.made.get(at)?);
        Some(pool.get_or_init(|| {
            let pool = Pool::new(endpoint.clone());
            pool.set_terms(self.terms.clone());
            pool
        }))
    }

    /// Takes over a pool of the endpoint in this place, unless it has one. Whether it did.
    pub fn keep(&self, at: usize, pool: &Rc<Pool>) -> bool {
        let same = |endpoint: &Arc<Endpoint>| endpoint.id() == pool.endpoint().id();
        let free = self.backend.endpoints.get(at).is_some_and(same)
            && self.made.get(at).is_some_and(|place| place.set(pool.clone()).is_ok());
        if free {
            pool.set_terms(self.terms.clone());
        }
        free
    }

    /// Those that were needed so far, with their endpoints' places.
    pub fn made(&self) -> impl Iterator<Item = (usize, &Rc<Pool>)> {
        self.made.iter().enumerate().filter_map(|(at, pool)| Some((at, pool.get()?)))
    }

    /// Whether the first of the endpoints is one of which [`Pool::is_of_sidecars`] holds.
    pub(crate) fn are_of_sidecars(&self) -> bool {
        let Some(first) = self.made.first() else { return false };
        first.get().map_or_else(
            || self.backend.endpoints.first().is_some_and(|endpoint| is_mesh(&endpoint.security)),
            |pool| pool.is_of_sidecars(),
        )
    }
}

/// Whether an endpoint is reached through a sidecar.
pub(super) const fn is_mesh(security: &Security) -> bool {
    matches!(security, Security::Mesh { .. } | Security::Own)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use outrigger_balance::Load;

    use super::*;

    fn endpoint(security: Security) -> Arc<Endpoint> {
        let load = Arc::new(Load::new(1, Instant::now()));
        Arc::new(Endpoint::new(([127, 0, 0, 1], 80).into(), security, load))
    }

    fn backend(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Arc<Backend> {
        let one = Backend::of_one("b".into(), endpoint(Security::Plain), Duration::from_secs(1));
        Arc::new(Backend { endpoints: endpoints.into_iter().collect(), ..one })
    }

    #[test]
    fn of_many_endpoints_those_that_are_needed_get_a_pool() {
        let pools = Pools::new(backend((0..10_000).map(|_| endpoint(Security::Plain))), Terms::default());
        assert_eq!(pools.made().count(), 0);
        let pool = pools.get(7_000).unwrap();
        assert!(Rc::ptr_eq(pool, pools.get(7_000).unwrap()));
        assert_eq!(pools.made().map(|(at, _)| at).collect::<Vec<_>>(), [7_000]);
        assert!(pools.get(10_000).is_none());
    }

    #[test]
    fn a_pool_is_taken_over_where_its_endpoint_is() {
        let (a, b) = (endpoint(Security::Plain), endpoint(Security::Plain));
        let before = Pools::new(backend([a.clone(), b.clone()]), Terms::default());
        let pool = before.get(0).unwrap();
        let after = Pools::new(backend([b, a]), Terms { idle: Duration::from_secs(3), ..Terms::default() });
        assert!(!after.keep(0, pool), "another endpoint is there");
        assert!(after.keep(1, pool));
        assert!(!after.keep(1, pool), "it has one");
        assert!(Rc::ptr_eq(pool, after.get(1).unwrap()));
        assert_eq!(pool.terms.borrow().idle, Duration::from_secs(3));
    }

    #[test]
    fn it_is_known_of_sidecars_without_a_pool() {
        let pools = |security| Pools::new(backend([endpoint(security)]), Terms::default());
        assert!(pools(Security::Own).are_of_sidecars());
        assert!(!pools(Security::Plain).are_of_sidecars());
        let meshed = pools(Security::Own);
        meshed.get(0).unwrap().bare.set(true);
        assert!(!meshed.are_of_sidecars());
    }
}
