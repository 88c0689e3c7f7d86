"""What lies on the disk: names of files, durable writes, locks, manifests, strict JSON. Knows no run and no model."""
