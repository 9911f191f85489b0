"""ARP, autoregressive action sequences on RLBench."""
