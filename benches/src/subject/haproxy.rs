//! HAProxy.

use super::{peer::Hop, template::fill};
use crate::load::Traffic;

const HTTP: &str = include_str!("../../peers/haproxy/http.cfg");
const TCP: &str = include_str!("../../peers/haproxy/tcp.cfg");

pub(super) fn file(hop: &Hop<'_>) -> String {
    let traffic = hop.setup.traffic;
    let template = match traffic {
        Traffic::Tcp | Traffic::TcpBulk => TCP,
        _ => HTTP,
    };
    let mut conditions = hop.conditions();
    conditions.push(("h2", matches!(traffic, Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream)));
    conditions.push(("bulk", traffic == Traffic::TcpBulk));
    fill(template, &hop.values(), &conditions)
}
