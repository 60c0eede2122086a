//! What tests and demos share: applications, certificates, an in-process mesh, traffic, and what breaks it on purpose.

pub mod app;
pub mod fault;
pub mod ledger;
pub mod load;
pub mod mesh;
pub mod netns;
