//! What tests and demos share: applications, certificates, an in-process mesh.

pub mod app;
pub mod mesh;
pub mod netns;
