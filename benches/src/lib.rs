//! What the mesh costs: the latency that it adds, and its CPU and memory.
//!
//! One generator sends the same requests to one application by several paths: directly, through one proxy, through
//! two sidecars with mutual TLS between them, and, for comparison, through nginx. Latency counts from when a request
//! was *due*, so a path that stalls shows every request that it delayed. CPU is that of the proxy processes alone.
//!
//! It measures what one machine can tell: no network, small answers, a few connections. It is there to steer by.

pub mod callee;
pub mod cli;
pub mod diff;
pub mod fault;
mod grpc;
pub mod host;
pub mod instructions;
pub mod load;
pub mod message;
pub mod page;
pub mod process;
pub mod result;
pub mod run;
pub mod scenario;
pub mod subject;
pub mod timer;
mod websocket;
