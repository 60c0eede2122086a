use std::time::Duration;

use super::*;
use crate::callee::Callee;

/// A few requests of 10 bytes there and 20 back.
pub(super) fn load(arrivals: Arrivals) -> Load {
    Load {
        traffic: Traffic::Http1,
        arrivals,
        connections: 4,
        streams: 1,
        request_bytes: 10,
        response_bytes: 20,
        connect: Connect::Keep,
        tls: Tls::Off,
        seed: 1,
    }
}

async fn start(load: &Load) -> (Callee, Target) {
    let callee =
        if load.tls == Tls::Off { Callee::start(load).await } else { Callee::start_with_tls(load).await };
    let callee = callee.unwrap();
    let target = Target::application(callee.address(), callee.trust().map(ToOwned::to_owned));
    (callee, target)
}

#[tokio::test]
async fn every_kind_of_traffic_is_answered_in_every_way() {
    for traffic in [Traffic::Http1, Traffic::Http2, Traffic::Grpc, Traffic::GrpcStream] {
        for connect in [Connect::Keep, Connect::Each] {
            for tls in [Tls::Off, Tls::Full, Tls::Resumed] {
                for (request_bytes, response_bytes) in [(0, 0), (10, 20), (1_000_000, 1_000_000)] {
                    let many = request_bytes < 1000;
                    let requests: u32 = if many { 50 } else { 5 };
                    let multiplexed = traffic != Traffic::Http1;
                    let load = Load {
                        traffic,
                        streams: if multiplexed { 3 } else { 1 },
                        request_bytes,
                        response_bytes,
                        connect,
                        tls,
                        ..load(Arrivals::Poisson { rate: f64::from(requests) * 10.0 })
                    };
                    let (callee, target) = start(&load).await;
                    let mut callers = Callers::connect(&load, &target).await.unwrap();
                    let before = callee.seen();
                    let measured = callers.run(Duration::from_millis(100)).await.unwrap();
                    assert_eq!(measured.first_error, None, "{load:?}");
                    assert_eq!(measured.answered, u64::from(requests), "{load:?}");
                    let primed = u64::from(tls == Tls::Resumed) * measured.answered;
                    assert!(
                        (measured.answered..=measured.answered + primed).contains(&(callee.seen() - before)),
                        "{load:?}"
                    );
                }
            }
        }
    }
}
