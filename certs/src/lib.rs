//! Identities: keys, signing requests, the authority, trust bundles and TLS configurations.
//!
//! A node makes a key ([`signing_request`]), an [`Authority`] signs it into a certificate, chain, key and trust
//! bundle are checked into an [`Identity`], and the identity is turned into whole TLS configurations: [`mesh`]
//! between sidecars, [`control`] to and from the control API. [`edge`] is ordinary TLS, for everyone else.
//!
//! Every name of rustls's that the workspace needs is used through this crate, and always with the aws-lc-rs
//! provider given explicitly: several proxies may live in one process. No socket is opened here, and no clock is
//! read but to check a certificate that has just come in.

pub mod authority;
pub mod control;
pub mod edge;
mod error;
mod identity;
mod leaf;
pub mod mesh;
mod provider;
mod secret;
mod verify;

pub use authority::{Authority, signing_request};
pub use error::{Error, Part};
pub use identity::Identity;
pub use rustls;
pub use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
pub use secret::Secret;
