//! Sockets: listening, original destinations, capture rules, detection, byte copy.
