//! What the mesh costs: the latency that it adds, and its CPU and memory.
//!
//! One generator sends the same requests to one application by several paths: directly, through one proxy, through
//! two sidecars with mutual TLS between them, and, for comparison, through nginx. Latency counts from when a request
//! was *due*, so a path that stalls shows every request that it delayed. CPU is that of the proxy processes alone.
//!
//! It measures what one machine can tell: no network, small answers, a few connections. It is there to steer by.

pub mod application;
pub mod callee;
pub mod caller;
pub mod cpus;
pub mod diff;
pub mod fault;
pub mod generator;
mod grpc;
pub mod instructions;
pub mod load;
pub mod measure;
pub mod message;
pub mod nginx;
pub mod outrigger;
pub mod path;
pub mod process;
pub mod report;
pub mod result;
pub mod subject;
mod table;
pub mod timer;
