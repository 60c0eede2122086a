//! The beginning of a proxy, on its control thread: everything that it needs, in the order in which it is needed, and where
//! it takes the place of another process, what the two have to agree on.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use outrigger_config::Name;
use outrigger_telemetry::Metrics;
use tokio::sync::{Notify, mpsc, watch};

use super::{Addresses, Control, Options, Source, StartError};
use crate::admin::Readiness;
use crate::director::{Director, Means, Published, Tell};
use crate::drain::{Leaving, Terms};
use crate::faces::{self, Places, Shown, interface};
use crate::health::{self, Findings};
use crate::listeners::Given;
use crate::resolve::Resolver;
use crate::source::{ConfigFile, Event, follow_control};
use crate::state::Doubt;
use crate::takeover::{Claim, Door, Shop, UpgradeError};
use crate::watch::Follower;
use crate::{limits, worker};

/// Brings up everything on the control thread, and the first configuration if it comes from a file.
pub(super) async fn begin(
    options: Options,
    orders: Vec<mpsc::Sender<worker::Order>>,
    metrics: Metrics,
    published: Published,
    ready: watch::Sender<Readiness>,
    accepts: &Cell<bool>,
) -> Result<(Addresses, Control), StartError> {
    let (events, heard) = mpsc::unbounded_channel();
    let (follower, files) = Follower::start();
    if let Source::File(path) = &options.source {
        // Before it is read: it may change while this process waits for another to hand over its sockets.
        follower.set([path.clone()].into());
    }
    let (node, file, doubted_control) = follow(options.source, &*options.complain, &events)?;
    let (mut claim, door) = upgrade(options.upgrade.as_deref()).await?;
    let mut given: Vec<Given> = options.activated.into_iter().map(Given::from).collect();
    given.extend(claim.iter_mut().flat_map(|claim| claim.listeners.drain(..)));
    let admin = options.admin.or(file.as_ref().and_then(|file| file.admin));
    let places = Places { admin, metrics: options.metrics, ready: options.ready };
    let faces = faces::open(places, claim.as_mut().map(|claim| &mut claim.own), &mut given)?;
    let (quit, gone) = watch::channel(false);
    let replaced = watch::Sender::new(false);
    let (adopted, findings) = (Arc::<Notify>::default(), Findings::default());
    let (metrics_too, published_too, findings_too) = (metrics.clone(), published.clone(), findings.clone());
    let shown = Shown { metrics: metrics_too, published: published_too, findings: findings_too };
    let interface = interface(shown, ready.subscribe(), options.log, quit, replaced.subscribe());
    let interface = Arc::new(interface);
    let mut answering = None;
    if claim.is_none() {
        answering = Some(faces::answer(&interface, &faces, &options.announce)?);
        door.as_ref().map_or(Ok(()), Door::put)?;
    }
    health::Collect::add(&metrics, &published, &findings);
    limits::Collect::add(&metrics, &published);
    tokio::task::spawn_local(health::tend(published.clone(), adopted.clone(), findings));
    let (wanted, names) = watch::channel(std::collections::BTreeSet::new());
    let (doubt, doubted) = mpsc::channel(64);
    let from_file = file.is_some();
    let means = Means {
        metrics: metrics.clone(),
        orders: orders.clone(),
        published: published.clone(),
        adopted,
        ready: ready.clone(),
        addresses: Resolver::system().start(names, doubted),
        wanted,
        doubt: Doubt { names: doubt, control: doubted_control },
        follower,
        announce: options.announce.clone(),
        complain: options.complain.clone(),
        zone: options.zone,
    };
    let mut director = Director::new(means, node, file, options.captured);
    director.given = given;
    if from_file {
        first(&mut director, claim.as_ref(), accepts).await?;
    }
    if let Some(claim) = claim {
        answering = Some(faces::answer(&interface, &faces, &options.announce)?);
        in_place(claim, door.as_ref(), &options.announce, &options.complain).await;
    }
    let (addresses, answering) = answering.unwrap_or_default();
    let complain = options.complain;
    let (orders_too, published_too) = (orders.clone(), published.clone());
    let shop = Shop { orders: orders_too, published: published_too, faces, complain: complain.clone() };
    let terms = Terms { delay: options.drain_delay, grace: options.drain_grace, quiet: options.drain_quiet };
    let opens = director.opens.clone();
    let leaving = Leaving { terms, orders, published, ready, metrics, gone, opens, complain };
    let upgrade = door.map(|door| (door, shop));
    let announce = options.announce;
    let control = Control { director, events: heard, files, leaving, replaced, upgrade, answering, announce };
    Ok((addresses, control))
}

/// What is known of a source once it is followed: the node's name, the file, and who hears of doubts in what it said.
type Followed = (Option<Name>, Option<ConfigFile>, Option<Arc<Notify>>);

/// Reads a file, or begins to follow the control API.
fn follow(
    source: Source,
    complain: &dyn Fn(&str),
    events: &mpsc::UnboundedSender<Event>,
) -> Result<Followed, StartError> {
    Ok(match source {
        Source::File(path) => (None, Some(ConfigFile::open(path, complain)?), None),
        Source::Text(text) => (None, Some(ConfigFile::of_text(&text, complain)?), None),
        Source::Control(control) => {
            let (node, doubts) = (control.node.clone(), Arc::<Notify>::default());
            tokio::spawn(follow_control(control, events.clone(), doubts.clone()));
            (Some(node), None, Some(doubts))
        }
    })
}

/// Finds the process to be replaced, and makes the place where the next one finds this one.
async fn upgrade(path: Option<&Path>) -> Result<(Option<Claim>, Option<Door>), UpgradeError> {
    let Some(path) = path else { return Ok((None, None)) };
    let claim = Claim::make(path).await?;
    Ok((claim, Some(Door::make(path)?)))
}

/// Tells the process that is replaced so, and is found in its place.
async fn in_place(claim: Claim, door: Option<&Door>, announce: &Tell, complain: &Tell) {
    let before = claim.pid;
    claim.accepting().await;
    if let Some(error) = door.and_then(|door| door.put().err()) {
        complain(&format!("{error}; the next upgrade will not find this process"));
    }
    announce(&format!("takes over from process {before}"));
}

/// Makes the configuration of a file live. Where another process is replaced, only if nothing of it is lacking.
async fn first(
    director: &mut Director,
    claim: Option<&Claim>,
    accepts: &Cell<bool>,
) -> Result<(), StartError> {
    director.reread();
    let made = director.make().await;
    if let Some(claim) = claim {
        let lacks = director.lacks(&made);
        if !lacks.is_empty() {
            return Err(UpgradeError::Lacking(lacks.join("\n")).into());
        }
        claim.ready().await?;
        director.listen();
    }
    accepts.set(true);
    director.hand_out(made).await;
    if director.is_deaf() {
        let why: Vec<_> = director.problems().iter().map(|problem| problem.reason.clone()).collect();
        return Err(StartError::Deaf(why.join("\n")));
    }
    if !director.listens() {
        director.complain("no listener is open: the file has none that can be used; once it has, they open");
    }
    director.say_unwanted();
    Ok(())
}
