//! Identities: keys, signing requests, the authority, trust bundles and TLS configurations.
