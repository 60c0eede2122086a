//! The requests under way on a connection, moved by the connection's own task.
//!
//! A task for each of them would cost two allocations, and each time that a request and its connection have something for
//! each other a way through the runtime's queue. Here the connection is looked at once for all the requests that were woken.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// How often a task looks at what was woken meanwhile before other tasks get their turn.
const ROUNDS: usize = 4;
/// How many boxes are kept for futures to come.
const SPARE: usize = 32;

/// Requests under way, each of which is moved when it was woken.
pub(super) struct Exchanges<F> {
    places: Vec<Place<F>>,
    /// Which of them nobody has.
    free: Vec<usize>,
    boxes: Boxes<F>,
    /// Those that are to be moved now.
    due: Vec<usize>,
    bell: Arc<Bell>,
    connection: Waker,
}

struct Place<F> {
    request: Option<Boxed<F>>,
    ring: Arc<Ring>,
    waker: Waker,
}

impl<F: Future<Output = ()>> Exchanges<F> {
    pub(super) fn new() -> Self {
        let bell = Arc::<Bell>::default();
        let connection = Waker::from(Ring::new(&bell, None));
        connection.wake_by_ref();
        let (places, free, due) = (Vec::new(), Vec::new(), Vec::new());
        Self { places, free, boxes: Boxes::default(), due, bell, connection }
    }

    /// Takes up a request while the connection is looked at.
    pub(super) fn begin(&mut self, request: impl FnOnce() -> F) {
        let at = self.free.pop().unwrap_or_else(|| {
            let ring = Ring::new(&self.bell, Some(self.places.len()));
            self.places.push(Place { request: None, waker: ring.clone().into(), ring });
            self.places.len() - 1
        });
        if let Some(place) = self.places.get_mut(at) {
            place.request = Some(self.boxes.hold(request));
            self.due.push(at);
        }
    }

    /// Moves the requests that were woken, then looks at the connection, if it was or they have something for it, and moves
    /// those that it has brought; until nothing is left to do, or the connection ends.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let waker = self.connection.clone();
        for _ in 0..ROUNDS {
            let mut wanted = self.bell.answer(&mut self.due);
            if !self.due.is_empty() {
                self.move_due();
                wanted |= self.bell.is_for_connection();
            }
            if wanted && let Poll::Ready(ended) = look(self, &mut Context::from_waker(&waker)) {
                return Poll::Ready(ended);
            }
            self.move_due();
            if self.bell.sleep(cx.waker()) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn move_due(&mut self) {
        for at in self.due.drain(..) {
            let Some(place) = self.places.get_mut(at) else { continue };
            place.ring.rung.store(false, Ordering::Relaxed);
            let Some(request) = &mut place.request else { continue };
            let mut cx = Context::from_waker(&place.waker);
            // One that panics does not take those of others with it: its stream is reset as it is dropped.
            let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(request).poll(&mut cx)));
            if !matches!(polled, Ok(Poll::Pending)) {
                place.request = None;
                self.free.push(at);
            }
        }
    }

    /// Gives back the memory that is kept for requests to come.
    pub(super) fn rest(&mut self) {
        self.boxes.clear();
        if self.free.len() == self.places.len() {
            (self.places, self.free, self.due) = (Vec::new(), Vec::new(), Vec::new());
        }
    }
}

/// Who was woken, and whom to wake for it.
#[derive(Debug, Default)]
struct Bell(Mutex<Rung>);

#[derive(Debug, Default)]
struct Rung {
    requests: Vec<usize>,
    connection: bool,
    /// Who is to look, unless it does already.
    task: Option<Waker>,
    asleep: bool,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over the requests that were woken, and says whether the connection was. `due` must be empty.
    fn answer(&self, due: &mut Vec<usize>) -> bool {
        let mut rung = self.lock();
        rung.asleep = false;
        std::mem::swap(&mut rung.requests, due);
        std::mem::take(&mut rung.connection)
    }

    /// Whether the connection was woken since this was last asked.
    fn is_for_connection(&self) -> bool {
        std::mem::take(&mut self.lock().connection)
    }

    /// Whether nobody was woken meanwhile. From now on this task is, then.
    fn sleep(&self, task: &Waker) -> bool {
        let mut rung = self.lock();
        if rung.connection || !rung.requests.is_empty() {
            return false;
        }
        if !rung.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            rung.task = Some(task.clone());
        }
        rung.asleep = true;
        true
    }
}

/// The end of the bell that one request has, or the connection.
#[derive(Debug)]
struct Ring {
    bell: Arc<Bell>,
    /// The request's place; `None`: it is the connection's.
    place: Option<usize>,
    /// Whether a request was woken and not moved since.
    rung: AtomicBool,
}

impl Ring {
    fn new(bell: &Arc<Bell>, place: Option<usize>) -> Arc<Self> {
        Arc::new(Self { bell: bell.clone(), place, rung: AtomicBool::new(false) })
    }
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut rung = self.bell.lock();
        match self.place {
            None => rung.connection = true,
            Some(_) if self.rung.swap(true, Ordering::Relaxed) => return,
            Some(place) => rung.requests.push(place),
        }
        if std::mem::take(&mut rung.asleep)
            && let Some(task) = &rung.task
        {
            task.wake_by_ref();
        }
    }
}

type Held<F> = Pin<Box<Option<F>>>;

/// Memory in which futures of one kind have ended, for those to come.
pub(super) struct Boxes<F>(Rc<RefCell<Vec<Held<F>>>>);

impl<F> Default for Boxes<F> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<F> Boxes<F> {
    /// Puts a future into a box, and nowhere else before.
    pub(super) fn hold(&self, make: impl FnOnce() -> F) -> Boxed<F> {
        let spare = self.0.borrow_mut().pop();
        let mut held = spare.unwrap_or_else(|| Box::pin(None));
        held.set(Some(make()));
        Boxed { held: Some(held), boxes: Self(self.0.clone()) }
    }

    /// Gives the memory back.
    pub(super) fn clear(&self) {
        self.0.take();
    }
}

/// A future in a box that is used again once it is dropped.
pub(super) struct Boxed<F> {
    held: Option<Held<F>>,
    boxes: Boxes<F>,
}

impl<F: Future> Future for Boxed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.held.as_mut().and_then(|held| held.as_mut().as_pin_mut()) {
            Some(future) => future.poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Boxed<F> {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        held.set(None);
        let mut boxes = self.boxes.0.borrow_mut();
        if boxes.len() < SPARE {
            boxes.push(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn};
    use std::sync::atomic::AtomicUsize;

    use super::*;

    type Request = Pin<Box<dyn Future<Output = ()>>>;

    /// A task with requests under way, and what becomes of them.
    #[derive(Default)]
    struct Seen {
        /// How often the task was woken.
        woken: Arc<Woken>,
        /// How often the connection was looked at.
        looks: Cell<usize>,
        line: RefCell<Option<Waker>>,
        /// The requests that come next.
        coming: RefCell<Vec<Request>>,
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Seen {
        fn bring(&self, request: Request) {
            self.coming.borrow_mut().push(request);
            self.line.borrow().iter().for_each(Waker::wake_by_ref);
        }

        fn poll(&self, exchanges: &mut Exchanges<Request>) {
            let waker = Waker::from(self.woken.clone());
            let polled = exchanges.poll(&mut Context::from_waker(&waker), |exchanges, cx| {
                self.coming.take().into_iter().for_each(|request| exchanges.begin(|| request));
                self.looks.set(self.looks.get() + 1);
                self.line.replace(Some(cx.waker().clone()));
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
        }

        /// How often the task was woken, and the connection looked at, since this was last asked.
        fn take(&self) -> (usize, usize) {
            (self.woken.0.swap(0, Ordering::Relaxed), self.looks.take())
        }
    }

    /// A request that tells the connection something whenever it is woken, and where its waker is.
    fn talker(seen: &Rc<Seen>) -> (Request, Rc<RefCell<Option<Waker>>>) {
        let (seen, waker) = (seen.clone(), Rc::<RefCell<Option<Waker>>>::default());
        let there = waker.clone();
        let request = poll_fn(move |cx| {
            let before = there.replace(Some(cx.waker().clone()));
            before.and(seen.line.borrow().as_ref()).map(Waker::wake_by_ref);
            Poll::Pending
        });
        (Box::pin(request), waker)
    }

    #[test]
    fn the_connection_is_looked_at_once_for_all_requests_that_were_woken() {
        let (seen, mut exchanges) = (Rc::<Seen>::default(), Exchanges::new());
        seen.poll(&mut exchanges);
        assert_eq!(seen.take(), (0, 1));
        let wakers: Vec<_> = (0..3)
            .map(|_| {
                let (request, waker) = talker(&seen);
                seen.bring(request);
                waker
            })
            .collect();
        assert_eq!(seen.take(), (1, 0), "one wake for all three");
        seen.poll(&mut exchanges);
        assert_eq!(seen.take(), (0, 1));
        for waker in wakers.iter().chain(&wakers) {
            waker.borrow().as_ref().unwrap().wake_by_ref();
        }
        assert_eq!(seen.take(), (1, 0));
        seen.poll(&mut exchanges);
        assert_eq!(seen.take(), (0, 1));
    }

    #[test]
    fn one_that_panics_or_never_rests_leaves_the_others_alone() {
        let (seen, mut exchanges) = (Rc::<Seen>::default(), Exchanges::new());
        let ended = Rc::new(Cell::new(false));
        seen.bring(Box::pin(poll_fn(|_| panic!("of its own"))));
        seen.bring(Box::pin(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
        let end = ended.clone();
        seen.bring(Box::pin(async move { end.set(true) }));
        seen.poll(&mut exchanges);
        assert!(ended.get());
        let (woken, _) = seen.take();
        assert!(woken > 0, "others get their turn, and then it does again");
        assert_eq!(exchanges.free.len(), 2);
    }

    #[test]
    fn memory_is_used_again_and_given_back() {
        let (seen, mut exchanges) = (Rc::<Seen>::default(), Exchanges::new());
        for _ in 0..3 {
            seen.bring(Box::pin(async {}));
            seen.poll(&mut exchanges);
        }
        assert_eq!((exchanges.places.len(), exchanges.boxes.0.borrow().len()), (1, 1));
        seen.bring(Box::pin(pending()));
        seen.poll(&mut exchanges);
        exchanges.rest();
        assert_eq!((exchanges.places.len(), exchanges.boxes.0.borrow().len()), (1, 0));
    }
}
