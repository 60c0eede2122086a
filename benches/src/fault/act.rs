//! The faults, one after the other.

use std::{collections::VecDeque, fmt::Write as _, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    sync::oneshot,
    time::{interval, sleep, timeout},
};

use super::{
    Stage,
    application::Application,
    proxy::{EXPIRY, Proxy, REVISION},
};
use crate::subject::certificates::{Certificates, spiffe_id};

/// How often routes change.
const REWRITE: Duration = Duration::from_millis(50);
/// How many routes there are beside the one that takes the load.
const ROUTES: u64 = 100;
/// How many endpoints there are.
const ENDPOINTS: usize = 3;
/// How long an application still runs when it is no endpoint any more, as one does whose orchestrator tells both of its end.
const FAREWELL: Duration = Duration::from_millis(100);
/// How often certificates are renewed: their end is told in seconds.
const RENEW: Duration = Duration::from_millis(1100);
/// How long the proxy that took over is left alone, and how long the one before may take to end.
const REIGN: Duration = Duration::from_millis(500);
const END: Duration = Duration::from_secs(40);

/// When callers may come, and when they have gone.
#[derive(Debug)]
pub(super) struct Cues {
    pub(super) ready: Option<oneshot::Sender<SocketAddr>>,
    pub(super) stopped: oneshot::Receiver<()>,
}

impl Cues {
    fn ready(&mut self, address: SocketAddr) {
        let _ = self.ready.take().map(|ready| ready.send(address));
    }

    /// Waits for so long; false if the load is over by then.
    async fn go_on(&mut self, after: Duration) -> bool {
        timeout(after, &mut self.stopped).await.is_err()
    }
}

pub(super) async fn routes(stage: &Stage, mut cues: Cues) -> Result<u64> {
    let application = Application::start().await?;
    let file = |turn: u64| {
        let mut routes = String::new();
        for route in 0..ROUTES {
            let _ = writeln!(
                routes,
                "  - {{ name: r{route}, listeners: [bench], rules: [{{ matches: [{{ path: {{ value: /r{turn}-{route} }} }}], backendRefs: [{{ name: app }}] }}] }}"
            );
        }
        edge(&[application.address()], &routes)
    };
    let proxy = Proxy::start(stage, "proxy", &file(0)).await?;
    let first = proxy.metric(REVISION).await?;
    cues.ready(proxy.address);
    let (mut turn, mut ticks) = (0, interval(REWRITE));
    loop {
        tokio::select! {
            _ = &mut cues.stopped => break,
            _ = ticks.tick() => {}
        }
        turn += 1;
        proxy.rewrite(&file(turn))?;
    }
    proxy.apply(&file(turn + 1)).await?;
    Ok((proxy.metric(REVISION).await? - first) as u64)
}

pub(super) async fn endpoints(stage: &Stage, mut cues: Cues) -> Result<u64> {
    let mut applications = VecDeque::new();
    for _ in 0..ENDPOINTS {
        applications.push_back(Application::start().await?);
    }
    let file = |applications: &VecDeque<Application>| {
        let addresses: Vec<_> = applications.iter().map(Application::address).collect();
        edge(&addresses, "")
    };
    let proxy = Proxy::start(stage, "proxy", &file(&applications)).await?;
    cues.ready(proxy.address);
    let mut changes = 0;
    while cues.go_on(Duration::ZERO).await {
        applications.push_back(Application::start().await?);
        proxy.apply(&file(&applications)).await?;
        let leaving = applications.pop_front().context("there is an endpoint")?;
        proxy.apply(&file(&applications)).await?;
        sleep(FAREWELL).await;
        drop(leaving);
        changes += 1;
    }
    Ok(changes)
}

pub(super) async fn certificates(stage: &Stage, mut cues: Cues) -> Result<u64> {
    let application = Application::start().await?;
    let certificates = Certificates::create(&stage.dir)?;
    let callee = inbound(application.address(), &identity(&certificates, "callee")?);
    let callee = Proxy::start(stage, "callee", &callee).await?;
    let caller = outbound(callee.address, &identity(&certificates, "caller")?);
    let caller = Proxy::start(stage, "caller", &caller).await?;
    cues.ready(caller.address);
    let mut changes = 0;
    while cues.go_on(RENEW).await {
        let before = (callee.metric(EXPIRY).await?, caller.metric(EXPIRY).await?);
        certificates.identity("callee")?;
        certificates.identity("caller")?;
        callee.until_other(EXPIRY, before.0).await?;
        caller.until_other(EXPIRY, before.1).await?;
        changes += 1;
    }
    Ok(changes)
}

pub(super) async fn drain(stage: &Stage, mut cues: Cues) -> Result<u64> {
    let application = Application::start().await?;
    let (file, door) = (stage.dir.join("proxy.yaml"), stage.dir.join("upgrade.sock"));
    std::fs::write(&file, edge(&[application.address()], ""))?;
    let upgrade = [Path::new("--upgrade"), &door];
    let mut proxy = Proxy::start_from(stage, "proxy-0", file.clone(), &upgrade).await?;
    cues.ready(proxy.address);
    let mut changes = 0;
    while cues.go_on(REIGN).await {
        let name = format!("proxy-{}", changes + 1);
        let next = Proxy::start_from(stage, &name, file.clone(), &upgrade).await?;
        ensure!(next.address == proxy.address, "{} has become {}", proxy.address, next.address);
        let ended = timeout(END, async {
            while !proxy.process.ended() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        ended.await.with_context(|| {
            format!("the proxy whose sockets were taken over did not end{}", proxy.process.complaint())
        })?;
        proxy = next;
        changes += 1;
    }
    Ok(changes)
}

fn edge(applications: &[SocketAddr], routes: &str) -> String {
    let endpoints: Vec<_> =
        applications.iter().map(|address| format!("{{ address: '{address}' }}")).collect();
    format!(
        "admin: {{ address: 127.0.0.1:0 }}
listeners: [{{ name: bench, address: 127.0.0.1:0, protocol: HTTP }}]
httpRoutes:
{routes}  - {{ name: bench, listeners: [bench], rules: [{{ backendRefs: [{{ name: app }}] }}] }}
backends: [{{ name: app, endpoints: [{}] }}]
",
        endpoints.join(", ")
    )
}

/// Makes the files of an identity, and returns the configuration's line for them.
fn identity(certificates: &Certificates<'_>, name: &str) -> Result<String> {
    let files = certificates.identity(name)?;
    let [chain, key, trust] = [&files.chain, &files.key, &certificates.trust].map(|path| path.display());
    Ok(format!("identity: {{ chain: '{chain}', key: '{key}', trust: '{trust}' }}\n"))
}

fn inbound(application: SocketAddr, identity: &str) -> String {
    sidecar("direction: Inbound, mtls: { mode: Strict }", identity, &format!("address: '{application}'"))
}

fn outbound(callee: SocketAddr, identity: &str) -> String {
    let to = format!("address: '{callee}', identity: '{}'", spiffe_id("callee"));
    sidecar("direction: Outbound, protocol: HTTP", identity, &to)
}

/// Its connections are renewed too, or the one that is there would go on with what it has.
fn sidecar(listener: &str, identity: &str, endpoint: &str) -> String {
    format!(
        "admin: {{ address: 127.0.0.1:0 }}
{identity}listeners: [{{ name: bench, address: 127.0.0.1:0, {listener} }}]
httpRoutes: [{{ name: bench, listeners: [bench], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]
backends: [{{ name: app, endpoints: [{{ {endpoint} }}], timeouts: {{ maxConnectionAge: 200ms }} }}]
"
    )
}
