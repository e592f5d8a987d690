"""Flow control: what stands between due rows and the workers, kept by the whole fleet together."""
