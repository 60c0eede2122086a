//! What the mesh costs: added latency, CPU and memory.
