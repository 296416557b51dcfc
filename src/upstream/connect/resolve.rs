//! Looking a name up once for all who want it at the same time.
//!
//! The system's resolver takes a thread for each lookup, and a thread takes memory. When a crowd of requests comes at once, each
//! opens a connection, but one lookup serves them all. A lookup that goes on for too long is joined by nobody any more: the
//! resolver may have come back meanwhile, and a new one would see it.
//!
//! Deliberately absent: keeping an answer. Whoever comes after it looks anew.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
    vec,
};

use futures_util::{FutureExt as _, future::Shared};
use hyper_util::client::legacy::connect::dns::Name;
use tokio::time::Instant;
use tower::Service;

use super::Resolve;

/// For how long others join a lookup that is under way. A healthy resolver answers in a fraction of it; and so many threads
/// a second are the most that a dead one costs.
const JOINED_FOR: Duration = Duration::from_secs(1);

type Answer = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

/// A resolver that is asked once for all who ask at the same time.
#[derive(Clone)]
pub(super) struct SingleFlight<R> {
    resolver: R,
    under_way: Arc<Mutex<Option<Lookup>>>,
}

struct Lookup {
    name: Name,
    begun: Instant,
    answer: Shared<Pin<Box<dyn Future<Output = Answer> + Send>>>,
}

impl Lookup {
    fn serves(&self, name: &Name) -> bool {
        self.name == *name && self.begun.elapsed() < JOINED_FOR && self.answer.peek().is_none()
    }
}

impl<R> SingleFlight<R> {
    /// Asks `resolver`.
    pub(super) fn new(resolver: R) -> Self {
        Self { resolver, under_way: Arc::default() }
    }
}

impl<R: Resolve> Service<Name> for SingleFlight<R> {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match under_way.as_ref().filter(|lookup| lookup.serves(&name)) {
            Some(lookup) => lookup.answer.clone(),
            None => {
                let asked = self.resolver.call(name.clone());
                let answer = asked.map(|found| found.map(Iterator::collect).map_err(Arc::new)).boxed().shared();
                *under_way = Some(Lookup { name, begun: Instant::now(), answer: answer.clone() });
                answer
            }
        };
        let each = |answer: Answer| match answer {
            Ok(addresses) => Ok(Vec::from(&*addresses).into_iter()),
            Err(error) => Err(io::Error::new(error.kind(), error)),
        };
        answer.map(each).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::{sync::broadcast, task::JoinSet, time::advance};
    use tower::{ServiceExt as _, service_fn, util::BoxCloneSyncService};

    use super::*;

    type Asked = BoxCloneSyncService<Name, vec::IntoIter<SocketAddr>, io::Error>;

    /// A resolver that answers all who ask when it is told to, and how often it was asked.
    fn resolver() -> (SingleFlight<Asked>, Arc<AtomicUsize>, broadcast::Sender<bool>) {
        let (asked, (answer, _)) = (Arc::new(AtomicUsize::new(0)), broadcast::channel(1));
        let (counted, answers) = (Arc::clone(&asked), answer.clone());
        let resolver = service_fn(move |_: Name| {
            counted.fetch_add(1, Relaxed);
            let mut answers = answers.subscribe();
            async move {
                let good = answers.recv().await.unwrap_or(false);
                let address = SocketAddr::from(([192, 0, 2, 1], 0));
                if good { Ok(vec![address].into_iter()) } else { Err(io::Error::other("no such name")) }
            }
        });
        (SingleFlight::new(BoxCloneSyncService::new(resolver)), asked, answer)
    }

    async fn ask(together: &SingleFlight<Asked>, times: usize) -> JoinSet<io::Result<Vec<SocketAddr>>> {
        let mut asking = JoinSet::new();
        for _ in 0..times {
            let lookup = together.clone().oneshot("name.test".parse().unwrap());
            asking.spawn(async move { lookup.await.map(Iterator::collect) });
            tokio::task::yield_now().await;
        }
        asking
    }

    #[tokio::test(start_paused = true)]
    async fn one_lookup_serves_all_who_ask_while_it_is_under_way() {
        let (together, asked, answer) = resolver();
        let asking = ask(&together, 100).await;
        assert_eq!(asked.load(Relaxed), 1);
        answer.send(true).unwrap();
        for found in asking.join_all().await {
            assert_eq!(found.unwrap(), [SocketAddr::from(([192, 0, 2, 1], 0))]);
        }
        let later = ask(&together, 1).await;
        assert_eq!(asked.load(Relaxed), 2, "an answer is not kept");
        answer.send(false).unwrap();
        assert_eq!(later.join_all().await[0].as_ref().unwrap_err().to_string(), "no such name");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_hangs_is_joined_for_a_second_and_then_left_alone() {
        let (together, asked, answer) = resolver();
        let first = ask(&together, 2).await;
        advance(JOINED_FOR).await;
        let second = ask(&together, 2).await;
        assert_eq!(asked.load(Relaxed), 2);
        answer.send(true).unwrap();
        assert!(first.join_all().await.iter().chain(&second.join_all().await).all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_go_on_when_the_one_who_asked_goes_away() {
        let (together, asked, answer) = resolver();
        let mut first = ask(&together, 1).await;
        let second = ask(&together, 1).await;
        first.shutdown().await;
        answer.send(true).unwrap();
        assert!(second.join_all().await[0].is_ok());
        assert_eq!(asked.load(Relaxed), 1);
    }
}
